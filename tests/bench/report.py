"""The report: report.json has every value, report.md the medians and the targets, and plots show what grows."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.bench_run import BenchRun
from bench.contenders import CONTENDERS
from bench.events import EVENT_BYTES
from bench.figures import Figures, Key
from bench.machine import PEERS_PYTHON, ROOT, describe
from bench.scale import FULL
from bench.scenarios import growth, memory, paced, resume, streams, unary
from bench.targets import TARGETS, growth_targets, paced_targets

# What is said of a scenario above its tables.
CLIENTS = {
    streams.NAME: "Flat out, inferences x watchers of each. Client: h2load, a connection per watcher.",
    paced.NAME: "Client: one Python process, one connection. Latency: from the making of an event to its receipt.",
    unary.NAME: "16 at a time. Client: h2load; for what is run to its end, and the echo beside it, the Python probe.",
    resume.NAME: "The first missed event: Python, an open connection. Replay and live: h2load, the same log.",
    growth.NAME: "SQLite at FULL; sequential calls from Python, medians; the columns are sizes.",
    memory.NAME: "Pss of the server process for one more of each.",
}


def write_report(bench: BenchRun, into: Path, scenarios: Sequence[str], seconds: float) -> None:
    """Write report.json and report.md, and the plots if the environment of the peers is there."""
    into.mkdir(parents=True, exist_ok=True)
    facts = {
        **describe(),
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "rounds": str(bench.rounds),
        "minutes": f"{seconds / 60:.1f}",
        "scenarios": ", ".join(scenarios),
        "event": f"{EVENT_BYTES} bytes encoded, 203 as a frame of a response",
    }
    content = {"facts": facts, "figures": _values(bench.figures), "failures": bench.figures.failures}
    (into / "report.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    plots = _draw(into, bench.figures)
    (into / "report.md").write_text("\n".join(_lines(bench, facts, plots)) + "\n", "utf-8")


def _values(figures: Figures) -> list[dict[str, object]]:
    return [
        {
            "scenario": key.scenario,
            "case": key.case,
            "contender": key.contender,
            "quantity": key.quantity,
            "median": figures.median(key),
            "rounds": {str(number): value for number, value in values.items()},
        }
        for key, values in figures.values.items()
    ]


def _draw(into: Path, figures: Figures) -> list[str]:
    """Have the plots drawn; return their names. matplotlib is in the environment of the peers."""
    if not PEERS_PYTHON.exists() or not any(key.scenario == growth.NAME for key in figures.values):
        return []
    command = (str(PEERS_PYTHON), "-m", "bench.plots", str(into / "report.json"), str(into))
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"bench: no plots: {done.stderr}", file=sys.stderr)
    return done.stdout.split()


def _lines(bench: BenchRun, facts: dict[str, str], plots: Sequence[str]) -> Iterator[str]:
    figures = bench.figures
    yield "# Benchmark report"
    yield ""
    yield "Written by `make bench`; README.md says how it measures. Medians over the rounds; ratios are medians of the"
    yield "ratios within a round. Absolute figures move with the machine: compare within a table."
    yield ""
    if bench.scale is not FULL:
        yield "**Tiny sizes: the figures mean nothing.**"
        yield ""
    yield from _table(("", ""), facts.items())
    yield ""
    yield from _table(("contender", "what it is"), CONTENDERS.items())
    yield from _targets(figures)
    for scenario in dict.fromkeys(key.scenario for key in figures.values):
        yield from ("", f"## {scenario}", "", CLIENTS[scenario])
        if scenario == growth.NAME:
            yield from _growth(figures, plots)
            continue
        for quantity in dict.fromkeys(key.quantity for key in figures.values if key.scenario == scenario):
            yield from _quantity(figures, scenario, quantity)
    if figures.failures:
        yield from ("", "## Not measured", "", *(f"- {failure}" for failure in figures.failures))


def _targets(figures: Figures) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    for target in (*TARGETS, *paced_targets(figures), *growth_targets(figures)):
        value = target.measure(figures)
        bound = f"{'at least' if target.is_at_least else 'at most'} {target.bound:.3g} {target.unit}"
        if value is None:
            rows.append((target.text, bound, "not measured", ""))
        else:
            rows.append((target.text, bound, f"{value:.3g} {target.unit}", "yes" if target.is_met(value) else "**no**"))
    yield from ("", "## Targets", "", "Of `full`: the durable log, synchronous FULL.", "")
    yield from _table(("what", "target", "measured", "met"), rows)


def _quantity(figures: Figures, scenario: str, quantity: str) -> Iterator[str]:
    contenders = list(figures.contenders(scenario, quantity))
    rows = [
        (case, *(_number(figures.median(Key(scenario, case, each, quantity))) for each in contenders))
        for case in figures.cases(scenario, quantity)
    ]
    yield ""
    yield from _table((quantity, *contenders), rows)


def _growth(figures: Figures, plots: Sequence[str]) -> Iterator[str]:
    """Yield a table per dimension: operations, and what they cost at each size."""
    quantities = dict.fromkeys(key.quantity for key in figures.values if key.scenario == growth.NAME)
    for dimension in dict.fromkeys(quantity.partition(": ")[0] for quantity in quantities):
        operations = [each for each in quantities if each.startswith(f"{dimension}: ")]
        sizes = list(dict.fromkeys(size for each in operations for size in figures.cases(growth.NAME, each)))
        rows = [
            (
                each.partition(": ")[2],
                *(_number(figures.median(Key(growth.NAME, s, growth.CONTENDER, each))) for s in sizes),
            )
            for each in operations
        ]
        yield ""
        yield from _table((f"{dimension}, ms", *(f"{int(size):,}" for size in sizes)), rows)
    for plot in plots:
        yield from ("", f"![{plot}]({plot})")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
