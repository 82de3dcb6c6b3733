"""A short kill test with every run of the tests; `make fault` is the long one."""

import shutil
from pathlib import Path

import pytest

from fault.kill import KillTest

KILLS = 8
COPIED_ROUND, RESTORED_ROUND = 2, 3


async def test_every_promise_holds_after_kills(tmp_path: Path) -> None:
    test = KillTest(tmp_path / "turnwire.db", seed=8, kills=KILLS)
    await test.run()
    tally = test.stage.tally
    assert tally.counts["kills"] >= KILLS
    assert tally.counts["restarts checked"] >= KILLS / 2
    assert tally.counts["starts repeated"] > 0
    assert tally.counts["streams cut"] > 0
    assert {"SUCCEEDED", "CANCELLED", "FAILED ATTEMPT_LOST"} <= tally.outcomes.keys()


async def test_a_store_that_forgets_is_found_out(tmp_path: Path) -> None:
    """Between two servers the file becomes again what it was a while ago, as if commits had not been durable."""
    path = tmp_path / "turnwire.db"

    def go_back(round_number: int) -> None:
        kept = tmp_path / "kept"
        if round_number == COPIED_ROUND:
            kept.mkdir(exist_ok=True)
            for file in tmp_path.glob("turnwire.db*"):
                shutil.copy(file, kept)
        elif round_number == RESTORED_ROUND:
            for file in kept.iterdir():
                shutil.copy(file, path.parent)

    with pytest.raises(ExceptionGroup) as refused:
        await KillTest(path, seed=8, kills=KILLS, on_down=go_back).run()
    violations, others = refused.value.split(AssertionError)
    assert violations
    assert others is None
