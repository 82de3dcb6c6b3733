"""The supervisor over a store that fails: a failure of whatever kind ends neither it nor the inferences beside it."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from support.supervised import HANG, World
from turnwire_server.domain.errors import FeatureNotImplementedError, SessionNotFoundError, StoreUnavailableError
from turnwire_server.domain.event import InferenceAttemptLost, InferenceFinished, InferenceStarted
from turnwire_server.domain.ids import LOCAL
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.turn import TurnView
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.lease import DeclaredDead

UNKNOWN = StoreUnavailableError("for a test")
FAILURES = [UNKNOWN, RuntimeError("a defect"), SessionNotFoundError(session_id="gone")]


def _reason(inference: Inference) -> str:
    assert inference.error is not None
    return inference.error.reason


@pytest.mark.parametrize("method", ["claim", "heartbeat", "sweep"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_failing_round_is_followed_by_the_next(method: str, error: Exception) -> None:
    world = World(speed=5)
    async with world.at_work():
        world.store.errors[method] = [error] * 3
        inference = await world.start("s")
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).turn_index == 0


@pytest.mark.parametrize("method", ["claim", "heartbeat", "sweep", "append", "finish"])
async def test_a_call_that_happened_and_raised_is_resolved(method: str) -> None:
    world = World(speed=5)
    world.store.errors_after[method] = [UNKNOWN] * 2
    async with world.at_work():
        hanging = await world.start("hanging", HANG, attempts_max=2)
        inference = await world.start("s", attempts_max=2)
        ended = await world.wait(inference, InferenceState.SUCCEEDED)
        assert ended.attempt == 0
        await world.store.request_cancel(LOCAL, hanging.inference_id, "")
        await world.wait(hanging, InferenceState.CANCELLED)
        while world.store.errors_after[method]:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)  # until both were met
        for session_id in ("s", "hanging"):
            payloads = [event.payload for event in await world.events(session_id)]
            assert sum(isinstance(payload, InferenceStarted) for payload in payloads) == 1
            assert sum(isinstance(payload, InferenceFinished) for payload in payloads) == 1


async def _owner_of(world: World) -> tuple[str, int]:
    """Return the owner under which the supervisor runs, and its beats. Something has to run for that."""
    inference = await world.start("probe", HANG)
    await world.wait(inference, InferenceState.RUNNING)
    await world.store.register("probe")
    while True:
        beats = (await world.store.heartbeat("probe")).beats
        if beats:
            return next(iter(beats.items()))
        await asyncio.sleep(0)


async def test_an_attempt_whose_end_cannot_be_written_is_ended_by_reconciling() -> None:
    world = World()
    async with world.at_work():
        beside = await world.start("beside", HANG)
        world.store.errors["finish"] = [RuntimeError("a defect")]
        inference = await world.start("s")
        assert _reason(await world.wait(inference, InferenceState.FAILED)) == "ATTEMPT_LOST"
        assert (await world.wait(beside, InferenceState.RUNNING)).state is InferenceState.RUNNING


async def test_an_attempt_that_crashed_is_followed_by_another_if_one_is_allowed() -> None:
    world = World(speed=5)
    async with world.at_work():
        world.store.errors["finish"] = [RuntimeError("a defect")]
        world.store.errors_after["revoke"] = [UNKNOWN]
        world.store.errors_after["hand_back"] = [UNKNOWN]
        inference = await world.start("s", attempts_max=2)
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).attempt == 1
        assert world.store.errors_after == {"revoke": [], "hand_back": []}
        events = await world.events("s")
        [lost] = [event for event in events if isinstance(event.payload, InferenceAttemptLost)]
        assert lost.payload == InferenceAttemptLost(0, 3, handed_back=False)
        assert [event.attempt for event in events if isinstance(event.payload, InferenceStarted)] == [0, 1]
        turn = (await world.store.get_turn(LOCAL, "s", 0, TurnView.FULL, 0, 10)).turn
        assert len(turn.blocks) == 2, "the input, and the answer of the second attempt"


async def test_a_recovery_that_fails_is_tried_again() -> None:
    world = World(speed=5)
    async with world.at_work():
        world.store.errors["finish"] = [RuntimeError("a defect"), RuntimeError("another")]
        world.store.errors["read_log"] = [UNKNOWN, RuntimeError("unreadable")]
        inference = await world.start("s")
        assert _reason(await world.wait(inference, InferenceState.FAILED)) == "ATTEMPT_LOST"
        assert world.store.errors["finish"] == [], "both failures were met"


async def test_a_store_that_comes_back_loses_no_event() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["append"] = [UNKNOWN] * 2
        world.store.errors["finish"] = [UNKNOWN]
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        await world.wait(inference, InferenceState.CANCELLED)
        assert len(await world.events("s")) > 4


async def test_an_inference_whose_profile_is_gone_is_ended() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["finish"] = [FeatureNotImplementedError(feature="a defect")]
        inference = await world.start("s", profile="taken away")
        assert _reason(await world.wait(inference, InferenceState.FAILED)) in {"ENGINE_FAILED", "ATTEMPT_LOST"}


async def test_a_drain_at_any_moment_hands_everything_back() -> None:
    for turns in range(12):
        world = World()
        async with world.at_work():
            inferences = [await world.start(f"s{number}", HANG) for number in range(3)]
            world.store.errors_after["hand_back"] = [UNKNOWN]
            for _ in range(turns):
                await asyncio.sleep(0)
        for number, inference in enumerate(inferences):
            found = await world.store.get_inference(LOCAL, inference.inference_id)
            assert (found.state, found.attempt) == (InferenceState.QUEUED, 0)
            lost = [e.payload for e in await world.events(f"s{number}") if isinstance(e.payload, InferenceAttemptLost)]
            assert lost == ([InferenceAttemptLost(0, 3, handed_back=True)] if found.start_time else [])
        assert world.supervisor.running_count == 0


async def test_what_is_handed_back_is_continued_by_the_next() -> None:
    world = World()
    async with world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
    successor = World()
    successor.store, successor.fanout = world.store, world.fanout
    successor.supervisor._ports = replace(successor.supervisor._ports, store=world.store)
    async with successor.at_work():
        await successor.wait(inference, InferenceState.RUNNING)
        await successor.store.request_cancel(LOCAL, inference.inference_id, "")
        assert (await successor.wait(inference, InferenceState.CANCELLED)).attempt == 0


async def test_no_engine_outlives_an_attempt_whose_log_fails() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["append"] = [RuntimeError("a defect")]
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.FAILED)
        assert world.engine.running == 0


async def test_a_read_that_fails_before_the_engine_is_tried_again() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["get_turn"] = [UNKNOWN] * 3
        inference = await world.start("s")
        ended = await world.wait(inference, InferenceState.SUCCEEDED)
        assert ended.attempt == 0
        assert world.store.errors["get_turn"] == [], "every failure was met"


async def test_a_drain_does_not_bear_with_a_lost_store_for_long() -> None:
    world = World()
    async with asyncio.timeout(20), world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        world.store.errors["hand_back"] = [UNKNOWN for _ in range(1000)]
    assert len(world.store.errors["hand_back"]) > 900, "a few tries, not those of a whole minute"


async def test_a_slow_refusal_is_not_taken_for_an_orphan() -> None:
    world = World()
    async with world.at_work():
        inference = await world.start("s", profile="taken away")
        ended = await world.wait(inference, InferenceState.FAILED)
        assert _reason(ended) == "ENGINE_FAILED"
        assert ended.error
        assert "taken away" in ended.error.message


async def test_a_silent_owner_is_declared_dead_and_what_it_ran_is_recovered() -> None:
    world = World(speed=20)
    await world.store.register("ghost")
    inferences = [await world.start("once"), await world.start("twice", attempts_max=2)]
    assert len(await world.store.claim("ghost", ["a", "b"])) == 2
    world.store.errors_after["declare_dead"] = [UNKNOWN]
    async with world.at_work():
        once = await world.wait(inferences[0], InferenceState.FAILED)
        twice = await world.wait(inferences[1], InferenceState.SUCCEEDED)
        assert (_reason(once), once.attempt, twice.attempt) == ("ATTEMPT_LOST", 0, 1)
        with pytest.raises(DeclaredDead):
            await world.store.heartbeat("ghost")


async def test_an_owner_that_beats_is_left_alone() -> None:
    world = World(speed=20)
    await world.store.register("other")
    inference = await world.start("theirs")
    await world.store.claim("other", ["a"])
    async with world.at_work():
        for round_number in range(30):
            await world.store.heartbeat("other")
            mine = await world.start(f"s{round_number}")
            await world.wait(mine, InferenceState.SUCCEEDED)
            await world.supervisor._ports.clock.sleep(0.5)
        found = await world.store.get_inference(LOCAL, inference.inference_id)
        assert found.state is InferenceState.RUNNING


async def test_a_supervisor_that_was_declared_dead_begins_again() -> None:
    world = World(speed=5)
    async with world.at_work():
        lost = await world.start("lost", HANG)
        await world.wait(lost, InferenceState.RUNNING)
        owner, beat = await _owner_of(world)
        world.store.errors_after["register"] = [UNKNOWN]
        while not await world.store.declare_dead(owner, beat):
            beat = (await world.store.heartbeat("probe")).beats[owner]
        assert _reason(await world.wait(lost, InferenceState.FAILED)) == "ATTEMPT_LOST"
        await world.wait(await world.start("next"), InferenceState.SUCCEEDED)
        assert world.engine.running == 0, "no engine outlives the lease"


async def test_the_watchdog_ends_what_its_owner_forgot() -> None:
    """The end is never written: the store takes the lease away, and the inference is recovered."""
    world = World(speed=50)
    async with world.at_work():
        world.store.holding = {"finish"}
        inference = await world.start("s", HANG, timeout=timedelta(milliseconds=50))
        await world.wait(inference, InferenceState.RUNNING)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.wait(inference, InferenceState.FAILED), 0.5)
        world.store.holding = set()
        # The attempt still hangs in the call that was never answered, until the watchdog cancels it.
        await world.store.sweep(SystemClock().now() + timedelta(minutes=1))
        assert _reason(await world.wait(inference, InferenceState.FAILED)) == "DEADLINE_EXCEEDED"
