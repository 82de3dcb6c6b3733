"""Each checker can fail on a real server: with a bug planted into it, the suite ends with what that checker says."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from fault.checks import CHECKERS, checkers_of
from fault.conductor import FaultTest
from fault.disk import Disk
from fault.plants import PLANTS
from fault.schedule import has_disk

# A plant is found within seconds; this is for a machine that is busy with other things.
SECONDS_MAX = 60.0

# A bug may have several consequences, and a run ends with the first that is seen. Which one that is, is chance.
RUNS_MAX = 3


def violations(error: Exception) -> Iterator[Exception]:
    """Yield what an exception group is made of."""
    if isinstance(error, ExceptionGroup):
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from violations(each)
    else:
        yield error


@pytest.mark.timeout(5 * SECONDS_MAX)
@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_bug_is_found(name: str, tmp_path: Path) -> None:
    plant = PLANTS[name]
    if has_disk(plant.seed) and (why := Disk.is_possible()):
        pytest.skip(why)
    reported: list[object] = []
    for number in range(RUNS_MAX):
        folder = tmp_path / str(number)
        folder.mkdir()
        test = FaultTest(folder, seed=plant.seed, seconds=SECONDS_MAX, plant=name)
        with pytest.raises(ExceptionGroup) as refused:
            await test.run()
        if any(plant.checker in checkers_of(violation) for violation in violations(refused.value)):
            return
        reported.append(refused.value)
    pytest.fail(f"others than {plant.checker} report it: {reported}")


def test_every_checker_has_a_plant() -> None:
    assert {plant.checker for plant in PLANTS.values()} >= CHECKERS
