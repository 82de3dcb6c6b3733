"""How late the machine is, because it has other things to do: what is measured in seconds allows for it.

Its processors are late when this process wakes up late; its disk is when a small file is flushed slowly.
"""

import asyncio
import os
import time
from collections import deque
from pathlib import Path

BEAT_SECONDS = 0.05

# Lateness that does not matter, of a beat and of a flush.
LATE_SECONDS_MIN = 0.02
SLOW_SECONDS_MIN = 0.1

# A request and its answer are worked on in two processes, and stored in between: each is late when this one is.
LATE_TIMES = 3

# However late the machine is, no more than this part of what something took is excused by it; and by it and its disk.
EXCUSED_SHARE = 0.5
EXCUSED_SHARE_MAX = 0.9

# The beats and flushes that are remembered: those that were late, of the last minute at least.
BEATS_KEPT = 1200


class Pulse:
    """Wakes up again and again, and flushes a file in `folder` if there is one; remembers when it was late."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._late: deque[tuple[float, float]] = deque(maxlen=BEATS_KEPT)
        self._slow: deque[tuple[float, float]] = deque(maxlen=BEATS_KEPT)
        self._flush_began: float | None = None

    async def run(self) -> None:
        """Beat until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            if self._folder:
                group.create_task(self._flush(self._folder / "pulse"))

    def excuse_seconds(self, since: float) -> float:
        """Return how much of what took from then until now the machine's other work excuses."""
        took = time.monotonic() - since
        excused = min(LATE_TIMES * self.late_seconds(since), EXCUSED_SHARE * took) + self.slow_seconds(since)
        return min(excused, EXCUSED_SHARE_MAX * took)

    def late_seconds(self, since: float) -> float:
        """Return by how much it was late since then, all in all."""
        return sum(late for due, late in self._late if due + late >= since)

    def slow_seconds(self, since: float) -> float:
        """Return for how long since then a flush was under way that was slow."""
        flushes = [*self._slow]
        if self._flush_began is not None and (now := time.monotonic()) - self._flush_began > SLOW_SECONDS_MIN:
            flushes.append((self._flush_began, now))
        return sum(max(0.0, end - max(begin, since)) for begin, end in flushes)

    async def _beat(self) -> None:
        while True:
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            if (late := time.monotonic() - due) > LATE_SECONDS_MIN:
                self._late.append((due, late))

    async def _flush(self, file: Path) -> None:
        with file.open("wb", buffering=0) as opened:
            while True:
                self._flush_began = time.monotonic()
                flush = asyncio.ensure_future(asyncio.to_thread(_write, opened.fileno()))
                try:
                    await asyncio.shield(flush)
                except asyncio.CancelledError:
                    await flush  # the file must not be closed before
                    raise
                end = time.monotonic()
                if end - self._flush_began > SLOW_SECONDS_MIN:
                    self._slow.append((self._flush_began, end))
                self._flush_began = None
                await asyncio.sleep(BEAT_SECONDS)


def _write(descriptor: int) -> None:
    os.pwrite(descriptor, b"pulse", 0)
    os.fdatasync(descriptor)
