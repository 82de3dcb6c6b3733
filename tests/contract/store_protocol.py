"""The protocol of a store under fire: random steps of clients and owners, with faults, on the store and on the model.

    PYTHONPATH=tests python -m contract.store_protocol --store sqlite --examples 20000 --seed 1

An example is a list of steps. After them the faults stop, and whoever lives brings everything to its end.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from contract import store_client_rules as clients
from contract import store_owner_rules as owners
from contract.store_driver import Driver, Owner, Sent, Step
from contract.store_faults import Fault
from contract.store_look import check_promises, look
from contract.store_model_state import ENDED, PAUSED, WAITING_FOR_TOOLS
from contract.store_world import Call, World, brief
from turnwire_server.domain.ids import Mint
from turnwire_server.stores.base import OnCommit, SessionStore
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.sqlite import SqliteSessionStore

# What may happen, and how often in comparison. `rest` is nothing: what a failing example does not need becomes that.
_RULES = {
    "rest": (None, 1),
    "create": (clients.create, 2),
    "fork": (owners.fork_or_finish, 6),
    "start": (clients.start, 7),
    "request_cancel": (clients.request_cancel, 2),
    "amend": (owners.amend_or_wait, 5),
    "update": (clients.update, 1),
    "set_step_mode": (clients.set_step_mode, 1),
    "delete": (clients.delete, 1),
    "compact": (clients.compact, 2),
    "sweep": (clients.sweep, 2),
    "resend": (clients.resend, 4),
    "land": (clients.land, 2),
    "restart": (owners.restart, 1),
    "die": (owners.die, 1),
    "claim": (owners.claim, 8),
    "beat": (owners.beat, 8),
    "declare_dead": (owners.declare_dead, 6),
    "give_up": (owners.give_up, 5),
    "append": (owners.append, 12),
    "record": (owners.record, 6),
    "commit": (owners.commit, 6),
    "wait": (owners.wait, 3),
    "hand_back": (owners.hand_back, 3),
    "finish": (owners.finish, 5),
    "intrude": (owners.intrude, 8),
    "look": (None, 1),
}

# What is not made at the same time as anything else: it reads, or is more than one call.
_ALONE = frozenset({"heartbeat", "declare_dead", "sweep"})
_JOINED_MAX = 4

# What must not come late: a sweep of the past, and the registration of an owner that was declared dead since.
_NEVER_LATE = frozenset({"sweep", "register"})

# How often a call is not answered, in comparison.
_FAULTS = {Fault.NONE: 18, Fault.UNHEARD: 4, Fault.LOST: 2, Fault.LATE: 1}

_STEPS_MIN, _STEPS_MAX = 30, 50
_NAMES = [name for name, (_, weight) in _RULES.items() for _ in range(weight)]
_PLACES = [(who, which) for which in range(5) for who in (0, 1, 0, 1, 2)]
_FATES = [
    (fault, is_joined) for fault, times in _FAULTS.items() for is_joined in (False,) * 3 * times + (True,) * times
]


def _step(name: str, place: tuple[int, int], how: int, fate: tuple[Fault, bool]) -> Step:
    return Step(name, *place, how, *fate)


_STEPS = st.lists(
    st.builds(_step, st.sampled_from(_NAMES), st.sampled_from(_PLACES), st.integers(0, 5999), st.sampled_from(_FATES)),
    min_size=_STEPS_MIN,
    max_size=_STEPS_MAX,
)

# In memory if the machine has a place for that: a power cut is not among the faults.
_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None

# How often everyone gets the turn to bring an example to its end.
_ROUNDS_MAX = 12

# As many as there may be inferences that are claimed at a time, and more.
_TOKENS = 8


async def perform(driver: Driver, steps: Sequence[Step]) -> None:
    """Do the steps of an example."""
    joined = 0
    for step in steps:
        joined = joined + 1 if step.is_joined and joined < _JOINED_MAX else 0
        if not joined:
            await driver.flush()
        rule, _ = _RULES[step.rule]
        sent = rule(driver, step) if rule else None
        if step.rule == "look":
            await driver.flush()
            await look(driver.world)
        if sent and sent.call.name in _ALONE:
            await driver.flush()
        if sent:
            is_never_late = sent.call.name in _NEVER_LATE and step.fault is Fault.LATE
            driver.send(sent, Fault.LOST if is_never_late else step.fault)
        if sent and sent.call.name in _ALONE:
            await driver.flush()
    await driver.flush()


async def bring_to_end(driver: Driver) -> None:
    """Let everyone who lives do what there is to do, without faults, until nothing is left or nothing happens."""
    while driver.clients:
        await _send(driver, clients.resend(driver, Step("resend")))
    while driver.late:
        await _send(driver, clients.land(driver, Step("land")))
    for _ in range(_ROUNDS_MAX):
        for number, owner in enumerate(driver.owners):
            await _work(driver, owner, Step("", number))
        unfinished = [each for each in driver.world.model.inferences() if each.noun.state not in ENDED]
        if not unfinished:
            return
        for inference in unfinished:
            if inference.noun.state in (WAITING_FOR_TOOLS, PAUSED):
                where = inference.session.principal, inference.noun.inference_id
                await _send(driver, clients.amend_one(driver, *where, Step("amend")))


async def _work(driver: Driver, owner: Owner, step: Step) -> None:
    """Let an owner answer for itself, watch the others, and run what there is."""
    if not owner.is_up:
        await _send(driver, owners.restart(driver, step))
    await _send(driver, owner.pending)
    await _send(driver, owners.beat(driver, step))
    if owner.strangers:
        await _send(driver, owners.beat(driver, step))
    for other in owner.beats.keys() - {each.id for each in driver.owners if each.is_up}:
        await _send(driver, driver.declare_dead(owner, other))
    await _send(driver, driver.claim(owner, _TOKENS))
    for run in list(owner.runs):
        await _send(driver, run.pending)
        if run in owner.runs:
            await _send(driver, owners.finish_run(driver, run, step))


async def _send(driver: Driver, sent: Sent | None) -> None:
    if sent:
        driver.send(sent, Fault.NONE)
        await driver.flush()


# Opens a store that publishes, tells the time and mints as it is told, and closes it.
Open = Callable[[OnCommit, Callable[[], datetime], Mint], AbstractAsyncContextManager[SessionStore]]


@asynccontextmanager
async def open_memory(on_commit: OnCommit, now: Callable[[], datetime], mint: Mint) -> AsyncGenerator[SessionStore]:
    """Open a MemorySessionStore."""
    store = MemorySessionStore(on_commit, now, mint)
    yield store
    await store.close()


@asynccontextmanager
async def open_sqlite(on_commit: OnCommit, now: Callable[[], datetime], mint: Mint) -> AsyncGenerator[SessionStore]:
    """Open a SqliteSessionStore on a new file."""
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        store = await SqliteSessionStore.open(Path(folder) / "turnwire.db", on_commit, now, mint)
        try:
            yield store
        finally:
            await store.close()


# The stores that have to keep the protocol.
STORES: dict[str, Open] = {"memory": open_memory, "sqlite": open_sqlite}

# What a negative control makes of a store.
Spoil = Callable[[SessionStore], SessionStore]


@dataclass
class Search:
    """A search for an example that fails. `examples` counts those that were tried up to the first failure."""

    store: str
    spoil: Spoil | None = None
    reconciles: bool = True
    counts: Counter[str] = field(default_factory=Counter[str])
    examples: int = 0
    steps: Sequence[Step] = ()
    trace: Sequence[tuple[Call, object]] = ()
    error: Exception | None = None

    def run(self, examples: int, seed_number: int, *, shrinks: bool = True) -> bool:
        """Try examples; return whether one failed. What is kept of it is the smallest one that was found."""
        phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)

        @seed(seed_number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            verbosity=Verbosity.quiet,
        )
        @given(_STEPS)
        def try_examples(steps: list[Step]) -> None:
            if self.error is None:
                self.examples += 1
            runner.run(self._try(steps))

        with asyncio.Runner() as runner:
            try:
                try_examples()
            except Exception:
                if self.error is None:
                    raise
        return self.error is not None

    async def _try(self, steps: Sequence[Step]) -> None:
        world = World()
        async with STORES[self.store](world.publish, lambda: world.now, world.mint_inside) as store:
            world.store = self.spoil(store) if self.spoil else store
            driver = Driver(world, self.counts, reconciles=self.reconciles)
            try:
                await driver.begin()
                await perform(driver, steps)
                await look(world)
                await bring_to_end(driver)
                await check_promises(world)
            except Exception as error:
                self.steps, self.trace, self.error = steps, world.trace, error
                raise

    def report(self) -> str:
        """Return what is known of the example that failed."""
        steps = [brief(step) for step in self.steps if step.rule != "rest"]
        calls = [f"{call} -> {brief(answer)}" for call, answer in self.trace]
        error = f"{type(self.error).__name__}: {self.error}"
        return "\n".join([f"{self.store}: example {self.examples} fails", *steps, "", *calls, "", error])


def main() -> int:
    """Search for long, and tell how it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    search, begin = Search(arguments.store), time.monotonic()
    for number, first in enumerate(range(0, arguments.examples, arguments.batch)):
        is_failed = search.run(min(arguments.batch, arguments.examples - first), arguments.seed + number)
        seconds = time.monotonic() - begin
        print(f"{search.examples} examples in {seconds:.0f} s, seed {arguments.seed + number}", flush=True)
        if is_failed:
            print(search.report())
            print(f"again: --store {arguments.store} --examples {arguments.batch} --seed {arguments.seed + number}")
            return 1
    for name, times in sorted(search.counts.items()):
        print(f"{times:9} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
