"""Three minutes of the fault suite with every run of the tests; `make fault` is the long one."""

import os
import shutil
from pathlib import Path

import pytest

from fault.conductor import FaultTest
from fault.disk import Disk
from fault.ledger import Tally
from fault.provider import Provider

# A seed without more, and two whose first rounds have what their tests are about. Together they are the three minutes
# of the suite that every run of the tests has.
PLAIN_SEED, PROVIDER_SEED, DISK_SEED = 2, 22, 15
SEED_SECONDS = 60.0

# A last round and the last check come on top, and a machine that has other things to do.
SECONDS_MAX = 300

COPIED_ROUND, RESTORED_ROUND = 2, 3


async def run_seed(folder: Path, seed: int) -> Tally:
    """Run a seed for a minute; return what it has seen."""
    test = FaultTest(folder, seed, seconds=SEED_SECONDS)
    await test.run()
    tally = test.stage.tally
    assert not any(name.startswith("LEFT OUT") for name in tally.counts)
    assert {"SUCCEEDED", "CANCELLED"} <= tally.outcomes.keys()
    for name in ("kills", "checks of what is new", "starts repeated", "streams cut", "cancels timed"):
        assert tally.counts[name] > 0, name
    return tally


@pytest.mark.timeout(SECONDS_MAX)
async def test_every_promise_holds(tmp_path: Path) -> None:
    await run_seed(tmp_path, PLAIN_SEED)


@pytest.mark.timeout(SECONDS_MAX)
async def test_every_promise_holds_with_a_provider_that_fails(tmp_path: Path) -> None:
    if why := Provider.is_possible():
        pytest.fail(why) if os.environ.get("CI") == "true" else pytest.skip(why)
    tally = await run_seed(tmp_path, PROVIDER_SEED)
    assert tally.plays["provided"] > 0
    assert tally.counts["strikes: provider garbles"] > 0


@pytest.mark.timeout(SECONDS_MAX)
@pytest.mark.skipif(bool(Disk.is_possible()), reason=Disk.is_possible())
async def test_every_promise_holds_on_a_disk_that_fails(tmp_path: Path) -> None:
    tally = await run_seed(tmp_path, DISK_SEED)
    assert tally.counts["servers ended by power cut"] > 0
    assert tally.counts["strikes: disk full"] > 0


@pytest.mark.timeout(SECONDS_MAX)
async def test_a_store_that_forgets_is_found_out(tmp_path: Path) -> None:
    """Between two servers the file becomes again what it was a while ago, as if commits had not been durable."""

    def go_back(round_number: int) -> None:
        kept = tmp_path / "kept"
        if round_number == COPIED_ROUND:
            kept.mkdir(exist_ok=True)
            for file in tmp_path.glob("turnwire.db*"):
                shutil.copy(file, kept)
        elif round_number == RESTORED_ROUND:
            for file in kept.iterdir():
                shutil.copy(file, tmp_path)

    with pytest.raises(ExceptionGroup) as refused:
        await FaultTest(tmp_path, seed=PLAIN_SEED, seconds=SEED_SECONDS, on_down=go_back).run()
    violations, others = refused.value.split(AssertionError)
    assert violations
    assert others is None
