"""A runtime at work in this process, on the memory store: an agent with tools and middleware, to be looked into."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.event import Event, Payload
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import Inference, InferenceState, Overrides, WaitUntil
from turnwire_server.domain.profile import Profile, Profiles
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.tool import Tool, ToolOutcome, ToolPlacement, ToolUse
from turnwire_server.domain.turn import Block, Turn, TurnView, User
from turnwire_server.engines.base import Engine
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.events.bus import InProcessBus
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.middleware.base import Middleware
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.runtime.step_changes import StepChanges
from turnwire_server.runtime.supervisor import Supervisor
from turnwire_server.stores.base import Commit, SessionStore
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.start import StartCommand
from turnwire_server.tools.base import Invocation, ServerTool, ToolDefinition
from turnwire_server.tools.executor import ToolExecutor
from turnwire_server.tools.registry import ToolRegistry
from turnwire_server.wire.event import decode_frames, encode_event, encode_frame

SESSION = "s"
DONE = (InferenceState.SUCCEEDED, InferenceState.FAILED, InferenceState.CANCELLED)
WAITS = (*DONE, InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED)

Act = Callable[[Mapping[str, Any]], Awaitable[object]]


async def _echo(args: Mapping[str, Any]) -> object:
    return args


@dataclass
class Gadget:
    """A tool of the server that does what a test says; `calls` are the arguments of the calls that it began."""

    name: str
    act: Act = _echo
    is_idempotent: bool = False
    approval_required: bool = False
    calls: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    @property
    def definition(self) -> ToolDefinition:
        """See ServerTool."""
        tool = Tool(self.name, self.name, '{"type":"object"}', ToolPlacement.SERVER, self.approval_required)
        return ToolDefinition(tool, self.is_idempotent)

    async def run(self, invocation: Invocation) -> str:
        """See ServerTool."""
        args = json.loads(invocation.call.args or "{}")
        self.calls.append(args)
        return json.dumps(await self.act(args))


class Gate:
    """A tool that waits until it is let through."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, args: Mapping[str, Any]) -> object:
        self.begun.set()
        await self.opened.wait()
        return args


def script(*calls: Sequence[Mapping[str, Any]]) -> str:
    """Return engine options: the steps of one engine call after the other."""
    return json.dumps({"script": {"calls": [{"steps": list(steps)} for steps in calls]}})


def call(name: str, **args: Any) -> dict[str, Any]:
    """Return a step of a script that calls a tool."""
    return {"toolCall": {"name": name, "args": json.dumps(args)}}


def say(text: str) -> dict[str, Any]:
    """Return a step of a script that says something."""
    return {"text": {"text": text}}


