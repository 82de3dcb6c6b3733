"""Inferences whose watcher went away: cancelled once, in time, and only if nobody came back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack

import pytest

from contract.store_harness import Harness, open_memory
from turnwire_server.domain.errors import InferenceNotFoundError, StoreUnavailableError
from turnwire_server.domain.inference import Inference
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.disconnect import CANCELS_MAX, REASON, RETRY_SECONDS, Disconnects

ME = "local"


class ManualClock(SystemClock):
    """Time passes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        end, task = self.seconds + seconds, asyncio.ensure_future(awaitable)
        try:
            while not task.done() and self.seconds < end:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)
            is_done = task.done()
        finally:
            task.cancel()
            await asyncio.wait({task})
        if is_done:
            task.result()
        return is_done


class World:
    """Disconnects at work, and the cancels that it asked for. `errors` are what the next of them raise."""

    def __init__(self, inference: Inference) -> None:
        self.clock = ManualClock()
        self.disconnects = Disconnects(self._cancel, self.clock, lost_max=1000)
        self.cancelled: list[str] = []
        self.errors: list[Exception] = []
        self.is_hanging = False
        self._inference = inference

    async def _cancel(self, principal: str, inference_id: str, reason: str) -> Inference:
        assert (principal, reason) == (ME, REASON)
        if self.is_hanging:
            await asyncio.Event().wait()
        if self.errors:
            raise self.errors.pop(0)
        self.cancelled.append(inference_id)
        return self._inference

    async def after(self, seconds: float) -> list[str]:
        """Let time pass; return what is cancelled by then."""
        self.clock.seconds += seconds
        for _ in range(50):  # turns of the loop
            await asyncio.sleep(0)
        return self.cancelled

    def break_stream(self, inference_id: str = "i", seconds: float | None = 10) -> None:
        """Open a stream that breaks."""
        with self.disconnects.attend(ME, inference_id, seconds):
            pass

    def open_stream(self, stack: ExitStack, seconds: float | None = None, principal: str = ME) -> None:
        """Open a stream that is open until the stack ends."""
        stack.enter_context(self.disconnects.attend(principal, "i", seconds))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    harness = await Harness().open(open_memory)
    await harness.session()
    made = World(await harness.start())
    running = asyncio.create_task(made.disconnects.run())
    yield made
    made.disconnects.close()
    await running
    await harness.end()


async def test_an_inference_is_cancelled_once_when_its_time_is_over(world: World) -> None:
    world.break_stream()
    assert await world.after(9.9) == []
    assert await world.after(0.1) == ["i"]
    assert await world.after(100) == ["i"]
    assert world.disconnects.lost_count == 0


async def test_no_time_is_at_once(world: World) -> None:
    world.break_stream(seconds=0)
    assert await world.after(0) == ["i"]


async def test_a_stream_that_did_not_ask_for_it_cancels_nothing(world: World) -> None:
    world.break_stream(seconds=None)
    assert await world.after(1000) == []


async def test_a_stream_that_had_its_end_cancels_nothing(world: World) -> None:
    with world.disconnects.attend(ME, "i", 0) as attendance:
        attendance.has_ended = True
    assert await world.after(1000) == []


@pytest.mark.parametrize("seconds", [None, 10])
async def test_a_stream_that_comes_back_in_time_keeps_it(world: World, seconds: float | None) -> None:
    world.break_stream()
    await world.after(9)
    with ExitStack() as stack:
        world.open_stream(stack, seconds)
        assert await world.after(1000) == []
    assert await world.after(9) == []
    assert await world.after(1) == ([] if seconds is None else ["i"])


async def test_a_stream_of_another_principal_does_not_count(world: World) -> None:
    world.break_stream()
    with ExitStack() as stack:
        world.open_stream(stack, principal="other")
        assert await world.after(10) == ["i"]


async def test_one_that_was_there_before_counts_while_it_is_there(world: World) -> None:
    with ExitStack() as stack:
        world.open_stream(stack)
        world.break_stream()
        assert await world.after(10) == []
    assert await world.after(1000) == []
    with ExitStack() as stack:
        world.open_stream(stack)
        world.break_stream()
        await world.after(5)
    assert await world.after(4) == []
    assert await world.after(1) == ["i"]


async def test_of_several_that_broke_the_one_that_waits_the_shortest_counts(world: World) -> None:
    with ExitStack() as stack:
        world.open_stream(stack, 60)
        world.open_stream(stack, 10)
        world.open_stream(stack, 30)
    assert await world.after(9) == []
    assert await world.after(1) == ["i"]
    assert await world.after(100) == ["i"]


async def test_a_shorter_time_is_not_kept_waiting_by_a_longer_one(world: World) -> None:
    world.break_stream("slow", 1000)
    await world.after(1)
    world.break_stream("quick", 5)
    assert await world.after(5) == ["quick"]
    assert await world.after(994) == ["quick", "slow"]


async def test_a_cancel_that_the_store_does_not_take_is_tried_again(world: World) -> None:
    world.errors = [StoreUnavailableError("for a test")] * 2
    world.break_stream()
    assert await world.after(10) == []
    assert await world.after(RETRY_SECONDS) == []
    assert await world.after(RETRY_SECONDS) == ["i"]


async def test_a_cancel_that_hangs_is_given_up_and_who_comes_back_ends_the_trying(world: World) -> None:
    world.is_hanging = True
    world.break_stream(seconds=0)
    await world.after(0)
    with ExitStack() as stack:
        world.open_stream(stack)
        await world.after(60)
        world.is_hanging = False
        assert await world.after(60) == []
    assert await world.after(60) == []


@pytest.mark.parametrize("error", [InferenceNotFoundError(inference_id="i"), RuntimeError("a defect")])
async def test_a_cancel_that_fails_keeps_no_other(world: World, error: Exception) -> None:
    world.errors = [error]
    world.break_stream("gone")
    world.break_stream("next")
    assert await world.after(10) == ["next"]
    assert await world.after(1000) == ["next"]


async def test_many_at_once_are_all_cancelled(world: World) -> None:
    names = [f"i{n}" for n in range(5 * CANCELS_MAX)]
    for name in names:
        world.break_stream(name)
    assert sorted(await world.after(10)) == sorted(names)


async def test_beyond_the_bound_the_inference_goes_on(world: World) -> None:
    for n in range(1001):
        world.break_stream(f"i{n}", 1000)
    assert world.disconnects.lost_count == 1000
    world.break_stream("i5", 0)  # this one is lost already
    assert await world.after(0) == ["i5"]


async def test_nothing_is_cancelled_by_a_process_that_goes_away(world: World) -> None:
    world.break_stream()
    world.disconnects.close()
    world.break_stream("later", 0)
    assert await world.after(1000) == []
