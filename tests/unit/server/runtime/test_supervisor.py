"""The supervisor over a store that fails: a failure of whatever kind ends neither it nor the inferences beside it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from turnwire_server.domain.errors import FeatureNotImplementedError, SessionNotFoundError, StoreUnavailableError
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import Inference, InferenceState, Overrides
from turnwire_server.domain.profile import Profile, Profiles
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import Block, User
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.events.bus import Hint, HintKind, InProcessBus
from turnwire_server.events.fanout import Fanout
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.inference_loop import Ports
from turnwire_server.runtime.supervisor import Supervisor
from turnwire_server.stores.base import Admission, Commit, StartCommand
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.wire.event import decode_frames, encode_event

PROFILES = Profiles({"scripted": Profile("scripted", "scripted")}, "scripted")
HANG = Overrides(engine_options='{"script": {"calls": [{"steps": [{"text": {"text": "hm"}}, {"hang": {}}]}]}}')


class FlakyStore(MemorySessionStore):
    """Fails the next calls of a method with the errors that are set for it."""

    def __init__(self, on_commit: Callable[[Sequence[Commit]], None]) -> None:
        super().__init__(on_commit=on_commit, now=SystemClock().now, mint=mint_id)
        self.errors: dict[str, list[Exception]] = {}

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in {"claim", "heartbeat", "expire", "finish", "append", "read_log", "reap", "get_turn"}:
            return self._failing(name, found)
        return found

    def _failing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            if errors := self.errors.get(name):
                raise errors.pop(0)
            return await method(*arguments, **named)

        return call


class WatchedEngine(ScriptedEngine):
    """Counts the calls that run now."""

    running = 0

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        self.running += 1
        try:
            return await super().run(call, emit)
        finally:
            self.running -= 1


class World:
    """A supervisor at work, and what a test needs of it."""

    def __init__(self, profiles: Profiles = PROFILES) -> None:
        self.bus = InProcessBus()
        self.fanout = Fanout()
        self.store = FlakyStore(self.fanout.publish)
        self.engine = WatchedEngine()
        ports = Ports(self.store, encode_event, SystemClock(), mint_id, lambda _task: None)
        engines = {"scripted": self.engine}
        self.supervisor = Supervisor("me", ports, self.bus, profiles, engines, decode_frames, 100)

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.run())
            yield
            await self.supervisor.drain(0)
        await self.engine.aclose()

    async def start(self, session_id: str, overrides: Overrides = Overrides(), profile: str = "scripted") -> Inference:  # noqa: B008 - frozen
        command = StartCommand(LOCAL, NewSession(session_id), (Block("", User("hello")),), overrides=overrides)
        started = await self.store.start(
            command, lambda _c, _s: Admission(profile, "scripted", PROFILES.get("").config)
        )
        self.bus.publish(Hint(HintKind.QUEUED))
        return started.inference

    async def wait(self, inference: Inference, *states: InferenceState) -> Inference:
        """Return the inference once it is in one of these states."""
        with self.fanout.watch(LOCAL, inference.session_id) as topic:
            async with asyncio.timeout(10):
                while True:
                    seen = topic.transitioned.count
                    found = await self.store.get_inference(LOCAL, inference.inference_id)
                    if found.state in states:
                        return found
                    await topic.transitioned.wait_beyond(seen)


FAILURES = [StoreUnavailableError(), RuntimeError("a defect"), SessionNotFoundError(session_id="gone")]


@pytest.mark.parametrize("method", ["claim", "heartbeat", "expire"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_a_failing_round_is_followed_by_the_next(method: str, error: Exception) -> None:
    world = World()
    async with world.at_work():
        world.store.errors[method] = [error] * 3
        inference = await world.start("s")
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).turn_index == 0


async def test_an_attempt_whose_end_cannot_be_written_is_ended_by_reconciling() -> None:
    world = World()
    async with world.at_work():
        beside = await world.start("beside", HANG)
        world.store.errors["finish"] = [RuntimeError("a defect")]
        inference = await world.start("s")
        ended = await world.wait(inference, InferenceState.FAILED)
        assert ended.error is not None
        assert ended.error.reason == "ATTEMPT_LOST"
        assert (await world.wait(beside, InferenceState.RUNNING)).state is InferenceState.RUNNING


async def test_a_recovery_that_fails_is_tried_again() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["finish"] = [RuntimeError("a defect"), RuntimeError("another")]
        world.store.errors["read_log"] = [SessionNotFoundError(session_id="s"), RuntimeError("unreadable")]
        inference = await world.start("s")
        ended = await world.wait(inference, InferenceState.FAILED)
        assert ended.error is not None
        assert ended.error.reason == "ATTEMPT_LOST"
        assert world.store.errors["finish"] == [], "both failures were met"


async def test_a_store_that_comes_back_loses_no_event() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["append"] = [StoreUnavailableError()] * 2
        world.store.errors["finish"] = [StoreUnavailableError()]
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        await world.store.request_cancel(LOCAL, inference.inference_id, "", is_session=False)
        await world.wait(inference, InferenceState.CANCELLED)
        page = await world.store.read_log(LOCAL, "s", 0, 1 << 20)
        events = [event for chunk in page.chunks for event in decode_frames(chunk.data)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_an_inference_whose_profile_is_gone_is_ended() -> None:
    world = World()
    async with world.at_work():
        world.store.errors["finish"] = [FeatureNotImplementedError(feature="a defect")]
        inference = await world.start("s", profile="taken away")
        ended = await world.wait(inference, InferenceState.FAILED)
        assert ended.error is not None
        assert ended.error.reason in {"ENGINE_FAILED", "ATTEMPT_LOST"}


async def test_a_drain_at_any_moment_ends_everything_once() -> None:
    for turns in range(12):
        world = World()
        async with world.at_work():
            inferences = [await world.start(f"s{number}", HANG) for number in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
        for inference in inferences:
            found = await world.store.get_inference(LOCAL, inference.inference_id)
            assert found.state in {InferenceState.QUEUED, InferenceState.FAILED}
        assert world.supervisor.running_count == 0


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
        world.store.errors["get_turn"] = [StoreUnavailableError()] * 3
        inference = await world.start("s")
        ended = await world.wait(inference, InferenceState.SUCCEEDED)
        assert ended.attempt == 0
        assert world.store.errors["get_turn"] == [], "every failure was met"


async def test_a_drain_does_not_bear_with_a_lost_store_for_long() -> None:
    world = World()
    async with asyncio.timeout(20), world.at_work():
        inference = await world.start("s", HANG)
        await world.wait(inference, InferenceState.RUNNING)
        world.store.errors["finish"] = [StoreUnavailableError() for _ in range(1000)]
    assert len(world.store.errors["finish"]) > 900, "a few tries, not those of a whole minute"


async def test_a_slow_refusal_is_not_taken_for_an_orphan() -> None:
    world = World()
    async with world.at_work():
        inference = await world.start("s", profile="taken away")
        ended = await world.wait(inference, InferenceState.FAILED)
        assert ended.error is not None
        assert ended.error.reason == "ENGINE_FAILED"
        assert "taken away" in ended.error.message
