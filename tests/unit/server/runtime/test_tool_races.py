"""What happens to a batch of tools at the wrong moment: a stop, a loss, an engine that does not keep quiet."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from support.agent_world import AgentWorld, Gadget, Gate, call, say, script
from support.supervised import FastClock
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.event import InferenceAttemptLost, InferenceFinished, ToolResult
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import InferenceState, WaitUntil
from turnwire_server.domain.profile import Profile, ToolPolicy
from turnwire_server.domain.session import NewSession, Session, StepMode
from turnwire_server.engines.base import Emit, EngineCall, EngineResult, PartDelta
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.output import BrokenOutput
from turnwire_server.stores.base import Commit, OnCommit, SessionStore
from turnwire_server.stores.lease import Effect, Lease
from turnwire_server.stores.memory import MemorySessionStore

SUCCEEDED, FAILED, CANCELLED = InferenceState.SUCCEEDED, InferenceState.FAILED, InferenceState.CANCELLED


class HookedStore(MemorySessionStore):
    """Calls a hook once, when intents were recorded or step mode was read, before the attempt hears of it."""

    hook: Callable[[], Awaitable[object]] | None = None
    step_mode_hook: Callable[[], Awaitable[object]] | None = None

    async def get_session(self, principal: str, session_id: str) -> Session:
        found = await super().get_session(principal, session_id)
        if found.step_mode and found.active and (hook := self.step_mode_hook):
            self.step_mode_hook = None
            await hook()
        return found

    async def record_effects(
        self, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes] = ()
    ) -> None:
        await super().record_effects(lease, position, effects, events)
        hook, self.hook = self.hook, None
        if hook:
            await hook()


class Shared:
    """The one store of all worlds that are opened with it."""

    def __init__(self) -> None:
        self._publish: list[OnCommit] = []
        self.store = HookedStore(self._tell, SystemClock().now, mint_id)

    def __call__(self, publish: OnCommit, _: Clock) -> SessionStore:
        self._publish.append(publish)
        return self.store

    def _tell(self, commits: Sequence[Commit]) -> None:
        for publish in self._publish:
            publish(commits)


async def test_no_tool_begins_once_a_cancel_was_requested() -> None:
    write, shared = Gadget("write"), Shared()
    world = AgentWorld(write, store=shared)
    async with world.at_work():
        shared.store.hook = lambda: world.runtime.cancel(LOCAL, "s", "", is_session=True)
        ended = await world.wait(await world.start(script([call("write")], [say("never")])))
        assert ended.state is CANCELLED
        assert (write.calls, await world.outcomes()) == ([], {})


async def test_step_mode_that_is_turned_off_while_a_pause_is_made_releases_it() -> None:
    shared = Shared()
    world = AgentWorld(store=shared)
    async with world.at_work():
        await world.runtime.create_session(LOCAL, NewSession("s"), None)
        await world.runtime.set_step_mode(LOCAL, "s", StepMode())
        shared.store.step_mode_hook = lambda: world.runtime.set_step_mode(LOCAL, "s", None)
        ended = await world.wait(await world.start(script([say("hi")])), WaitUntil.END)
        assert ended.state is SUCCEEDED
        assert (await world.names(ended))[-6:-4] == ["DebuggerPause", "DebuggerResumed"]
        assert shared.store.step_mode_hook is None


async def test_of_a_tool_whose_attempt_was_lost_it_is_told_that_nobody_knows_what_it_did() -> None:
    gate, shared = Gate(), Shared()
    world = AgentWorld(Gadget("write", gate), Gadget("look"), store=shared)
    async with world.at_work():
        started = await world.start(script([call("look"), call("write")], [say("never")]), attempts_max=9)
        await world.told(started, ToolResult)
        await gate.begun.wait()
        [running] = (await shared.store.heartbeat(world.supervisor.owner)).running
        await shared.store.revoke(world.supervisor.owner, [running.token])
        ended = await world.wait(started)
        assert (ended.state, ended.error and ended.error.reason) == (FAILED, "ATTEMPT_LOST")
        assert await world.outcomes() == {"call_1": "{}", "call_2": "unknown_outcome"}
        story = ["ToolResult", "ToolDone", "ToolResult", "ToolDone", "TurnClosed", "InferenceFinished"]
        assert (await world.names(ended))[-6:] == story


async def test_a_tool_that_was_not_begun_is_executed_after_a_hand_back() -> None:
    write, shared = Gadget("write"), Shared()
    world = AgentWorld(write, store=shared)

    async def hand_back() -> None:
        world.supervisor.hand_back()

    async with world.at_work():
        shared.store.hook = hand_back
        started = await world.start(script([call("write")], [say("done")]))
        await world.told(started, InferenceAttemptLost)
        assert write.calls == []
    async with AgentWorld(write, store=shared).at_work() as following:
        ended = await following.wait(started)
        assert (ended.state, ended.attempt) == (SUCCEEDED, 0)
        assert (write.calls, await following.outcomes()) == ([{}], {"call_1": "{}"})


class LateEngine(ScriptedEngine):
    """Says something more after its first call has returned, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()
        self.left: asyncio.Task[None] | None = None

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        result = await super().run(call, emit)
        self.left = self.left or asyncio.create_task(self._go_on(emit))
        return result

    async def _go_on(self, emit: Emit) -> None:
        await self.told.wait()
        with suppress(BrokenOutput):
            await emit(PartDelta(0, "more"))


async def test_an_engine_that_has_returned_is_not_waited_for_while_tools_run() -> None:
    engine, clock = LateEngine(), FastClock(10_000)

    async def wait(_: Mapping[str, Any]) -> object:
        engine.told.set()
        assert engine.left
        await engine.left
        begin = clock.monotonic()
        while clock.monotonic() - begin < 1000:  # noqa: ASYNC110 - an engine may not be silent so long
            await asyncio.sleep(0)
        return None

    profile = Profile("scripted", "scripted", tool_policy=ToolPolicy(timeout_seconds=1e6))
    async with AgentWorld(Gadget("wait", wait), profile=profile, engine=engine, clock=clock).at_work() as world:
        started = await world.start(script([call("wait")], [say("done")]))
        await world.told(started, InferenceFinished)
        assert await world.outcomes() == {"call_1": "null"}
        assert (await world.wait(started)).state is SUCCEEDED
