"""Kills a busy server at random moments, and proves that every promise holds afterwards.

`python -m fault.kill --kills 500 --seed 1`, or `make fault`. It knows the server by its contract alone: sessions with
their clients and watchers go on from one server to the next, on one SQLite file, and whatever they were ever told is
held against what the server says after each restart. The seed gives what clients do and when servers are killed; the
operating system's timing is its own. The first thing that does not hold ends the test.
"""

import argparse
import asyncio
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from fault.audit import audit, audit_listing, check_nothing_left
from fault.checks import check_exit
from fault.link import Life, RefusedError
from fault.schedule import SLOTS, EarlyKill, Ending, Round, draw_round
from fault.slot import run_slot
from fault.stage import Stage
from fault.summary import summarize
from support.rpc import Stubs, connect, start_request
from support.server import ServerProcess, server_on
from turnwire.v1 import session_service_pb2

# How long the sessions may take to be usable again after a restart.
SETTLE_SECONDS = 45.0

# Every so many rounds everything is checked again that was ever seen.
FULL_AUDIT_ROUNDS = 25

PROGRESS_KILLS = 25

# How often a server that starts is looked at.
LOOK_SECONDS = 0.001

LOG_LINES_SHOWN = 20

DESCRIPTION = "Kills a busy server at random moments, and proves that every promise holds afterwards."


class KillTest:
    """One test on one file. `on_down` is called between a server and the next one, with the file at rest."""

    def __init__(
        self,
        path: Path,
        seed: int,
        kills: int,
        *,
        say: Callable[[str], object] = print,
        on_down: Callable[[int], object] | None = None,
    ) -> None:
        self.stage = Stage(seed)
        self.round = 0
        self.slowest_start_seconds = 0.0
        self.slowest_settle_seconds = 0.0
        self._path = path
        self._kills = kills
        self._say = say
        self._on_down = on_down
        self._server: ServerProcess | None = None
        self._channels = AsyncExitStack()
        self._began = self._launched = time.monotonic()

    @property
    def kill_count(self) -> int:
        """How many servers were killed so far."""
        return self.stage.tally.counts["kills"]

    async def run(self) -> None:
        """Run it. Raises AssertionError, in an ExceptionGroup, for what does not hold."""
        try:
            async with asyncio.TaskGroup() as group:
                slots = [group.create_task(run_slot(self.stage, slot)) for slot in range(SLOTS)]
                await self._conduct(slots)
        finally:
            await self._channels.aclose()
            if self._server:
                self._server.signal(signal.SIGKILL)
                self._server.wait()

    async def _conduct(self, slots: Sequence[asyncio.Task[None]]) -> None:
        said = 0
        while self.kill_count < self._kills:
            self.round += 1
            round_ = draw_round(self.stage.seed, self.round)
            for early in round_.early_kills:
                await self._kill_early(early)
            server, life = await self._open(round_)
            if not round_.is_hasty:
                await self._check(life, is_full=self.round % FULL_AUDIT_ROUNDS == 0)
            await asyncio.sleep(round_.delay_seconds)
            await self._end(server, life, round_)
            if self.kill_count // PROGRESS_KILLS > said:
                said = self.kill_count // PROGRESS_KILLS
                figures = ", ".join(f"{name} {text}" for name, text in self.figures().items())
                self._say(f"{self.kill_count} of {self._kills} kills: {figures}")
        await self._close(slots)

    async def _close(self, slots: Sequence[asyncio.Task[None]]) -> None:
        """Have every session come to rest on a last server; check all of it."""
        self.round += 1
        self.stage.link.is_closing = True
        server, life = await self._open(draw_round(self.stage.seed, self.round))
        async with asyncio.timeout(SETTLE_SECONDS):
            await asyncio.wait(slots)
        await self._check(life, is_full=True)
        check_nothing_left(self.stage.retired)
        await self._end(server, life, None)

    # --- servers --------------------------------------------------------------------------------------

    def _launch(self, *arguments: str) -> tuple[ServerProcess, asyncio.Task[ServerProcess]]:
        """Start a server; return it, and what waits until it listens."""
        if self._on_down and self.round > 1:
            self._on_down(self.round)
        server = self._server = server_on(self._path, *arguments)
        server.launch()
        self.stage.link.launch()
        return server, asyncio.create_task(asyncio.to_thread(server.wait_until_listening))

    async def _open(self, round_: Round) -> tuple[ServerProcess, Life]:
        """Start a server and let everyone go on with it."""
        began = self._launched = time.monotonic()
        limits = ("--inferences-running-max", str(round_.running_max))
        server, listening = self._launch("--drain-grace-seconds", str(round_.grace_seconds), *limits)
        await asyncio.shield(listening)
        self.slowest_start_seconds = max(self.slowest_start_seconds, time.monotonic() - began)
        channels = AsyncExitStack()
        stubs = await channels.enter_async_context(connect(server.address))
        if self.stage.link.is_first:
            self.stage.attempts_max = await _attempts_max(stubs)
        life = self.stage.link.open(stubs)
        await self._channels.aclose()  # not earlier: what is under way would be cancelled, and not fail
        self._channels = channels
        return server, life

    async def _kill_early(self, early: EarlyKill) -> None:
        """Start a server, and kill it before anyone was served."""
        server, listening = self._launch()
        lock = self._path.with_name(f"{self._path.name}.lock")
        while early.is_after_opening and not _is_held(lock, server.pid) and not listening.done():
            await asyncio.wait({listening}, timeout=LOOK_SECONDS)
        await asyncio.sleep(early.seconds)
        when = "during recovery" if _is_held(lock, server.pid) else "before recovery"
        when = "right after the start" if listening.done() else when
        server.signal(signal.SIGKILL)
        await asyncio.wait({listening})
        listening.exception()  # that it did not get to listen is no surprise
        check_exit(await asyncio.to_thread(server.wait), {-signal.SIGKILL})
        self.stage.tally.counts["kills"] += 1
        self.stage.tally.counts[f"kills {when}"] += 1

    async def _end(self, server: ServerProcess, life: Life, round_: Round | None) -> None:
        """End a server as the round says; stop it at the end of the test."""
        ending = round_.ending if round_ else Ending.STOP
        self.stage.link.end(life, is_stop=ending is not Ending.KILL)
        codes = {-signal.SIGKILL}
        if ending is not Ending.KILL:
            server.signal(signal.SIGTERM)
            codes = {0}
        if ending is Ending.STOP_AND_KILL and round_:
            await asyncio.sleep(round_.kill_after_stop_seconds)
            codes = {0, -signal.SIGKILL}
        if ending is not Ending.STOP:
            server.signal(signal.SIGKILL)
            self.stage.tally.counts["kills"] += 1
        self.stage.tally.counts[f"servers ended by {ending.value}"] += 1
        check_exit(await asyncio.to_thread(server.wait), codes)

    # --- checks ---------------------------------------------------------------------------------------

    async def _check(self, life: Life, *, is_full: bool) -> None:
        """Check every session while its clients go on; return once each of them is busy again."""
        stage = self.stage
        retired = [each for each in stage.retired if is_full or each.watches]
        async with asyncio.TaskGroup() as group:
            group.create_task(audit_listing(stage, life))
            for ledger in (*stage.present, *retired):
                group.create_task(audit(stage, life, ledger, is_full=is_full))
        for ledger in retired:
            ledger.watches.clear()
        await stage.wait_until_settled(life, SETTLE_SECONDS)
        stage.tally.counts["restarts checked"] += 1
        self.slowest_settle_seconds = max(self.slowest_settle_seconds, time.monotonic() - self._launched)

    def figures(self) -> dict[str, str]:
        """Return what was measured."""
        seconds = time.monotonic() - self._began
        mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "slowest start": f"{self.slowest_start_seconds:.2f} s",
            "slowest recovery": f"{self.slowest_settle_seconds:.2f} s",
            "seconds per kill": f"{seconds / max(self.kill_count, 1):.2f} s",
            "memory of the test": f"{mebibytes:.0f} MiB",
        }

    def log_tail(self) -> str:
        """Return the last lines of the present server's log."""
        return "".join(self._server.log[-LOG_LINES_SHOWN:]) if self._server else ""


