"""When a process is not fit to serve, and when it may take what is overdue from others."""

from turnwire_server.runtime.clock import SystemClock
from turnwire_server.runtime.fitness import UNFIT_SECONDS, Fitness
from turnwire_server.stores.base import OVERDUE_SECONDS


class HeldClock(SystemClock):
    """Its time is what a test says."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


async def test_it_tells_each_change_once() -> None:
    clock, told = HeldClock(), list[bool]()

    async def on_fitness(*, is_fit: bool) -> None:
        told.append(is_fit)

    fitness = Fitness(clock, on_fitness)
    clock.time = UNFIT_SECONDS
    await fitness.tell()
    assert told == []
    clock.time += 0.1
    await fitness.tell()
    await fitness.tell()
    assert told == [False]
    fitness.answered()
    await fitness.tell()
    assert told == [False, True]


def test_owners_get_to_write_first_after_the_store_was_away() -> None:
    clock = HeldClock()
    fitness = Fitness(clock, None)
    assert fitness.may_sweep()
    fitness.failed()
    assert not fitness.may_sweep()
    clock.time = OVERDUE_SECONDS + 0.1
    assert fitness.may_sweep()
