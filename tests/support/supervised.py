"""A supervisor over a store that fails as a test tells it to, with a clock that runs as fast as a test can wait."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from structlog.contextvars import get_contextvars

from turnwire_server.domain.event import Event
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import Inference, InferenceState, Overrides
from turnwire_server.domain.profile import Profile, Profiles
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import Block, Turn, TurnView, User
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.events.bus import Hint, HintKind, InProcessBus
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.step_changes import StepChanges
from turnwire_server.runtime.supervisor import Supervisor
from turnwire_server.stores.base import Commit
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.start import Admission, Seat, SessionState, StartCommand, Started
from turnwire_server.tools.executor import ToolExecutor
from turnwire_server.tools.registry import ToolRegistry
from turnwire_server.wire.event import decode_frames, encode_event, encode_frame

PROFILES = Profiles({"scripted": Profile("scripted", "scripted")}, "scripted")
HANG = Overrides(engine_options='{"script": {"calls": [{"steps": [{"text": {"text": "hm"}}, {"hang": {}}]}]}}')


CALLS = ("register", "start", "claim", "heartbeat", "sweep", "append", "finish", "hand_back", "revoke", "declare_dead")


class FlakyStore(MemorySessionStore):
    """Fails the next calls of a method with the errors that are set for it, before they are done or after.

    A method in `holding` does not answer at all, one in `hang_once` not once; one in `delays` is done at once, and
    answers so many seconds later.
    """

    def __init__(self, on_commit: Callable[[Sequence[Commit]], None]) -> None:
        super().__init__(on_commit=on_commit, now=SystemClock().now, mint=mint_id)
        self.errors: dict[str, list[Exception]] = {}
        self.errors_after: dict[str, list[Exception]] = {}
        self.holding: set[str] = set()
        self.hang_once: set[str] = set()
        self.delays: dict[str, float] = {}

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return self._failing(name, found) if name in {*CALLS, "read_log", "get_turn"} else found

    def _failing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            if name in self.holding or name in self.hang_once:
                self.hang_once.discard(name)
                await asyncio.Event().wait()
            if errors := self.errors.get(name):
                raise errors.pop(0)
            answer = await method(*arguments, **named)
            await asyncio.sleep(self.delays.get(name, 0))
            if errors := self.errors_after.get(name):
                raise errors.pop(0)
            return answer

        return call


class FastClock(SystemClock):
    """A monotonic clock that runs fast: what takes a minute is over in a moment. It counts how often it is read."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed
        self.read_count = 0

    def monotonic(self) -> float:
        self.read_count += 1
        return super().monotonic() * self._speed

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        return await super().wait_for(awaitable, seconds / self._speed)

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self._speed)


class WatchedEngine(ScriptedEngine):
    """Counts the calls that run now, and those there ever were. One that is cancelled takes `stop_seconds`.

    `bound` is what the log lines of the last call have.
    """

    running = 0
    count = 0
    stop_seconds = 0.0
    bound: Mapping[str, Any] = MappingProxyType({})

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        self.running += 1
        self.count += 1
        self.bound = get_contextvars()
        try:
            return await super().run(call, emit)
        except asyncio.CancelledError:
            await asyncio.sleep(self.stop_seconds)
            raise
        finally:
            self.running -= 1


class World:
    """A supervisor at work, and what a test needs of it."""

    def __init__(
        self, profiles: Profiles = PROFILES, speed: float = 1, silence: float = 600, running_max: int = 100
    ) -> None:
        self.bus = InProcessBus()
        self.fanout = Fanout()
        self.store = FlakyStore(self.fanout.publish)
        self.engine = WatchedEngine()
        self.clock = FastClock(speed)
        steps, refresh = StepChanges(self.clock), self.fanout.refresh
        ports = Ports(self.store, encode_event, self.clock, mint_id, lambda _task: None, refresh, silence, steps)
        assemblies = {
            profile.name: Assembly(
                profile,
                self.engine,
                (),
                ToolRegistry(()),
                ToolExecutor(profile.tool_policy, ports.clock, ports.abandon),
            )
            for profile in profiles.by_name.values()
            if profile.engine == "scripted"
        }
        self.supervisor = Supervisor(
            ports, self.bus, assemblies, FrameCodec(decode_frames, encode_frame), running_max, self._tell
        )
        self.fitness: list[bool] = []

    async def _tell(self, *, is_fit: bool) -> None:
        self.fitness.append(is_fit)

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.run())
            yield
            await self.supervisor.drain(0)
        await self.engine.aclose()

    async def start(
        self,
        session_id: str,
        overrides: Overrides = Overrides(),  # noqa: B008 - frozen
        profile: str = "scripted",
        attempts_max: int = 1,
        timeout: timedelta | None = None,
        *,
        is_seated: bool = False,
    ) -> Inference:
        """Start an inference; one that is `is_seated` with a seat of the supervisor, if that has one."""
        command = StartCommand(
            LOCAL,
            mint_id(),
            NewSession(session_id),
            (Block("", User("hello")),),
            overrides=overrides,
            attempts_max=attempts_max,
            timeout=timeout,
        )

        def decide(_command: StartCommand, _state: SessionState) -> Admission:
            return Admission(profile, "scripted", PROFILES.get("").config)

        async def send(seat: Seat | None) -> Started:
            return await self.store.start(command, decide, seat)

        started = await (self.supervisor.start(send) if is_seated else send(None))
        if not started.claim:
            self.bus.publish(Hint(HintKind.QUEUED))
        return started.inference

    async def events(self, session_id: str) -> list[Event]:
        """Return the whole log, which is gapless."""
        page = await self.store.read_log(LOCAL, session_id, 0, 1 << 20)
        events = [event for chunk in page.chunks for event in decode_frames(chunk.data)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return events

    async def has(self, session_id: str) -> bool:
        """Return whether there is a session, whoever knows of it."""
        page = await self.store.list_sessions(LOCAL, {}, 100, None)
        return any(session.session_id == session_id for session in page.items)

    async def turns(self, session_id: str) -> tuple[Turn, ...]:
        """Return the turns of a session, each with the blocks that it adds."""
        page = await self.store.list_turns(LOCAL, session_id, TurnView.DELTA, 100, None, newest_first=False)
        return page.items

    def cancel(self, inference: Inference) -> None:
        """Tell the supervisor of a cancel that was requested."""
        self.bus.publish(Hint(HintKind.CANCEL, inference.inference_id))

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
