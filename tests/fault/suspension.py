"""What may happen at each moment of an inference: it is cancelled, something of it crashes, its process dies.

    PYTHONPATH=tests python -m fault.suspension

A play is one inference on a runtime in this process. It is played again and again, and something is done to it at its
k-th suspension point, for k = 0, 1, 2, ... until there is none left: whenever a task that works for the inference
waits for anything, that is a point. Nothing is left to chance and nothing sleeps, so k alone reproduces a failure.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

import structlog

from support.agent_world import DONE, SESSION, AgentWorld, Gadget, call, say, script
from turnwire.v1.event_pb2 import Event as WireEvent
from turnwire_conformance.promises import check_log
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import InferenceNotWaitingError, PauseNotFoundError
from turnwire_server.domain.event import Event, InferenceFinished
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import Inference, InferenceState, WaitUntil
from turnwire_server.domain.profile import Profile
from turnwire_server.domain.session import NewSession, PauseAction, StepMode
from turnwire_server.domain.tool import ToolApproval, ToolCall, ToolOutcome, ToolUse
from turnwire_server.domain.turn import TurnState
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.events.bus import Hint, HintKind
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.base import Commit
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.tools.base import ServerTool
from turnwire_server.wire.event import event_to_proto

# No play has as many points; one that passes it would never end.
POINTS_MAX = 2000


class Injected(Exception):  # noqa: N818 - what a test does to the code, not an error
    """Something crashes because a test says so."""


class Died(asyncio.CancelledError):
    """The process is gone: nothing of it does anything more."""


@dataclass
class Points:
    """Counts points, and does something at one of them."""

    at: int
    act: Callable[[], None]
    count: int = 0
    is_stopped: bool = False

    def pass_one(self) -> None:
        """A point is passed."""
        if self.is_stopped:
            return
        self.count += 1
        if self.count - 1 == self.at:
            self.act()

    def stop(self) -> None:
        """What comes now has no points: the inference of the play is over."""
        self.is_stopped = True

    @property
    def is_over(self) -> bool:
        """Whether there were no more points than that: nothing was done."""
        return self.count <= self.at


_works_for: ContextVar["Points | None"] = ContextVar("works_for", default=None)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that passes a point whenever it waits for something."""

    def __init__(self, inner: Coroutine[Any, Any, Any], points: Points) -> None:
        self._inner = inner
        self._points = points

    def send(self, value: Any) -> Any:
        waits_for = self._inner.send(value)
        self._points.pass_one()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._inner.throw(*error)
        self._points.pass_one()
        return waits_for

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def count_tasks(points: Points) -> Callable[..., "asyncio.Task[Any]"]:
    """Return a task factory that counts the points of all tasks that work for an inference."""

    def make(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> "asyncio.Task[Any]":
        context = context or copy_context()
        if getattr(coro, "__qualname__", "").endswith("Supervisor._attend"):
            context.run(_works_for.set, points)
        if context.run(_works_for.get) is points:
            coro = _Counted(coro, points)
        return asyncio.Task(coro, loop=loop, context=context)

    return make


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Do what waits for nothing, here and now: a call over the memory store."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    msg = "it waits for something"
    raise AssertionError(msg)


@dataclass(frozen=True)
class Play:
    """One inference to be played, and what its client does."""

    name: str
    options: str
    tools: Sequence[str] = ()
    steps: bool = False


# The texts are short, and said with a pace that takes no time, so that there is a point at each of their pieces.
_PACE = '"pace":"0.001s","deltaLength":3,'


def _paced(options: str) -> str:
    return options.replace('{"script": {', '{"script": {' + _PACE, 1)


PLAYS = (
    Play("text", _paced(script([say("one two three")]))),
    Play("thinking", _paced(script([{"thinking": {"text": "hmm, well"}}, say("so it is")]))),
    Play("server tools", _paced(script([say("a"), call("look")], [call("write")], [say("b")])), ("look", "write")),
    Play("parallel tools", _paced(script([call("look"), call("write"), call("look")], [say("b")])), ("look", "write")),
    Play("approval", _paced(script([call("erase"), call("look")], [say("b")])), ("look", "erase")),
    Play("step mode", _paced(script([call("look")], [say("b")])), ("look",), steps=True),
)


class PointedEngine(ScriptedEngine):
    """A scripted engine with a point of its own at each piece."""

    def __init__(self, points: Points | None) -> None:
        super().__init__(lambda _: asyncio.sleep(0))
        self._points = points

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        """See Engine."""

        async def pointed(chunk: EngineChunk) -> None:
            self._pass()
            await emit(chunk)

        self._pass()
        result = await super().run(call, pointed)
        self._pass()
        return result

    def _pass(self) -> None:
        if self._points:
            self._points.pass_one()


class PointedMiddleware:
    """A middleware that changes nothing, with a point at each place where it could."""

    name = "pointed"
    tools: Sequence[ServerTool] = ()

    def __init__(self, points: Points | None) -> None:
        self._points = points

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """See Middleware."""

        async def pointed(chunk: EngineChunk) -> None:
            self._pass()
            await emit(chunk)

        self._pass()
        scope.set_data("test.calls@v1", str(call.iteration))
        await asyncio.sleep(0)
        result = await proceed(call, pointed)
        self._pass()
        return result

    async def aclose(self) -> None:
        """See Middleware."""

    def _pass(self) -> None:
        if self._points:
            self._points.pass_one()


class MortalStore:
    """The way of one process to the store that all share, which takes time. When it is dead, nothing goes that way."""

    def __init__(self, store: MemorySessionStore) -> None:
        self._store = store
        self.is_dead = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            await self._pass()  # it is sent
            answer = await found(*arguments, **named)
            await self._pass()  # it has happened, and is not heard of yet
            return answer

        return call

    async def _pass(self) -> None:
        await asyncio.sleep(0)
        if self.is_dead:
            raise Died


@dataclass
class Stage:
    """What the worlds of one performance share: the store, and the tools, which count who executed them."""

    play: Play
    worlds: list[AgentWorld] = field(default_factory=list[AgentWorld])
    executions: dict[str, int] = field(default_factory=dict[str, int])
    store: MemorySessionStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemorySessionStore(self._publish, SystemClock().now, mint_id)

    def _publish(self, commits: Sequence[Commit]) -> None:
        for world in self.worlds:
            world.fanout.publish(commits)

    def open_store(self, _publish: Callable[[Sequence[Commit]], None], _clock: Clock) -> Any:
        """Return a process's way to the store."""
        return MortalStore(self.store)

    def world(
        self, engine: Points | None = None, tool: Points | None = None, middleware: Points | None = None
    ) -> AgentWorld:
        """Return a new process, with points in its engine, its tools or its middleware."""
        tools = [
            Gadget("look", self._act(tool), is_idempotent=True),
            Gadget("write", self._act(tool)),
            Gadget("erase", self._act(tool), approval_required=True),
        ]
        offered = [gadget for gadget in tools if gadget.name in self.play.tools]
        for gadget in offered:
            gadget.act = self._counting(gadget.name, gadget.act)
        around = [PointedMiddleware(middleware)]
        profile = Profile("scripted", "scripted")
        world = AgentWorld(
            *offered, profile=profile, middleware=around, engine=PointedEngine(engine), store=self.open_store
        )
        self.worlds.append(world)
        return world

    def _counting(self, name: str, act: Callable[[Mapping[str, Any]], Awaitable[object]]) -> Any:
        async def counted(args: Mapping[str, Any]) -> object:
            self.executions[name] = self.executions.get(name, 0) + 1
            return await act(args)

        return counted

    def _act(self, points: Points | None) -> Callable[[Mapping[str, Any]], Awaitable[object]]:
        async def act(_: Mapping[str, Any]) -> object:
            for _step in range(3):
                if points:
                    points.pass_one()
                await asyncio.sleep(0)
            return "done"

        return act


async def begin(world: AgentWorld, play: Play, *, attempts_max: int = 1) -> Inference:
    """Start the inference of a play."""
    await world.runtime.create_session(LOCAL, NewSession(SESSION), None)
    if play.steps:
        await world.runtime.set_step_mode(LOCAL, SESSION, StepMode())
    return await world.start(play.options, attempts_max=attempts_max)


async def serve(world: AgentWorld, inference: Inference, pass_one: Callable[[], None]) -> Inference:
    """Do what the client has to do, up to the end. Whenever it is waited for, that is a point, too."""
    for _ in range(POINTS_MAX):
        inference = await world.wait(inference)
        if inference.state in DONE:
            return inference
        pass_one()
        try:
            if inference.state is InferenceState.PAUSED:
                for _paused, pause in (await world.runtime.list_pauses(LOCAL, SESSION, 1, None)).items:
                    await world.runtime.release_pause(LOCAL, pause.id, PauseAction.STEP)
            else:
                await _approve(world, inference)
        except (InferenceNotWaitingError, PauseNotFoundError):
            continue  # it was cancelled just now
    msg = "it does not end"
    raise AssertionError(msg)


async def _approve(world: AgentWorld, inference: Inference) -> None:
    turn = await world.turn(inference.turn_index)
    answered = {block.kind.tool_call for block in turn.blocks if isinstance(block.kind, ToolUse)}
    for block in turn.blocks:
        if isinstance(block.kind, ToolCall) and block.kind.id not in answered:
            await world.submit(inference, ToolOutcome(block.kind.id, ToolApproval()))


async def check(world: AgentWorld, stage: Stage, ended: Inference) -> None:
    """Check all that has to hold, whatever happened."""
    await world.runtime.set_step_mode(LOCAL, SESSION, None)
    following = await world.wait(await world.start(script([say("and on")])), WaitUntil.END)
    assert following.state is InferenceState.SUCCEEDED, following
    events = await world.events()
    wire = [_as_seen(event) for event in events]
    check_log(wire)
    finals = [event for event in events if isinstance(event.payload, InferenceFinished)]
    assert [event.inference_id for event in finals] == [ended.inference_id, following.inference_id]
    if ended.turn_index is not None:
        turn = await world.turn(ended.turn_index)
        assert turn.state is TurnState.CLOSED
        assert turn.block_count == len(turn.blocks)
        await world.outcomes(ended.turn_index)  # no call is answered twice
    session = await world.runtime.store.get_session(LOCAL, SESSION)
    assert (session.active, session.queued_count) == (None, 0)
    for name in ("write", "erase"):  # not idempotent: whatever happens, never twice
        assert stage.executions.get(name, 0) <= 1, f"{name} was executed {stage.executions[name]} times"
    assert not any(world.abandoned for world in stage.worlds)


def _as_seen(event: Event) -> WireEvent:
    return event_to_proto(event)


async def cancelled_at(play: Play, point: int) -> bool:
    """Play it, and cancel it at a point; return whether there was such a point."""
    stage = Stage(play)
    world = stage.world()
    started: list[Inference] = []

    def cancel() -> None:
        at_once(stage.store.request_cancel(LOCAL, started[0].inference_id, "point"))
        world.bus.publish(Hint(HintKind.CANCEL, started[0].inference_id))

    points = Points(point, cancel)
    asyncio.get_running_loop().set_task_factory(count_tasks(points))
    async with world.at_work():
        started.append(await begin(world, play))
        points.pass_one()
        ended = await serve(world, started[0], points.pass_one)
        points.stop()
        allowed = {InferenceState.SUCCEEDED} if points.is_over else {InferenceState.SUCCEEDED, InferenceState.CANCELLED}
        assert ended.state in allowed, ended
        await check(world, stage, ended)
    return not points.is_over


async def crashed_at(play: Play, where: str, point: int) -> bool:
    """Play it, and have its engine, a tool or a middleware crash at a point; return whether there was such a point."""
    stage = Stage(play)

    def crash() -> None:
        raise Injected(where)

    points = Points(point, crash)
    world = stage.world(**{where: points})
    async with world.at_work():
        ended = await serve(world, await begin(world, play), lambda: None)
        points.stop()
        if points.is_over or where == "tool":  # the failure of a tool is data
            assert ended.state is InferenceState.SUCCEEDED, ended
        else:
            reason = {"engine": "ENGINE_FAILED", "middleware": "MIDDLEWARE_FAILED"}[where]
            assert ended.state is InferenceState.FAILED, ended
            assert ended.error, ended
            assert ended.error.reason == reason, ended
        await check(world, stage, ended)
    return not points.is_over


async def killed_at(play: Play, point: int) -> bool:
    """Play it, and kill its process at a point; another one recovers. Return whether there was such a point."""
    stage = Stage(play)
    first, second = stage.world(), stage.world()
    mortal: Any = first.store
    died = asyncio.Event()

    def die() -> None:
        mortal.is_dead = True
        died.set()

    points = Points(point, die)
    asyncio.get_running_loop().set_task_factory(count_tasks(points))
    started: list[Inference] = []

    async def live() -> Inference:
        async with first.at_work():
            started.append(await begin(first, play, attempts_max=2))
            points.pass_one()
            return await serve(first, started[0], points.pass_one)

    life = asyncio.ensure_future(live())
    death = asyncio.ensure_future(died.wait())
    await asyncio.wait({life, death}, return_when=asyncio.FIRST_COMPLETED)
    points.stop()
    await _bury(life, death)
    asyncio.get_running_loop().set_task_factory(None)
    async with second.at_work():
        await stage.store.register(second.supervisor.owner)
        beats = (await stage.store.heartbeat(second.supervisor.owner)).beats
        for owner, beat in beats.items():
            assert await stage.store.declare_dead(owner, beat)
        ended = await serve(second, started[0], lambda: None)
        if points.is_over:
            assert ended.state is InferenceState.SUCCEEDED, ended
        elif ended.state is not InferenceState.SUCCEEDED:
            assert ended.error, ended
            assert ended.error.reason == "ATTEMPT_LOST", ended
            # Only what must not be executed twice, and may have been executed, ends it.
            assert {"write", "erase"} & {*play.tools}, ended
        await check(second, stage, ended)
    return not points.is_over


async def _bury(life: "asyncio.Future[Inference]", death: "asyncio.Future[Any]") -> None:
    """End what is left of a process: it has no way to the store any more."""
    for task in (life, death):
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


Happening = Callable[[Play, int], Awaitable[bool]]

HAPPENINGS: Mapping[str, Happening] = {
    "cancel": cancelled_at,
    "engine crash": lambda play, point: crashed_at(play, "engine", point),
    "tool crash": lambda play, point: crashed_at(play, "tool", point),
    "middleware crash": lambda play, point: crashed_at(play, "middleware", point),
    "kill": killed_at,
}


def count_points(play: Play, happening: Happening) -> int:
    """Have it happen at every point of a play, each in an event loop of its own; return how many there are."""
    usual = structlog.get_config()["wrapper_class"]
    # Thousands of crashes are told of otherwise, each with its traceback.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        for point in range(POINTS_MAX):
            with asyncio.Runner() as runner:
                if not runner.run(_once(play, happening, point)):
                    return point
    finally:
        structlog.configure(wrapper_class=usual)
    msg = f"{play.name} has no end"
    raise AssertionError(msg)


async def _once(play: Play, happening: Happening, point: int) -> bool:
    try:
        happened = await happening(play, point)
        asyncio.get_running_loop().set_task_factory(None)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"
    except BaseException as error:
        error.add_note(f"play {play.name!r}, point {point}")
        raise
    return happened


def main(arguments: Sequence[str] | None = None) -> int:
    """Have everything happen to every play, and print how many points there were."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--play", choices=[play.name for play in PLAYS])
    parser.add_argument("--happening", choices=HAPPENINGS)
    options = parser.parse_args(arguments)
    for play in PLAYS:
        for name, happening in HAPPENINGS.items():
            if options.play in (None, play.name) and options.happening in (None, name):
                print(f"{play.name:<16} {name:<18} N = {count_points(play, happening)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
