"""When an attempt has to stop by itself: at the deadline of its inference, or when its engine is silent too long."""

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import EngineStalledError
from turnwire_server.domain.event import Failed
from turnwire_server.domain.lifecycle import deadline_outcome
from turnwire_server.stores.lease import Claim


class Watchdog:
    """Watches one attempt. An engine is watched from listen() to rest()."""

    def __init__(self, claim: Claim, clock: Clock, silence_seconds_max: float) -> None:
        self._claim = claim
        self._clock = clock
        self._silence_seconds_max = silence_seconds_max
        self._heard_time: float | None = None  # the last sign of life; None while nobody is listened to
        self._late_time: float | None = None  # when it was first seen past its deadline; None while it is not

    def listen(self) -> None:
        """An engine is asked from now on."""
        self._heard_time = self._clock.monotonic()

    def hear(self) -> None:
        """The engine gave a sign of life. One that has returned may do so as well, and is not waited for by that."""
        if self._heard_time is not None:
            self._heard_time = self._clock.monotonic()

    def rest(self) -> None:
        """No engine is asked now."""
        self._heard_time = None

    def patience_left(self, *, is_engine_held_up: bool) -> float | None:
        """Return for how long nothing has to happen; None: for ever."""
        waits = [] if (left := self._seconds_left()) is None else [left]
        if self._heard_time is not None:
            now = self._clock.monotonic()
            since = now if is_engine_held_up else self._heard_time
            waits.append(since + self._silence_seconds_max - now)
        return max(0.0, min(waits)) if waits else None

    def seconds_late(self) -> float:
        """Return for how long the inference has been seen past its deadline, 0 while it is not.

        By the monotonic clock: a wall clock that jumps ahead leaves a sound attempt the time to end.
        """
        if (self._seconds_left() or 0.0) >= 0:
            self._late_time = None
            return 0.0
        now = self._clock.monotonic()
        self._late_time = now if self._late_time is None else self._late_time
        return now - self._late_time

    def verdict(self, *, is_engine_held_up: bool) -> Failed | None:
        """Return how the inference has to end now, None if it may go on. An engine that is held up need say nothing."""
        left, now = self._seconds_left(), self._clock.monotonic()
        if left is not None and left <= 0:
            return deadline_outcome(self._claim.inference)
        silence = self._silence_seconds_max
        if self._heard_time is None or is_engine_held_up or now - self._heard_time < silence:
            return None
        return Failed(EngineStalledError(engine=self._claim.engine, idle_seconds_max=f"{silence:g}").failure())

    def _seconds_left(self) -> float | None:
        """Return how long the inference may still take, None for any time; 0 or less once its deadline has passed."""
        deadline = self._claim.inference.deadline_time
        return None if deadline is None else (deadline - self._clock.now()).total_seconds()
