"""How long one bears with a store that does not answer, and how it is found out what became of a call."""

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

# How long one call may take, waiting for its turn included.
CALL_SECONDS_MAX = 30.0

# How long it is tried to find out what became of one call of a client; then the client is told that it is not known.
RESOLVE_SECONDS = 5.0


async def resolve(clock: Clock, work: Callable[[], Awaitable[T]]) -> T:
    """Return what a call of the store returns, which is sent again while it is not known whether it happened.

    Errors: what the call raises; StoreUnavailableError, which is definite only if the first one was.
    """
    give_up = clock.monotonic() + RESOLVE_SECONDS
    try:
        return await work()
    except StoreUnavailableError as error:
        if error.is_definite:
            raise
        unknown = error
    while clock.monotonic() < give_up:
        await clock.sleep(RETRY_SECONDS)
        try:
            return await work()
        except StoreUnavailableError:  # the store may be gone altogether: what became of the first is still not known
            continue
    raise unknown


async def bounded(clock: Clock, work: Callable[[], Awaitable[T]], seconds: float = CALL_SECONDS_MAX) -> T:
    """Return what one call of the store returns; one that hangs is given up, and may have happened."""
    answers: list[T] = []

    async def call() -> None:
        answers.append(await work())

    if not await clock.wait_for(call(), seconds):
        raise StoreUnavailableError(f"it hangs for {seconds:g} s")
    return answers[0]


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
                # Once the process goes away, a call begun then has no longer than what is left.
                left = max(RETRY_SECONDS, self._end - self._clock.monotonic())
                return await bounded(self._clock, work, min(CALL_SECONDS_MAX, left))
            except StoreUnavailableError:
                if self._clock.monotonic() >= min(begin + PATIENCE_SECONDS, self._end):
                    raise
                await self._clock.sleep(RETRY_SECONDS)