class AgentWorld:
    """A runtime at work. Another one on the same store is another process."""

    def __init__(
        self,
        *tools: ServerTool,
        profile: Profile | None = None,
        middleware: Sequence[Middleware] = (),
        engine: Engine | None = None,
        clock: Clock | None = None,
        store: Callable[[Callable[[Sequence[Commit]], None], Clock], SessionStore] | None = None,
        queue_depth_max: int = 100,
        retention: timedelta | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.bus = InProcessBus()
        self.fanout = Fanout()
        self.store: SessionStore = (
            store(self.fanout.publish, self.clock)
            if store
            else MemorySessionStore(self.fanout.publish, self.clock.now, mint_id)
        )
        self.engine = engine or ScriptedEngine()
        self.profile = profile or Profile("scripted", "scripted")
        self.abandoned: set[asyncio.Task[Any]] = set()
        steps = StepChanges(self.clock)
        ports = Ports(
            self.store, encode_event, self.clock, mint_id, self.abandoned.add, self.fanout.refresh, 600, steps
        )
        codec = FrameCodec(decode_frames, encode_frame)
        executor = ToolExecutor(self.profile.tool_policy, self.clock, self.abandoned.add)
        assembly = Assembly(self.profile, self.engine, tuple(middleware), ToolRegistry((), tools), executor)
        self.supervisor = Supervisor(ports, self.bus, {self.profile.name: assembly}, codec, 100, retention=retention)
        self.runtime = Runtime(
            self.store,
            self.bus,
            self.fanout,
            self.supervisor,
            Profiles({self.profile.name: self.profile}, self.profile.name),
            self.clock,
            mint_id,
            encode_event,
            codec,
            queue_depth_max=queue_depth_max,
            heartbeat_seconds=15,
            watchers_max=100,
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator["AgentWorld"]:
        """Run the supervisor; at the end what runs is handed back."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.supervisor.run())
            yield self
            await self.supervisor.drain(0)

    async def start(
        self,
        options: str = "",
        text: str = "hello",
        overrides: Overrides = Overrides(),  # noqa: B008 - frozen
        **fields: Any,
    ) -> Inference:
        """Start an inference in the one session, which is created if it is not there."""
        page = await self.store.list_sessions(LOCAL, {}, 1, None)
        if not page.items:
            await self.runtime.create_session(LOCAL, NewSession(SESSION), None)
        blocks = (Block("", User(text)),) if text else ()
        overrides = replace(overrides, engine_options=options or overrides.engine_options)
        command = StartCommand(LOCAL, mint_id(), SESSION, input=blocks, overrides=overrides, **fields)
        return (await self.runtime.start(command)).inference

    async def wait(self, inference: Inference, until: WaitUntil = WaitUntil.CLIENT_ACTION) -> Inference:
        """Return an inference once it has ended, or waits for its client."""
        reached = await self.runtime.wait(LOCAL, inference.inference_id, 20, until)
        assert reached.state in (DONE if until is WaitUntil.END else WAITS), reached
        return reached

    async def submit(self, inference: Inference, *outcomes: ToolOutcome) -> tuple[Inference, tuple[str, ...]]:
        """Answer tool calls."""
        return await self.runtime.submit(LOCAL, inference.inference_id, outcomes, None)

    async def events(self, inference: Inference | None = None) -> list[Event]:
        """Return the log of the session, or what one inference has of it."""
        page = await self.store.read_log(LOCAL, SESSION, 0, 1 << 26)
        events = [event for chunk in page.chunks for event in decode_frames(chunk.data)]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        return [event for event in events if inference is None or event.inference_id == inference.inference_id]

    async def told(self, inference: Inference, kind: type[Payload], count: int = 1) -> list[Event]:
        """Return the events of a kind once an inference has told so many of them."""
        with self.fanout.watch(LOCAL, SESSION) as topic:
            async with asyncio.timeout(10):
                while True:
                    seen = topic.advanced.count
                    found = [event for event in await self.events(inference) if isinstance(event.payload, kind)]
                    if len(found) >= count:
                        return found
                    await topic.advanced.wait_beyond(seen)

    async def names(self, inference: Inference) -> list[str]:
        """Return what an inference's events are called, in order, without deltas and the events of engine calls."""
        skipped = {"LlmDelta", "ToolDelta", "EngineCallStarted", "EngineCallFinished"}
        names = [type(event.payload).__name__ for event in await self.events(inference)]
        return [name for name in names if name not in skipped]

    async def turn(self, index: int | None = None) -> Turn:
        """Return a turn with all its blocks."""
        return (await self.store.get_turn(LOCAL, SESSION, index, TurnView.FULL, 0, 1000)).turn

    async def outcomes(self, index: int | None = None) -> dict[str, str | Any]:
        """Return what came of the tool calls of a turn: a result, or the code of an error."""
        kinds = [block.kind for block in (await self.turn(index)).blocks]
        uses = [kind for kind in kinds if isinstance(kind, ToolUse)]
        assert len({use.tool_call for use in uses}) == len(uses)
        return {use.tool_call: use.outcome if isinstance(use.outcome, str) else use.outcome.code for use in uses}
