"""Runs the benchmark and writes its report.

    python -m bench.run [--scenarios streams,paced] [--rounds 5] [--into docs/bench]      or: make bench

Exit code 1 when something could not be measured; the report says what.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.bench_run import BenchRun
from bench.machine import ROOT, make_scratch, missing_h2load, missing_peers, take_load_core
from bench.report import write_report
from bench.scale import FULL, SMOKE, Scale
from bench.scenarios import growth, memory, paced, resume, streams, unary

# In the order in which they are run.
SCENARIOS: Mapping[str, Callable[[BenchRun], None]] = {
    module.NAME: module.run for module in (streams, paced, unary, resume, growth, memory)
}


def run_scenarios(names: Sequence[str], scale: Scale, rounds: int, folder: Path) -> BenchRun:
    """Run scenarios by their names; `folder` has the stores. It should be on the disk that the figures are about."""
    take_load_core()
    bench = BenchRun(folder, scale, rounds)
    for name in names:
        SCENARIOS[name](bench)
    return bench


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measures, side by side.")
    parser.add_argument("--scenarios", default="", help=f"of {','.join(SCENARIOS)}; all if nothing is said")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "bench", help="where the report goes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: the figures mean nothing")
    options = parser.parse_args(arguments)
    names = [each for each in options.scenarios.split(",") if each] or list(SCENARIOS)
    if unknown := sorted(set(names) - set(SCENARIOS)):
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    if missing := missing_h2load():
        print(f"bench: {missing}", file=sys.stderr)
        return 2
    if missing := missing_peers():
        print(f"bench: {missing}; a2a-sdk and SSE are left out", file=sys.stderr)
    began = time.monotonic()
    with make_scratch() as folder:
        bench = run_scenarios(names, SMOKE if options.smoke else FULL, options.rounds, Path(folder))
    write_report(bench, options.into, names, time.monotonic() - began)
    print(f"{options.into / 'report.md'}: {(time.monotonic() - began) / 60:.1f} minutes")
    for failure in bench.figures.failures:
        print(f"not measured: {failure}", file=sys.stderr)
    return 1 if bench.figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
