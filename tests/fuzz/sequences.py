"""Makes random sequences of calls on a real server, and holds it to the model of the contract.

`python -m fuzz.sequences --store sqlite --examples 500 --seed 1`, or `make sequences`. See machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.machine import Sequence
from fuzz.moves import Account
from fuzz.stage import FOLDER, Stage

# How many steps a sequence has. Left alone, Hypothesis makes most of them too short to get anywhere.
_STEPS_MIN, _STEPS_MAX = 25, 40


@dataclass
class SequenceSearch:
    """A search on one stage."""

    stage: Stage
    examples: int = 0
    account: Account = field(default_factory=Account)

    def run(self, examples: int, seed_number: int, *, shrinks: bool = True) -> bool:
        """Try sequences; return whether one failed. What is kept of it is the shortest one that was found."""

        search = self

        @seed(seed_number)
        class OnStage(Sequence):
            def __init__(self) -> None:
                search.examples += search.account.error is None
                super().__init__(search.stage, search.account)

        try:
            run_state_machine_as_test(
                OnStage,
                _min_steps=_STEPS_MIN,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=_STEPS_MAX,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
                    report_multiple_bugs=False,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                    verbosity=Verbosity.quiet,
                ),
            )
        except Exception:
            if self.account.error is None:  # else it is the failure, or that it did not come again
                raise
        return self.account.error is not None

    def report(self) -> str:
        """Return what is known of the sequence that failed."""
        log = ["the last lines of the server's log:", *self.stage.process.log[-8:]]
        return "\n".join(
            [f"sequence {self.examples} fails:", *self.account.failed, f"violation: {self.account.error}", *log]
        )


def main(arguments: Several[str] | None = None) -> int:
    """Search for long, and tell how it goes."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.sequences", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=("sqlite", "memory"), default="sqlite", help="(default: sqlite)")
    parser.add_argument("--examples", type=int, default=500, help="how many sequences to make (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="what decides on the steps (default: 1)")
    parser.add_argument("--batch", type=int, default=50, help="how many have one seed, which is 1 more for the next")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="turnwire-fuzz-", dir=FOLDER) as folder,
        Stage(Path(folder), options.store) as stage,
    ):
        search = SequenceSearch(stage)
        for number, first in enumerate(range(0, options.examples, options.batch)):
            count, seed_number = min(options.batch, options.examples - first), options.seed + number
            is_failed = search.run(count, seed_number)
            seconds = time.monotonic() - begin
            told = f"{search.examples} sequences on {options.store}, {search.account.steps} steps in {seconds:.0f} s"
            print(f"{told}, seed {seed_number}", flush=True)
            if is_failed:
                print(search.report())
                print("VIOLATION; to reproduce:")
                again = "PYTHONPATH=tests:tests/conformance python -m fuzz.sequences"
                print(f"  {again} --store {options.store} --seed {seed_number} --examples {count}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
