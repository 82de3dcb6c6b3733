"""The clock of the machine: waits that share a timer end like those that have one of their own."""

import asyncio
import time

import pytest

from turnwire_server.runtime.clock import LONG_SECONDS_MIN, TICK_SECONDS, SystemClock

# Long waits are told apart by how long they may last: this clock has all of them share timers, that one none.
SHARED, OWN = 0.0, float("inf")

both = pytest.mark.parametrize("long_seconds_min", [SHARED, OWN])


def cancel_count() -> int:
    task = asyncio.current_task()
    assert task
    return task.cancelling()


@both
async def test_what_comes_in_time_is_awaited(long_seconds_min: float) -> None:
    clock = SystemClock(long_seconds_min)
    assert await clock.wait_for(asyncio.sleep(0.01), 5)


@both
async def test_what_does_not_come_is_cancelled_not_before_its_time(long_seconds_min: float) -> None:
    clock, never = SystemClock(long_seconds_min), asyncio.get_running_loop().create_future()
    began = time.monotonic()
    assert not await clock.wait_for(never, 0.1)
    assert time.monotonic() - began >= 0.1
    assert never.cancelled()
    assert not cancel_count(), "the task goes on as if nobody had cancelled it"


async def test_waits_that_end_together_are_all_ended() -> None:
    clock = SystemClock(SHARED)
    waits = [clock.wait_for(asyncio.Event().wait(), 0.05) for _ in range(100)]
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waits) == [False] * 100


@both
@pytest.mark.parametrize("error", [LookupError, TimeoutError])
async def test_an_error_is_raised(long_seconds_min: float, error: type[Exception]) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(error):
        await SystemClock(long_seconds_min).wait_for(fail(), 5)


@both
async def test_a_wait_may_last_for_ever(long_seconds_min: float) -> None:
    assert await SystemClock(long_seconds_min).wait_for(asyncio.sleep(0), float("inf"))


@both
async def test_who_is_cancelled_by_others_is_cancelled(long_seconds_min: float) -> None:
    task = asyncio.create_task(SystemClock(long_seconds_min).wait_for(asyncio.Event().wait(), 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@both
async def test_who_is_cancelled_by_others_when_the_time_is_over_is_cancelled(long_seconds_min: float) -> None:
    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # the time is over
            task.cancel()
            await asyncio.sleep(5)

    task = asyncio.create_task(SystemClock(long_seconds_min).wait_for(linger(), 0.01))
    with pytest.raises(asyncio.CancelledError):
        await task


@both
async def test_what_swallows_that_its_time_is_over_has_come(long_seconds_min: float) -> None:
    async def insist() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    assert await SystemClock(long_seconds_min).wait_for(insist(), 0.01)
    assert not cancel_count()


@both
async def test_a_wait_within_a_wait_ends_with_the_shorter_one(long_seconds_min: float) -> None:
    clock = SystemClock(long_seconds_min)
    inner: list[bool] = []

    async def nested(seconds: float) -> None:
        inner.append(await clock.wait_for(asyncio.Event().wait(), seconds))

    assert not await clock.wait_for(nested(10), 0.01), "the outer one is over first"
    assert await clock.wait_for(nested(0.01), 10)
    assert inner == [False]


def test_a_long_wait_is_at_most_a_twentieth_longer() -> None:
    assert TICK_SECONDS <= LONG_SECONDS_MIN / 20
