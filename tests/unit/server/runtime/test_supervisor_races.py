"""Answers of the store that come late, not at all, or in another order than they were asked for."""

import asyncio
import json
from datetime import timedelta

import pytest

from support.supervised import HANG, World
from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.ids import LOCAL
from turnwire_server.domain.inference import InferenceState, Overrides
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.memory import MemorySessionStore

UNKNOWN = StoreUnavailableError("for a test")


async def test_what_is_lost_is_recovered_where_there_is_no_room_for_more() -> None:
    world = World(speed=5, running_max=1)
    await world.store.register("ghost")
    lost = await world.start("lost", HANG)
    assert await world.store.claim("ghost", ["a"])
    async with world.at_work():
        await world.wait(await world.start("busy", HANG), InferenceState.RUNNING)
        await world.store.request_cancel(LOCAL, lost.inference_id, "enough")
        assert await world.store.declare_dead("ghost", 1)
        await world.wait(lost, InferenceState.CANCELLED)
        assert world.engine.count == 1, "the busy one is the only one that ran"


async def test_a_claim_whose_answer_is_late_is_no_loss() -> None:
    world = World(speed=5)
    world.store.delays["claim"] = 0.5  # several beats
    async with world.at_work():
        inference = await world.start("s")
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).attempt == 0
        assert world.engine.count == 1


async def test_a_claim_that_is_not_answered_for_long_is_no_loss() -> None:
    world = World(speed=5)
    world.store.errors_after["claim"] = [UNKNOWN] * 8
    async with world.at_work():
        inference = await world.start("s")
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).attempt == 0
        assert world.engine.count == 1


async def test_a_late_heartbeat_ends_no_attempt_that_began_meanwhile() -> None:
    world = World(speed=5)
    world.store.delays["heartbeat"] = 0.15
    async with world.at_work():
        world.store.errors["finish"] = [RuntimeError("a defect")]
        for number in range(5):
            inference = await world.start(f"s{number}", attempts_max=2)
            ended = await world.wait(inference, InferenceState.SUCCEEDED)
            assert ended.attempt == (1 if number == 0 else 0)


async def test_a_claim_that_comes_while_the_engine_before_still_stops_waits_for_it() -> None:
    world = World(speed=5)
    world.engine.stop_seconds = 0.4
    async with world.at_work():
        inference = await world.start("s", HANG, attempts_max=2)
        await world.wait(inference, InferenceState.RUNNING)
        [running] = (await world.store.heartbeat(world.supervisor.owner)).running
        await world.store.revoke(world.supervisor.owner, [running.token])
        async with asyncio.timeout(10):
            while world.engine.count < 2:  # noqa: ASYNC110 - turns of the loop, which it runs in as well
                await asyncio.sleep(0.01)
        assert world.engine.running == 1, "never two at a time"
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        assert (await world.wait(inference, InferenceState.CANCELLED)).attempt == 1


async def test_a_drain_hands_back_what_it_does_not_know_yet_that_it_has() -> None:
    world = World()
    async with world.at_work():
        world.store.errors_after["claim"] = [UNKNOWN] * 2
        inference = await world.start("s", HANG)
        async with asyncio.timeout(10):
            while len(world.store.errors_after["claim"]) == 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
    found = await world.store.get_inference(LOCAL, inference.inference_id)
    assert (found.state, found.attempt) == (InferenceState.QUEUED, 0)


async def test_a_store_that_hangs_is_noticed_and_outlived() -> None:
    world = World(speed=50)
    async with world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        world.store.holding = {"heartbeat", "sweep", "claim"}
        async with asyncio.timeout(10):
            while world.fitness != [False]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            world.store.holding = set()
            while world.fitness != [False, True]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        await world.wait(inference, InferenceState.CANCELLED)


async def test_an_append_that_hangs_is_sent_again() -> None:
    world = World(speed=50)
    async with world.at_work():
        world.store.holding = {"append"}
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        async with asyncio.timeout(10):
            while not world.engine.running:  # noqa: ASYNC110
                await asyncio.sleep(0)
        world.store.holding = set()
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        await world.wait(inference, InferenceState.CANCELLED)
        assert len(await world.events("s")) >= 6


async def test_an_engine_that_says_nothing_for_too_long_is_stopped() -> None:
    world = World(speed=5, silence=2)
    async with world.at_work():
        ended = await world.wait(await world.start("s", HANG), InferenceState.FAILED)
        assert ended.error is not None
        assert (ended.error.reason, ended.error.metadata["idle_seconds_max"]) == ("ENGINE_STALLED", "2")
        assert world.engine.running == 0


