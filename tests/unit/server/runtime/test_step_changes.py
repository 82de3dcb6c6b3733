"""Step mode as an attempt sees it: not read where it is known to be off, and never missed where it is turned on."""

import asyncio
from collections.abc import Callable, Sequence

from support.agent_world import AgentWorld, say, script
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import Session, StepMode
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.step_changes import KNOWN_SECONDS, StepChanges
from turnwire_server.stores.base import Commit
from turnwire_server.stores.memory import MemorySessionStore

PAUSED, RUNNING, SUCCEEDED = InferenceState.PAUSED, InferenceState.RUNNING, InferenceState.SUCCEEDED


class CountingStore(MemorySessionStore):
    """Counts how often a session is read."""

    read_count = 0

    async def get_session(self, principal: str, session_id: str) -> Session:
        self.read_count += 1
        return await super().get_session(principal, session_id)


class HeldClock(SystemClock):
    """Its time is what a test says."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


def _counting(publish: Callable[[Sequence[Commit]], None], clock: Clock) -> CountingStore:
    return CountingStore(publish, clock.now, mint_id)


def _paused(seconds: float) -> str:
    return script([{"pause": f"{seconds}s"}, say("hi")])


async def _warm(world: AgentWorld) -> None:
    """Return once an inference that is started takes a seat."""
    assert (await world.wait(await world.start(script([say("first")])))).state is SUCCEEDED
    async with asyncio.timeout(10):
        while world.supervisor.running_count:  # noqa: ASYNC110 - turns of the loop, which it runs in as well
            await asyncio.sleep(0)


async def test_a_session_where_it_was_off_is_not_read() -> None:
    async with AgentWorld(store=_counting).at_work() as world:
        assert isinstance(world.store, CountingStore)
        await _warm(world)
        before = world.store.read_count
        inference = await world.start(script([say("hi")]))
        assert inference.state is RUNNING
        assert (await world.wait(inference)).state is SUCCEEDED
        assert world.store.read_count == before


async def test_one_that_is_turned_on_while_it_runs_counts_at_once() -> None:
    async with AgentWorld().at_work() as world:
        await _warm(world)
        inference = await world.start(_paused(0.1))
        assert inference.state is RUNNING
        await world.runtime.set_step_mode(LOCAL, "s", StepMode())
        assert (await world.wait(inference)).state is PAUSED


async def test_one_that_another_process_turned_on_counts_soon() -> None:
    async with AgentWorld().at_work() as world:
        other = AgentWorld(store=lambda _publish, _clock: world.store)  # whose hints do not come here
        await _warm(world)
        inference = await world.start(_paused(KNOWN_SECONDS + 0.2))
        await other.runtime.set_step_mode(LOCAL, "s", StepMode())
        assert (await world.wait(inference)).state is PAUSED


def test_what_was_seen_is_old_after_a_change_or_a_while() -> None:
    clock = HeldClock()
    changes = StepChanges(clock)
    moment = changes.now()
    clock.time = KNOWN_SECONDS
    assert not changes.is_old(moment)
    clock.time += 0.001
    assert changes.is_old(moment)
    moment = changes.now()
    assert not changes.is_old(moment)
    changes.hear()
    assert changes.is_old(moment)
