"""One test of one seed: servers come and go, clients and watchers go on, and every promise is checked.

It knows the server by its contract alone: whatever clients and watchers were ever told is held against what the server
says after each restart, and once each trouble is over. The seed gives what clients do, and what befalls servers, and
when; the operating system's timing is its own. The first thing that does not hold ends the test.
"""

import asyncio
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType

from fault.audit import audit, audit_listing, check_nothing_left
from fault.checks import check_exercised
from fault.disk import Disk
from fault.history import History
from fault.host import Host
from fault.laggard import FLOODS, STREAMS
from fault.link import Life, Link
from fault.nemesis import Conjurer
from fault.provider import ORDERS, Provider, running_provider
from fault.pulse import Pulse
from fault.schedule import SLOTS, SPRINTS, Round, draw_round, has_disk, has_provider
from fault.slot import run_lags, run_patron, run_slot, run_sprint
from fault.stage import Stage

# How long the sessions may take to be usable again after a restart, or after a trouble.
SETTLE_SECONDS = 60.0

# Every so many rounds everything is checked again that was ever seen.
FULL_AUDIT_ROUNDS = 25

PROGRESS_KILLS = 25

# How long the first slow readers are given, who are left alone.
LAG_SECONDS_MAX = 45.0

# What a seed has to have seen, unless it was run for less than so long: else it proves less than it says.
COUNTS_MIN = {"floods of slow readers": FLOODS, "streams nobody read": STREAMS, "slow streams read": 1}
COUNTED_SECONDS_MIN = 60.0

LOG_LINES_SHOWN = 20


