"""What a nemesis does to a running server, and what it excuses until the server has found its way out."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from itertools import count

import grpc

from fault.checks import check_back
from fault.host import Host
from fault.launcher import read_shift, write_shift
from fault.link import Life, RefusedError
from fault.proxy import Proxy
from fault.schedule import DISK_NEMESES, PROVIDER_NEMESES, Nemesis, Strike
from fault.stage import Stage
from fault.troubles import NETWORK, Failure
from support.server import ServerProcess
from turnwire.v1 import session_service_pb2

# How long a server may take to answer once a trouble is over, and the connections to it.
BACK_SECONDS = 30.0
PROBE_SECONDS = 2.0

# How long after a trouble of the provider connections may be used again that did not survive it.
REUSE_SECONDS = 1.0

# The wall clock goes so far ahead of the machine's, and as far behind: less than a day all in all, which is how long
# the keys of a deleted session are promised to be known.
SHIFT_SECONDS_MAX = 11 * 3600.0

# How long a slow disk takes for a flush, at most.
FLUSH_SECONDS_MAX = 0.1


class Conjurer:
    """Strikes the present server of a host."""

    def __init__(self, host: Host, stage: Stage) -> None:
        self._host = host
        self._stage = stage
        self._network = asyncio.Lock()  # its strikes come one after the other: each takes back all that it did
        self._probes = count(1)

    async def strike(self, strike: Strike, life: Life) -> None:
        """Strike, and return once the server is back. Raises AssertionError, if it does not come back."""
        server, proxy = self._host.server, self._host.proxy
        assert server is not None
        assert proxy is not None
        await asyncio.sleep(strike.delay_seconds)
        is_left_out = strike.nemesis in DISK_NEMESES and not self._host.disk
        if is_left_out or (strike.nemesis in PROVIDER_NEMESES and not self._host.provider):
            return
        self._stage.link.history.tell("strike", nemesis=strike.nemesis.value, seconds=strike.seconds)
        self._stage.tally.counts[f"strikes: {strike.nemesis.value}"] += 1
        match strike.nemesis:
            case Nemesis.PAUSE:
                await self._pause(strike, server, life)
            case Nemesis.CLOCK:
                self._shift(strike)
            case Nemesis.FULL | Nemesis.STALL | Nemesis.SLOW:
                await self._withhold(strike, life)
            case Nemesis.PROVIDER_RESET | Nemesis.PROVIDER_HANG | Nemesis.PROVIDER_GARBAGE:
                await self._garble(strike)
            case _:
                await self._disturb(strike, proxy, life)

    async def _pause(self, strike: Strike, server: ServerProcess, life: Life) -> None:
        async with self._trouble(strike, {Failure.SILENCE}, life):
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(strike.seconds)
            server.signal(signal.SIGCONT)

    async def _withhold(self, strike: Strike, life: Life) -> None:
        disk = self._host.disk
        assert disk is not None
        if strike.nemesis is Nemesis.STALL:
            async with self._trouble(strike, {Failure.STORE, Failure.SILENCE}, life):
                await disk.stall(strike.seconds)
        elif strike.nemesis is Nemesis.SLOW:
            async with self._trouble(strike, {Failure.STORE, Failure.SILENCE}, life):
                await disk.slow_down(strike.seconds, FLUSH_SECONDS_MAX * strike.strength)
        else:
            async with self._trouble(strike, {Failure.STORE}, life):
                self._host.filling = asyncio.create_task(disk.fill())
                await asyncio.shield(self._host.filling)
                await asyncio.sleep(strike.seconds)
                await disk.free()

    async def _disturb(self, strike: Strike, proxy: Proxy, life: Life) -> None:
        async with self._network, self._trouble(strike, NETWORK, life):
            match strike.nemesis:
                case Nemesis.CUT | Nemesis.HALF_OPEN:
                    proxy.cut(is_half_open=strike.nemesis is Nemesis.HALF_OPEN)
                case Nemesis.SWALLOW:
                    proxy.swallow()
                case Nemesis.DELAY:
                    proxy.delay_seconds = 0.01 + 0.2 * strike.strength
                case _:
                    proxy.trickle_seconds = 0.001 + 0.01 * strike.strength
            await asyncio.sleep(strike.seconds)
            if strike.nemesis is Nemesis.SWALLOW and strike.strength < 0.5:
                proxy.cut(is_half_open=True)
            proxy.restore()

    async def _garble(self, strike: Strike) -> None:
        """Trouble the provider, which may be noticed when a connection is used again."""
        provider, troubles = self._host.provider, self._stage.link.provider_troubles
        assert provider is not None
        trouble = troubles.begin(strike.nemesis.value, NETWORK)
        try:
            match strike.nemesis:
                case Nemesis.PROVIDER_HANG:
                    provider.proxy.swallow()
                case Nemesis.PROVIDER_GARBAGE:
                    provider.proxy.is_garbling = True
                case _:
                    provider.proxy.cut()
            await asyncio.sleep(strike.seconds)
        finally:
            if strike.nemesis is Nemesis.PROVIDER_GARBAGE:  # nobody may use a connection again that has some on it
                provider.proxy.cut()
            provider.proxy.restore()
        await asyncio.sleep(REUSE_SECONDS)
        troubles.end(trouble)

    def _shift(self, strike: Strike) -> None:
        """Have the wall clock jump."""
        before, now = read_shift(self._host.clock), (2 * strike.strength - 1) * SHIFT_SECONDS_MAX
        self._stage.link.set_clock(is_back=now < before)
        write_shift(self._host.clock, now)

    @asynccontextmanager
    async def _trouble(self, strike: Strike, explains: Collection[Failure], life: Life) -> AsyncGenerator[None]:
        """A trouble lasts until the server is back; if that is not waited for, until the next one is there."""
        troubles = self._stage.link.troubles
        trouble = troubles.begin(strike.nemesis.value, explains)
        yield
        await self._wait_until_back(life)
        troubles.end(trouble)

    async def _wait_until_back(self, life: Life) -> None:
        """Return once the server answers and takes writes: once it has created a session.

        Raises AssertionError for an answer that nothing excuses, and if it does not come back.
        """
        key = f"probe-{life.number}.{next(self._probes)}"  # a key that is known would be answered without a write
        began, new = time.monotonic(), session_service_pb2.CreateSessionRequest(idempotency_key=key)
        while True:
            asked = time.monotonic()
            try:
                await life.stubs.session.CreateSession(new, timeout=PROBE_SECONDS)
            except grpc.aio.AioRpcError as error:
                failed = life.explain(error, asked)
                if isinstance(failed, RefusedError):
                    raise failed from None
            else:
                return
            check_back(time.monotonic() - began, BACK_SECONDS)
            await asyncio.sleep(0.05)
