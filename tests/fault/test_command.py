"""The command of the suite: what it takes, and what it says of a run that failed."""

import tempfile
from pathlib import Path

import pytest

from fault import run
from fault.conductor import FaultTest


@pytest.mark.parametrize("arguments", ["--minutes 0", "--minutes -1", "--kills 0", "--seeds 0"])
def test_what_would_run_nothing_is_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        run.main(arguments.split())
    assert refused.value.code == 2
    assert "runs nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("--seed 5 --seeds 2 --minutes 4", "--seed 5 --seeds 1 --minutes 2.0"),
        ("--seed 7 --kills 3", "--seed 7 --seeds 1 --kills 3"),
        ("--seed 2 --minutes 0.5 --plant chunk-twice", "--seed 2 --seeds 1 --minutes 0.5 --plant chunk-twice"),
    ],
)
def test_a_violation_comes_with_the_command_that_runs_its_seed_again(
    arguments: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fail(test: FaultTest) -> None:
        msg = "Durable: all is lost"
        with test.history:
            raise AssertionError(msg)

    monkeypatch.setattr(FaultTest, "run", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run.main(arguments.split()) == 1
    said = capsys.readouterr().err
    assert f"python -m fault.run {command}\n" in said