async def test_after_an_outage_owners_write_before_anything_is_taken_from_them() -> None:
    world = World(speed=20)
    async with world.at_work():
        world.store.errors["heartbeat"] = [UNKNOWN] * 4
        await world.store.register("other")
        inference = await world.start("s", timeout=timedelta(microseconds=1))
        async with asyncio.timeout(10):
            while world.store.errors["heartbeat"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert (await world.wait(inference, InferenceState.FAILED)).state is InferenceState.FAILED
        swept = SystemClock().monotonic()
        world.store.errors["sweep"] = [UNKNOWN]
        async with asyncio.timeout(10):
            while world.store.errors["sweep"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert (SystemClock().monotonic() - swept) * 20 > 5, "not before the owners had their time"


async def test_a_cancel_during_a_drain_keeps_the_partial_output() -> None:
    world = World()
    world.engine.stop_seconds = 0.2
    async with world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        async with asyncio.timeout(10):
            while len(await world.events("s")) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0)
        world.supervisor.hand_back()
        await world.store.request_cancel(LOCAL, inference.inference_id, "enough")
        world.cancel(inference)
    ended = await world.store.get_inference(LOCAL, inference.inference_id)
    assert ended.state is InferenceState.CANCELLED
    assert [len(turn.blocks) for turn in await world.turns("s")] == [2], "the input, and what was said of the answer"


async def test_the_watchdog_cancels_the_attempt_that_is_stuck_and_not_the_one_behind_it() -> None:
    world = World(speed=100)
    async with world.at_work():
        inference = await world.start("s", HANG, attempts_max=3)
        await world.wait(inference, InferenceState.RUNNING)
        world.engine.stop_seconds = 0.05
        world.store.holding = {"append", "finish"}  # its end is never written, and its patience is long
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        world.cancel(inference)
        [running] = (await world.store.heartbeat(world.supervisor.owner)).running
        await world.store.revoke(world.supervisor.owner, [running.token])
        world.store.holding = set()
        await world.wait(inference, InferenceState.CANCELLED)
        async with asyncio.timeout(10):
            while world.supervisor.running_count:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert world.engine.running == 0


async def test_one_beat_that_hangs_makes_nobody_dead() -> None:
    world = World(speed=5)
    await world.store.register("other")
    async with world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        before = (await MemorySessionStore.heartbeat(world.store, "other")).beats
        world.store.hang_once.add("heartbeat")
        async with asyncio.timeout(10):
            while (await MemorySessionStore.heartbeat(world.store, "other")).beats == before or world.store.hang_once:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert world.fitness == []


async def test_an_engine_that_waits_for_the_store_is_not_looked_at_again_and_again() -> None:
    world = World(silence=0.02)
    world.store.errors["append"] = [UNKNOWN] * 10_000
    said = {"deltaLength": 1, "calls": [{"steps": [{"text": {"text": "x" * 5000}}]}]}  # more than a log has room for
    async with world.at_work():
        inference = await world.start("s", Overrides(engine_options=json.dumps({"script": said})))
        await world.wait(inference, InferenceState.RUNNING)
        for _ in range(10_000):  # by then the log has no more room, and the engine has been silent for too long
            await asyncio.sleep(0)
        begin, read_count = world.clock.monotonic(), world.clock.read_count
        for _ in range(1000):
            await asyncio.sleep(0)
        looks_max = 20 + 20 * (world.clock.monotonic() - begin) / 0.02
        assert world.clock.read_count - read_count < looks_max
        assert world.engine.running == 1
        world.store.errors["append"].clear()


async def test_a_wall_clock_that_jumps_ahead_makes_no_attempt_look_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.at_work():
        inference = await world.start("s", HANG, timeout=timedelta(hours=1))
        await world.wait(inference, InferenceState.RUNNING)
        async with asyncio.timeout(10):
            while not world.engine.running:  # noqa: ASYNC110
                await asyncio.sleep(0)
        now = world.clock.now
        monkeypatch.setattr(world.clock, "now", lambda: now() + timedelta(hours=11))
        [attempt] = world.supervisor._attempts.values()
        assert attempt.seconds_overdue() < 1
        await world.store.request_cancel(LOCAL, inference.inference_id, "")
        world.cancel(inference)
