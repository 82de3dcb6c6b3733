"""When step mode has to be looked at again: where it is off, not at each step."""

from dataclasses import dataclass

from turnwire_server.domain.clock import Clock

# How long it counts that step mode was off, whatever was heard since: a hint may have been lost.
KNOWN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """When step mode was looked at: by the clock, and by the changes that had been heard of."""

    change_count: int
    time: float


class StepChanges:
    """The changes of step mode that this process has heard of, whatever the session: they are rare."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0

    def hear(self) -> None:
        """Count a change."""
        self._count += 1

    def now(self) -> Moment:
        """Return the moment before a look at the store."""
        return Moment(self._count, self._clock.monotonic())

    def is_old(self, moment: Moment) -> bool:
        """Return whether what was seen then may be otherwise now."""
        return moment.change_count != self._count or self._clock.monotonic() - moment.time > KNOWN_SECONDS
