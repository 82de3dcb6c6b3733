"""The servers of a test: started, killed and stopped, one after the other on one store, each behind a proxy."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from fault.checks import check_exit, check_memory
from fault.disk import Disk
from fault.excuses import is_excused
from fault.launcher import read_shift
from fault.link import Life
from fault.provider import Provider
from fault.proxy import Proxy
from fault.schedule import DISK_ENDINGS, EarlyEnd, Ending, Round
from fault.stage import Stage
from fault.troubles import Failure
from support.rpc import connect
from support.server import ServerProcess
from support.server_log import check_log

# Where the launcher is.
TESTS = Path(__file__).resolve().parents[1]

# What a server may have at the most: a fixed part, its rings, and what its connections hold for slow clients.
MEMORY_KIB_MAX = 260 * 1024

# And what a provider's SDK takes.
SDK_KIB_MAX = 120 * 1024

# How often a server that starts is looked at.
LOOK_SECONDS = 0.001

# What a server that is ended early gives its inferences to end.
EARLY_GRACE_SECONDS = 2

# A client that lost its connection tries again soon, and does not give up a slow one at once.
RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 400),
)


def launched_server(store: str, clock: Path, plant: str, *arguments: str) -> ServerProcess:
    """Return a server of the launcher, not started yet."""
    program = ("-m", "fault.launcher", "--clock", str(clock), *(("--plant", plant) if plant else ()), "--")
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))
    return ServerProcess(("--store", store, *arguments), {"PYTHONPATH": path}, program)


class Host:
    """Has at most one server at a time. `clock` is the file that its wall clock is shifted by."""

    def __init__(self, store: Path, stage: Stage, plant: str, on_down: Callable[[int], object] | None) -> None:
        self.store = store
        self.clock = store.with_name("clock")
        self.server: ServerProcess | None = None
        self.log: list[str] = []  # of the last server
        self.proxy: Proxy | None = None
        self.disk: Disk | None = None
        self.provider: Provider | None = None
        self.filling: asyncio.Task[None] | None = None  # the disk; to be waited for before anything else is done to it
        self.slowest_start_seconds = 0.0
        self.peak_kib = 0
        self.round = 0
        self._launched = 0.0
        self._stage = stage
        self._plant = plant
        self._on_down = on_down
        self._open_parts = AsyncExitStack()
        stage.weigh = self._weigh

    async def aclose(self) -> None:
        """End whatever there is."""
        await self._open_parts.aclose()
        if self.server:
            self.server.signal(signal.SIGCONT)
            self.server.signal(signal.SIGKILL)
            self.server.wait()
            self.server = None

    async def open(self, round_: Round) -> Life:
        """Start a server and let everyone go on with it."""
        began = time.monotonic()
        limits = ("--inferences-running-max", str(round_.running_max))
        server, listening = self._launch("--drain-grace-seconds", str(round_.grace_seconds), *limits)
        await asyncio.shield(listening)
        self.slowest_start_seconds = max(self.slowest_start_seconds, time.monotonic() - began)
        async with AsyncExitStack() as parts:
            self.proxy = await parts.enter_async_context(Proxy(server.address))
            stubs = await parts.enter_async_context(connect(self.proxy.address, *RECONNECT))
            # A provider's SDK is imported in a thread when it is first used, which holds up the process for seconds.
            self._stage.link.warm_time = float("inf") if self.provider else time.monotonic()
            life = await self._stage.link.open(stubs, self.proxy.address)
            kept = parts.pop_all()
        before, self._open_parts = self._open_parts, kept
        await before.aclose()  # not earlier: what is under way would be cancelled, and not fail
        return life

    async def end_early(self, early: EarlyEnd) -> None:
        """Start a server, and end it before anyone was served."""
        # A short grace: it may have claimed what nobody ends, and would let it run for as long as that lasts.
        server, listening = self._launch("--drain-grace-seconds", str(EARLY_GRACE_SECONDS))
        lock = self.store.with_name(f"{self.store.name}.lock")
        while early.is_after_opening and not _is_held(lock, server.pid) and not listening.done():
            await asyncio.wait({listening}, timeout=LOOK_SECONDS)
        await asyncio.sleep(early.seconds)
        when = "during recovery" if _is_held(lock, server.pid) else "before recovery"
        when = "right after the start" if listening.done() else when
        server.signal(signal.SIGTERM if early.is_stop else signal.SIGKILL)
        await asyncio.wait({listening})
        listening.exception()  # that it did not get to listen is no surprise
        # Before it has its own way to stop, SIGTERM ends it as it ends any process.
        due = {0, -signal.SIGTERM} if early.is_stop else {-signal.SIGKILL}
        check_exit(await asyncio.to_thread(server.wait), due)
        self._check_log()
        self.server = None
        what = "stops" if early.is_stop else "kills"
        self._stage.tally.counts[what] += 1
        self._stage.tally.counts[f"{what} {when}"] += 1

    async def end(self, life: Life, round_: Round | None) -> None:
        """End the server as the round says; stop it at the end of the test."""
        server, proxy, ending = self.server, self.proxy, round_.ending if round_ else Ending.STOP
        assert server is not None
        assert proxy is not None
        self._weigh()
        if ending in DISK_ENDINGS and not self.disk:
            ending = Ending.KILL
        is_stop = ending in {Ending.STOP, Ending.STOP_AND_KILL}
        self._stage.link.end(life, is_stop=is_stop)
        codes = {-signal.SIGKILL}
        if is_stop:
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)  # it may be paused
            codes = {0}
        if ending is Ending.STOP_AND_KILL and round_:
            await asyncio.sleep(round_.kill_after_stop_seconds)
            codes = {0, -signal.SIGKILL}
        if self.disk and ending is Ending.POWER_CUT:
            proxy.swallow()  # who has no power says nothing: what is acknowledged from now on, nobody hears
            await self.disk.lose_power()
        if self.disk and ending is Ending.BROKEN_DISK and round_:
            await self.disk.break_off()
            await asyncio.sleep(round_.delay_seconds)
        if ending is not Ending.STOP:
            server.signal(signal.SIGKILL)
            self._stage.tally.counts["kills"] += 1
        self._stage.tally.counts[f"servers ended by {ending.value}"] += 1
        check_exit(await asyncio.to_thread(server.wait), codes)
        self._check_log(has_bad_end=ending in DISK_ENDINGS)
        self.server = None
        proxy.cut()  # a network that swallows or delays would keep from the clients that it is gone
        await self._mend(ending)

    async def _mend(self, ending: Ending) -> None:
        """Have the disk work again, on which no server runs any more."""
        if not self.disk:
            return
        if self.filling:
            await self.filling
        if ending is Ending.POWER_CUT:
            await self.disk.restore_power()
        if ending is Ending.BROKEN_DISK:
            await self.disk.repair()
        await self.disk.free()  # it may have been filled

    def _launch(self, *arguments: str) -> tuple[ServerProcess, asyncio.Task[ServerProcess]]:
        """Start a server; return it, and what waits until it listens."""
        if self._on_down and self.round > 1:
            self._on_down(self.round)
        if self.provider:
            arguments = ("--profiles", str(self.provider.profiles), *arguments)
        server = self.server = launched_server(str(self.store), self.clock, self._plant, *arguments)
        self.log = server.log
        self._launched = time.monotonic()
        server.launch()
        self._stage.link.launch(time.time() + read_shift(self.clock))
        return server, asyncio.create_task(asyncio.to_thread(server.wait_until_listening))

    def _check_log(self, *, has_bad_end: bool = False) -> None:
        """Available: see that the last server has logged no error that nothing excuses."""
        has_struck = self._stage.link.troubles.has_struck(Failure.STORE, self._launched)
        check_log(self.log, partial(is_excused, is_store_troubled=has_struck or has_bad_end))

    def _weigh(self) -> None:
        """Bounded: see how much memory the present server ever had."""
        lines = Path(f"/proc/{self.server.pid}/status").read_text("utf-8").splitlines() if self.server else []
        peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
        if peak is None:  # it has ended by itself, or is ended: how, is looked at elsewhere
            return
        self.peak_kib = max(self.peak_kib, peak)
        check_memory(peak, MEMORY_KIB_MAX + (SDK_KIB_MAX if self.provider else 0))


def _is_held(lock: Path, pid: int) -> bool:
    try:
        return lock.read_text() == str(pid)
    except FileNotFoundError:
        return False
