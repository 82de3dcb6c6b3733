"""Runs the fault suite: servers are killed, paused, cut off and starved at random, and every promise is checked.

    python -m fault.run --seed 1 --minutes 3      or: make fault SEED=1 MINUTES=3

Longer runs take several seeds, one after the other. The first thing that does not hold ends the run.
"""

import argparse
import asyncio
import math
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from fault.conductor import FaultTest
from fault.ledger import Tally
from fault.plants import PLANTS
from fault.summary import summarize

# How long one seed is run when the time is for several.
SEED_MINUTES = 3.0


def _leaves(error: Exception) -> Iterator[Exception]:
    """Yield what an exception group is made of."""
    if isinstance(error, ExceptionGroup):
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(each)
    else:
        yield error


def run_seed(seed: int, options: argparse.Namespace, seconds: float | None) -> FaultTest | None:
    """Run one seed, and say what came of it; return the test, None if something did not hold."""
    folder = Path(tempfile.mkdtemp(prefix="turnwire-fault-"))
    test = FaultTest(folder, seed, kills=options.kills, seconds=seconds, plant=options.plant)
    try:
        asyncio.run(test.run())
    except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the promises are not proved
        found = list(_leaves(error))
        print(summarize(test.stage.tally, test.figures(), violations=len(found)), flush=True)
        print(f"\nthe last lines of the server's log:\n{test.log_tail()}", file=sys.stderr)
        for violation in found:
            traceback.print_exception(violation)
        print(f"\nVIOLATION in round {test.round}; history and store are in {folder}; to reproduce:", file=sys.stderr)
        print(f"  {reproduction(seed, options, seconds)}", file=sys.stderr)
        return None
    figures = ", ".join(f"{name} {text}" for name, text in test.figures().items())
    done = f"{test.kill_count} kills, {test.stage.tally.outcomes.total():,} inferences"
    print(f"seed {seed}: {done}, {figures}", flush=True)
    shutil.rmtree(folder)
    return test


def reproduction(seed: int, options: argparse.Namespace, seconds: float | None) -> str:
    """Return the command that runs one seed again as it was run."""
    given = {"seed": seed, "seeds": 1, "minutes": None if seconds is None else math.ceil(seconds / 6) / 10}
    chosen = {**given, "kills": options.kills, "plant": options.plant or None}
    told = " ".join(f"--{name} {value}" for name, value in chosen.items() if value is not None)
    return f"PYTHONPATH=tests:tests/conformance python -m fault.run {told}"


def _positive(text: str) -> float:
    if (number := float(text)) <= 0:
        msg = f"{text} runs nothing"
        raise argparse.ArgumentTypeError(msg)
    return number


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fault.run", description="Tries to break every promise.")
    parser.add_argument("--seed", type=int, default=1, help="what decides on everything but timing (default: 1)")
    parser.add_argument("--seeds", type=_count, help="how many seeds, from that one on (default: one per 3 minutes)")
    parser.add_argument("--minutes", type=_positive, help="how long, all in all (default: 3, unless --kills is given)")
    parser.add_argument("--kills", type=_count, help="how many servers to kill with each seed (default: any number)")
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help="a bug to plant into the server")
    options = parser.parse_args(arguments)
    if options.minutes is None and options.kills is None:
        options.minutes = SEED_MINUTES
    seeds = options.seeds or max(1, round((options.minutes or 0) / SEED_MINUTES))
    began, total = time.monotonic(), Tally()
    for number in range(seeds):
        left = None if options.minutes is None else options.minutes * 60 - (time.monotonic() - began)
        test = run_seed(options.seed + number, options, None if left is None else left / (seeds - number))
        if test is None:
            return 1
        for kept, counted in zip(total.all, test.stage.tally.all, strict=True):
            kept.update(counted)
    seconds = time.monotonic() - began
    rate = total.outcomes.total() / seconds
    figures = {"seeds": str(seeds), "minutes": f"{seconds / 60:.1f}", "inferences per second": f"{rate:.1f}"}
    print(summarize(total, figures, violations=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
