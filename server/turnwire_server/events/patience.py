"""How long an attempt bears with a store that does not answer."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import StoreUnavailableError

T = TypeVar("T")

# How long one call is tried again before the attempt is given up, and how often.
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.2

# What is left of that once the process goes away; what is not written then is recovered at the next start.
LAST_SECONDS = 2.0


class Patience:
    """Tries calls again that may be repeated: reads, and writes that find out that they have landed already."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = float("inf")

    def end_soon(self) -> None:
        """Bear with the store for LAST_SECONDS more, all calls together."""
        self._end = min(self._end, self._clock.monotonic() + LAST_SECONDS)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns; raise StoreUnavailableError when it did not answer for too long."""
        begin = self._clock.monotonic()
        while True:
            try:
                return await work()
            except StoreUnavailableError:
                if self._clock.monotonic() >= min(begin + PATIENCE_SECONDS, self._end):
                    raise
                await self._clock.sleep(RETRY_SECONDS)
