"""What time makes due is done, whatever else is due that cannot be done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from contract.store_harness import Harness
from support.session_logs import CODEC, DisturbedStore, open_disturbed, tell
from turnwire_server.domain.event import DebuggerPause, Event, LlmDelta, LlmStart
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import PauseAction
from turnwire_server.events.bus import InProcessBus
from turnwire_server.runtime.checkpoint import Checkpoint, Pause, encode_checkpoint
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.guard import Guard
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.step_changes import StepChanges
from turnwire_server.runtime.sweeper import RETIRED_MAX, Sweeper
from turnwire_server.stores.lease import Step
from turnwire_server.wire.event import encode_event

RETENTION = timedelta(hours=1)


class HarnessClock(SystemClock):
    """Has the time of a harness; whoever sleeps lets others have their turn."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self._harness = harness

    def now(self) -> datetime:
        return self._harness.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    opened = await Harness().open(open_disturbed)
    yield opened
    await opened.end()


async def _is_cut(harness: Harness, session_id: str) -> bool:
    return bool((await harness.store.read_base("local", session_id)).through_sequence)


async def _sweep_until_cut(harness: Harness, *session_ids: str) -> None:
    async def are_cut() -> bool:
        return all([await _is_cut(harness, session_id) for session_id in session_ids])

    await _sweep_until(harness, are_cut)


async def _sweep_until(harness: Harness, is_done: Callable[[], Awaitable[bool]]) -> None:
    clock = HarnessClock(harness)
    ports = Ports(
        harness.store, encode_event, clock, harness.mint, lambda _: None, lambda _, __: None, 1.0, StepChanges(clock)
    )
    sweeper = Sweeper(ports, InProcessBus(), Guard(clock), lambda: True, CODEC, RETENTION)
    running = asyncio.create_task(sweeper.run(1.0))
    try:
        async with asyncio.timeout(10):
            while not await is_done():  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def _long_turn(harness: Harness, session_id: str) -> None:
    claim = await harness.running(session_id)
    deltas = [LlmDelta("x", offset) for offset in range(100)]
    await harness.finish(claim, await tell(harness, claim, 0, LlmStart(), *deltas))


async def test_logs_of_which_too_little_can_go_keep_no_other_one(harness: Harness) -> None:
    names = [f"long{number}" for number in range(RETIRED_MAX)]
    for name in names:
        await harness.session(name)
        await _long_turn(harness, name)
    harness.now += 2 * RETENTION
    await _sweep_until_cut(harness, *names)
    for name in names:
        await harness.turn(name, "q")  # five events: no eighth of those that went before
        await harness.running(name)  # and not all that there are
    bases = [await harness.store.read_base("local", name) for name in names]
    harness.now += timedelta(seconds=1)
    for number in range(3):
        await harness.session(f"late{number}")
        await harness.turn(f"late{number}", "q")
    harness.now += 2 * RETENTION
    await _sweep_until_cut(harness, *(f"late{number}" for number in range(3)))
    assert [await harness.store.read_base("local", name) for name in names] == bases


async def test_deadlines_do_not_wait_for_logs_that_are_cut(harness: Harness) -> None:
    await harness.session("old")
    await harness.turn("old", "q")
    await harness.session("s")
    harness.now += 2 * RETENTION
    started: list[Inference] = []

    async def hang(_: int) -> None:
        started.append(await harness.start("s", timeout=timedelta(0)))  # overdue while the log is being read
        await asyncio.Event().wait()

    async def has_ended() -> bool:
        return bool(started) and (await harness.get(started[0])).state is InferenceState.FAILED

    assert isinstance(harness.store, DisturbedStore)
    harness.store.disturb = hang
    await _sweep_until(harness, has_ended)
    assert not await _is_cut(harness, "old")


async def _pause(harness: Harness, session_id: str, checkpoint: bytes) -> Inference:
    await harness.session(session_id)
    claim = await harness.running(session_id)
    told = Event(session_id, claim.inference.inference_id, harness.now, DebuggerPause("p", "after_inference"), "p")
    events, wake_time = (encode_event(told),), harness.now
    step = Step(1, events=events, checkpoint=checkpoint, then=InferenceState.PAUSED, wake_time=wake_time)
    return await harness.store.commit_step(claim.lease, 0, step)


async def test_one_that_cannot_be_answered_for_keeps_no_other_one_waiting(harness: Harness) -> None:
    newer = await _pause(harness, "newer", b'{"next": "what a newer version does"}')
    harness.now += timedelta(seconds=1)
    pause = Pause("p", "after_inference", "", harness.now, harness.now, PauseAction.CONTINUE)
    paused = await _pause(harness, "s", encode_checkpoint(Checkpoint(pause=pause)))

    async def goes_on() -> bool:
        return (await harness.get(paused)).state is InferenceState.QUEUED

    await _sweep_until(harness, goes_on)
    assert (await harness.get(newer)).state is InferenceState.PAUSED