async def _attempts_max(stubs: Stubs) -> int:
    """Return what this server lets clients ask for, of 1 and 3."""
    life = Life(0, stubs)
    session = (await life.ask(stubs.session.CreateSession, session_service_pb2.CreateSessionRequest())).session
    try:
        await life.ask(stubs.inference.StartInference, start_request(session.session_id, attempts_max=3))
    except RefusedError as refused:
        if refused.reason != "FEATURE_NOT_IMPLEMENTED":
            raise
        return 1
    return 3


def _is_held(lock: Path, pid: int) -> bool:
    try:
        return lock.read_text() == str(pid)
    except FileNotFoundError:
        return False


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield what an exception group is made of."""
    if isinstance(error, ExceptionGroup):
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(each)
    else:
        yield error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a test; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fault.kill", description=DESCRIPTION)
    parser.add_argument("--kills", type=int, default=500, help="how many servers to kill (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="what decides on everything but timing (default: 1)")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="turnwire-kill-"))
    test = KillTest(folder / "turnwire.db", options.seed, options.kills)
    try:
        asyncio.run(test.run())
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the promises are not proved
        found = list(_leaves(error))
        print(summarize(test.stage.tally, test.figures(), violations=len(found)), flush=True)
        print(f"\nthe last lines of the server's log:\n{test.log_tail()}", file=sys.stderr)
        for violation in found:
            traceback.print_exception(violation)
        print(f"\nVIOLATION in round {test.round}; the store is in {folder}; to reproduce:", file=sys.stderr)
        print(f"  make fault SEED={options.seed} KILLS={options.kills}", file=sys.stderr)
        return 1
    print(summarize(test.stage.tally, test.figures(), violations=0))
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
