"""The clock of the machine."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# A wait that may last this long may last TICK_SECONDS longer. Such waits share timers, at most one for each tick up to
# the longest of them: each event of a stream has some waits, nearly all end long before their time, and a timer each
# would be a tenth of what an event costs.
LONG_SECONDS_MIN = 10.0
TICK_SECONDS = 0.25


@dataclass(slots=True, eq=False)
class _Wait:
    """A task that waits; `cancel_count` is how often it was asked to end before it did."""

    task: asyncio.Task[Any]
    cancel_count: int
    is_over: bool = False


class SystemClock:
    """The Clock of a running server, for one event loop."""

    def __init__(self, long_seconds_min: float = LONG_SECONDS_MIN) -> None:
        self._long_seconds_min = long_seconds_min
        self._waits: dict[int, set[_Wait]] = {}  # the long ones, by the tick at which their time is over

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        """See Clock."""
        if self._long_seconds_min <= seconds < float("inf"):
            return await self._wait_long(awaitable, seconds)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await awaitable
        except TimeoutError:
            if limit.expired():
                return False
            raise  # it is an error of what was awaited
        return True

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)

    async def _wait_long(self, awaitable: Awaitable[object], seconds: float) -> bool:
        """Do what asyncio.timeout does, with a timer that all waits share that end with the same tick."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # a coroutine is run by a task
        tick = int((loop.time() + seconds) / TICK_SECONDS) + 1
        waits = self._waits.get(tick)
        if waits is None:
            waits = self._waits[tick] = set()
            loop.call_at(tick * TICK_SECONDS, self._end, tick)
        wait = _Wait(task, task.cancelling())
        waits.add(wait)
        try:
            await awaitable
        except asyncio.CancelledError:
            if wait.is_over and task.cancelling() - 1 <= wait.cancel_count:
                return False
            raise  # it is for whoever else wants the task to end
        finally:
            waits.discard(wait)
            if wait.is_over:
                task.uncancel()
        return True

    def _end(self, tick: int) -> None:
        for wait in self._waits.pop(tick):
            wait.is_over = True
            wait.task.cancel()
