"""Time and chance, handed in: the clock that everything here waits by, and how long to wait before trying again."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from turnwire_client._errors import RequestError


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None:
        """Forget it."""


class Clock(Protocol):
    """Where time and chance come from. `SystemClock` is the real one; a test hands in its own."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...

    def random(self) -> float:
        """A number from 0 up to 1."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Calls back once, after so many seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after so many seconds."""


class SystemClock:
    """The clock of the machine, and its randomness."""

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self) -> float:
        return random.random()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How to try again: exponential, jittered, bounded.

    The n-th delay is between half and all of `initial_seconds` * `multiplier`^n, never above `seconds_max`. Nothing is
    tried again once `give_up_seconds` have passed without an answer; None means never to give up, 0 not to try again.
    """

    initial_seconds: float = 0.1
    multiplier: float = 2.0
    seconds_max: float = 5.0
    give_up_seconds: float | None = 15.0

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after the given attempt, counted from 0; `chance` is from 0 up to 1."""
        ceiling = min(self.seconds_max, self.initial_seconds * self.multiplier ** min(attempt, 64))
        return ceiling * (1 + chance) / 2


class Patience:
    """The state of one row of attempts under a Backoff."""

    def __init__(self, backoff: Backoff, clock: Clock) -> None:
        self._backoff = backoff
        self._clock = clock
        self._attempt = 0
        self._silent_since: float | None = None

    @property
    def give_up_seconds(self) -> float | None:
        """When it gives up; see Backoff."""
        return self._backoff.give_up_seconds

    def asked(self) -> None:
        """The server is asked now; the time in which it does not answer begins here, and not with the first failure."""
        if self._silent_since is None:
            self._silent_since = self._clock.monotonic()

    def answered(self) -> None:
        """The server said something: it is alive."""
        self._silent_since = None

    def advanced(self) -> None:
        """There was progress: the next delay is the first one again."""
        self._silent_since = None
        self._attempt = 0

    async def wait(self, failure: RequestError | None) -> bool:
        """Waits before the next attempt. False, at once, when it is time to give up."""
        now = self._clock.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        delay = self._backoff.delay(self._attempt, self._clock.random())
        if failure is not None and failure.retry_delay is not None:
            delay = max(delay, failure.retry_delay)
        limit = self._backoff.give_up_seconds
        if limit is not None and now + delay - self._silent_since > limit:
            return False
        self._attempt += 1
        await self._clock.sleep(delay)
        return True
