"""How late this process is, because the machine has other things to do: what is measured in seconds allows for it."""

import asyncio
import time
from collections import deque

BEAT_SECONDS = 0.05

# Lateness that does not matter.
LATE_SECONDS_MIN = 0.02

# A request and its answer are worked on in two processes, and stored in between: each is late when this one is.
LATE_TIMES = 3

# However late the machine is, no more than this part of what something took is excused by it.
EXCUSED_SHARE = 0.5

# The beats that are remembered: those that were late, of the last minute at least.
BEATS_KEPT = 1200


class Pulse:
    """Wakes up again and again, and remembers when it was late."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=BEATS_KEPT)

    async def run(self) -> None:
        """Beat until it is cancelled."""
        while True:
            due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            if (late := time.monotonic() - due) > LATE_SECONDS_MIN:
                self._late.append((due, late))

    def excuse_seconds(self, since: float) -> float:
        """Return how much of what took from then until now the machine's other work excuses."""
        return min(LATE_TIMES * self.late_seconds(since), EXCUSED_SHARE * (time.monotonic() - since))

    def late_seconds(self, since: float) -> float:
        """Return by how much it was late since then, all in all."""
        return sum(late for due, late in self._late if due + late >= since)