class FaultTest:
    """One test on one store; it goes on until so many servers were killed, or so many seconds have passed.

    `on_down` is called between a server and the next one, with the file at rest. `plant` names a bug to plant.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        kills: int | None = None,
        seconds: float | None = None,
        plant: str = "",
        say: Callable[[str], object] = print,
        on_down: Callable[[int], object] | None = None,
    ) -> None:
        self._folder = folder
        self.history = History(folder / "history.jsonl")
        self.stage = Stage(seed, Link(self.history), Pulse(folder))
        self.round = 0
        self.slowest_settle_seconds = 0.0
        self._host = Host(folder / "turnwire.db", self.stage, plant, on_down)
        self._conjurer = Conjurer(self._host, self.stage)
        self._kills = kills
        self._seconds = seconds
        self._say = say
        self._began = self._era_began = time.monotonic()

    @property
    def kill_count(self) -> int:
        """How many servers were killed so far."""
        return self.stage.tally.counts["kills"]

    async def run(self) -> None:
        """Run it. Raises AssertionError, in an ExceptionGroup, for what does not hold."""
        self._began = time.monotonic()
        async with AsyncExitStack() as stack:
            stack.enter_context(self.history)
            if has_disk(self.stage.seed) and not self._skip("disk", Disk.is_possible()):
                self._host.disk = await stack.enter_async_context(Disk(self._folder / "disk", seed=self.stage.seed))
                self._host.store = self._host.disk.folder / "turnwire.db"
                stack.push(self._keep_store)
            if has_provider(self.stage.seed) and not self._skip("provider", Provider.is_possible()):
                self._host.provider = await stack.enter_async_context(running_provider(self._folder))
            stack.push_async_callback(self._host.aclose)
            async with asyncio.TaskGroup() as group:
                pulse = group.create_task(self.stage.pulse.run())
                sessions = [group.create_task(run_slot(self.stage, slot)) for slot in range(SLOTS)]
                sessions += [group.create_task(run_sprint(self.stage, number)) for number in range(SPRINTS)]
                sessions.append(group.create_task(run_lags(self.stage)))
                if self._host.provider:
                    sessions += [group.create_task(run_patron(self.stage, profile)) for profile in ORDERS]
                await self._conduct(sessions)
                pulse.cancel()
        if self._seconds is not None and self._seconds >= COUNTED_SECONDS_MIN:
            check_exercised(self.stage.tally.counts, COUNTS_MIN)

    def _keep_store(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the store from its disk before that is removed, if something did not hold."""
        if error and self._host.disk:
            with suppress(OSError):  # a disk that is broken now has nothing to be kept
                shutil.copytree(self._host.disk.folder, self._folder / "store")

    def _skip(self, what: str, why: str) -> bool:
        """Leave something out if there is a reason, and say so in the summary."""
        if why:
            self.stage.tally.counts[f"LEFT OUT: {what}, {why}"] += 1
        return bool(why)

    def _is_over(self) -> bool:
        is_late = self._seconds is not None and time.monotonic() - self._began >= self._seconds
        return is_late or (self._kills is not None and self.kill_count >= self._kills)

    async def _conduct(self, sessions: Sequence[asyncio.Task[None]]) -> None:
        said = 0
        while not self._is_over():
            self.round += 1
            self._host.round = self.round
            round_ = draw_round(self.stage.seed, self.round)
            for early in round_.early_ends:
                await self._host.end_early(early)
            life = await self._open(round_)
            if not round_.is_hasty:
                await self._check(life, is_full=self.round % FULL_AUDIT_ROUNDS == 0)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAG_SECONDS_MAX):
                        await self.stage.lag_over.wait()
            await self._strike(round_, life)
            await asyncio.sleep(round_.delay_seconds)
            await self._host.end(life, round_)
            if any(task.done() for task in sessions):
                msg = "a client ended before the test"
                raise RuntimeError(msg)
            if self.kill_count // PROGRESS_KILLS > said:
                said = self.kill_count // PROGRESS_KILLS
                figures = ", ".join(f"{name} {text}" for name, text in self.figures().items())
                self._say(f"{self.kill_count} kills: {figures}")
        await self._close(sessions)

    async def _open(self, round_: Round) -> Life:
        self._era_began = time.monotonic()
        return await self._host.open(round_)

    async def _strike(self, round_: Round, life: Life) -> None:
        """Have the nemeses strike; see that everything comes to rest after that, unless the end is to come before."""
        if not round_.strikes:
            return
        async with asyncio.TaskGroup() as group:
            striking = [group.create_task(self._conjurer.strike(strike, life)) for strike in round_.strikes]
            if not round_.is_merciful:
                last = round_.strikes[-1]
                await asyncio.wait(striking, timeout=last.delay_seconds + last.seconds / 2)
                for strike in striking:
                    strike.cancel()
        if round_.is_merciful:
            self._era_began = time.monotonic()
            await self.stage.link.begin_era()
            await self._check(life, is_full=False)
            self.stage.tally.counts["troubles checked"] += 1

    async def _close(self, sessions: Sequence[asyncio.Task[None]]) -> None:
        """Have every session come to rest on a last server; check all of it."""
        self.round += 1
        self._host.round = self.round
        self.stage.link.is_closing = True
        life = await self._open(draw_round(self.stage.seed, self.round))
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await asyncio.wait(sessions)
        await self._check(life, is_full=True)
        check_nothing_left(self.stage.retired)
        await self._host.end(life, None)

    async def _check(self, life: Life, *, is_full: bool) -> None:
        """Check every session while its clients go on; return once each of them is busy again."""
        stage, era = self.stage, self.stage.link.era
        retired = [each for each in stage.retired if is_full or each.watches]
        async with asyncio.TaskGroup() as group:
            group.create_task(audit_listing(stage, life))
            for ledger in (*stage.present, *retired):
                group.create_task(audit(stage, life, ledger, is_full=is_full))
        for ledger in retired:
            ledger.watches.clear()
        await stage.wait_until_settled(era, SETTLE_SECONDS)
        stage.tally.counts["checks of everything" if is_full else "checks of what is new"] += 1
        self.slowest_settle_seconds = max(self.slowest_settle_seconds, time.monotonic() - self._era_began)

    def figures(self) -> dict[str, str]:
        """Return what was measured."""
        seconds = time.monotonic() - self._began
        mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "seconds": f"{seconds:.0f} s",
            "inferences per second": f"{self.stage.tally.outcomes.total() / seconds:.1f}",
            "slowest start": f"{self._host.slowest_start_seconds:.2f} s",
            "slowest recovery": f"{self.slowest_settle_seconds:.2f} s",
            "slowest cancel": f"{self.stage.slowest_cancel_seconds:.2f} s",
            "seconds per kill": f"{seconds / max(self.kill_count, 1):.2f} s",
            "memory of the test": f"{mebibytes:.0f} MiB",
            "memory of a server": f"{self._host.peak_kib / 1024:.0f} MiB",
        }

    def log_tail(self) -> str:
        """Return the last lines of the last server's log."""
        return "".join(self._host.log[-LOG_LINES_SHOWN:])
