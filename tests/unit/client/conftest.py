"""The fake server, and a clock whose time passes as soon as somebody waits for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from turnwire_client import Client, Policy
from turnwire_client.testing import FakeServer


class ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.pending = True

    def cancel(self) -> None:
        self.pending = False


class ManualClock:
    """Sleeping takes no time and is written down; timers go off when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.timers: list[tuple[float, ManualTimer]] = []
        self.on_sleep: Callable[[], Awaitable[object]] | None = None
        self._armed = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    def random(self) -> float:
        return 1.0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        self.timers.append((seconds, timer))
        self._armed.set()
        return timer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.on_sleep is not None:
            await self.on_sleep()
        await asyncio.sleep(0)

    def forget_timers(self) -> None:
        """What wait_timer waits for comes after this."""
        self.timers.clear()
        self._armed.clear()

    async def wait_timer(self) -> None:
        """Returns once a timer has been set since forget_timers."""
        await self._armed.wait()

    def fire(self) -> None:
        """Lets every pending timer go off."""
        for _, timer in self.timers:
            if timer.pending:
                timer.pending = False
                timer.callback()


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


@pytest.fixture
async def client(fake: FakeServer, clock: ManualClock) -> AsyncIterator[Client]:
    async with Client.connect(fake.target, policy=Policy(), clock=clock) as connected:
        yield connected
