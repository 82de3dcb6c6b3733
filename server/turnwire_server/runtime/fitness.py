"""Whether this process can do its work: it cannot while its store does not answer."""

from typing import Protocol

from turnwire_server.domain.clock import Clock
from turnwire_server.stores.base import OVERDUE_SECONDS
from turnwire_server.telemetry.logs import logger

# How long the store may fail to answer before this process is not fit to serve.
UNFIT_SECONDS = 5.0

log = logger()


class OnFitness(Protocol):
    """Is told when the store does not answer any more, and when it does again."""

    async def __call__(self, *, is_fit: bool) -> None: ...


class Fitness:
    """Judges by whether heartbeats are answered, and tells `on_fitness` of each change."""

    def __init__(self, clock: Clock, on_fitness: OnFitness | None) -> None:
        self._clock = clock
        self._on_fitness = on_fitness
        self._is_fit = True
        self._answer_time = clock.monotonic()
        self._failure_time = float("-inf")

    def answered(self) -> None:
        """Note that the store answered."""
        self._answer_time = self._clock.monotonic()

    def failed(self) -> None:
        """Note that it did not."""
        self._failure_time = self._clock.monotonic()

    async def tell(self) -> None:
        """Tell when the store has been away for too long, and when it is back."""
        is_fit = self._clock.monotonic() - self._answer_time <= UNFIT_SECONDS
        if self._on_fitness and is_fit is not self._is_fit:
            log.warning("the store answers again" if is_fit else "the store does not answer; not fit to serve")
            await self._on_fitness(is_fit=is_fit)
            self._is_fit = is_fit

    def may_sweep(self) -> bool:
        """Return whether it may be taken from owners what is overdue.

        After the store was away, they get to write what ended in time before that.
        """
        return self._clock.monotonic() - self._failure_time > OVERDUE_SECONDS
