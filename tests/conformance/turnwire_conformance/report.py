"""What came of the cases: as a table for people, as JUnit XML for CI, as JSON for programs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.etree import ElementTree as ET

# `known failure` failed as its list says it does; `unexpected pass` is on that list and passed.
Status: TypeAlias = Literal["passed", "failed", "skipped", "known failure", "unexpected pass"]

# Where a case failed: in its steps, in what has to hold after them, because its time was over, because nobody listened
# any more, or because the case or the runner is wrong.
Place: TypeAlias = Literal["", "steps", "epilogue", "time", "connection", "case", "runner"]

# What makes a suite fail.
BAD: frozenset[Status] = frozenset({"failed", "unexpected pass"})

# What XML 1.0 cannot hold, however it is escaped.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case.

    `name` is unique within a suite; `topic` is the file that the case stands in. `detail` says why the status is what
    it is, and is empty for a case that passed. `cites` are the sentences of the contract that the case proves.
    `failed_in` says where it failed, as far as the suite knows.
    """

    name: str
    topic: str
    status: Status
    detail: str
    seconds: float
    cites: Sequence[str]
    failed_in: Place = ""

    def with_status(self, status: Status, detail: str) -> "Outcome":
        """Return this outcome with another status, and the reason for it."""
        return replace(self, status=status, detail=detail)


def is_good(outcomes: Sequence[Outcome]) -> bool:
    """Whether nothing failed that was not known to, and nothing passed that was known to fail."""
    return not any(outcome.status in BAD for outcome in outcomes)


def is_any_run(outcomes: Sequence[Outcome]) -> bool:
    """Whether a case was run: a suite that skips everything has proved nothing."""
    return any(outcome.status != "skipped" for outcome in outcomes)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line per topic with its counts, then what did not pass and why, then the sums."""
    topics = sorted({outcome.topic for outcome in outcomes})
    width = max((len(topic) for topic in topics), default=0)
    lines = [f"{topic:<{width}}  {_counts([each for each in outcomes if each.topic == topic])}" for topic in topics]
    for outcome in sorted(outcomes, key=lambda each: (each.topic, each.name)):
        if outcome.status != "passed":
            lines += ["", f"{outcome.status}: {outcome.topic}/{outcome.name}"]
            lines += [f"    {line}" for line in outcome.detail.splitlines()]
            if outcome.status == "failed":
                lines += [f"    cites: {sentence}" for sentence in outcome.cites]
    seconds = sum(outcome.seconds for outcome in outcomes)
    return "\n".join([*lines, "", f"{len(outcomes)} cases: {_counts(outcomes)}; {seconds:.1f} s in all cases"])


def as_json(suite_name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns `{"suite": ..., "counts": {status: number}, "outcomes": [...]}`; an outcome has the fields of Outcome."""
    counts = dict(Counter(outcome.status for outcome in outcomes))
    return {"suite": suite_name, "counts": counts, "outcomes": [asdict(outcome) for outcome in outcomes]}


def write_junit(path: Path, suite_name: str, outcomes: Sequence[Outcome]) -> None:
    """Writes JUnit XML: a testsuite of this name, a testcase per case, its topic as the classname.

    What is bad is a failure; a known failure counts as skipped, since CI shows that and goes on.
    """
    suite = ET.Element(
        "testsuite",
        name=suite_name,
        tests=str(len(outcomes)),
        failures=str(sum(outcome.status in BAD for outcome in outcomes)),
        skipped=str(sum(outcome.status in ("skipped", "known failure") for outcome in outcomes)),
        errors="0",
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )
    for outcome in outcomes:
        classname = f"{suite_name}.{outcome.topic}"
        case = ET.SubElement(suite, "testcase", classname=classname, name=outcome.name, time=f"{outcome.seconds:.3f}")
        if outcome.status != "passed":
            first, *_ = outcome.detail.splitlines() or [outcome.status]
            told = ET.SubElement(
                case, "failure" if outcome.status in BAD else "skipped", message=_xml(f"{outcome.status}: {first}")
            )
            told.text = _xml("\n".join([outcome.detail, *(f"cites: {sentence}" for sentence in outcome.cites)]))
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _counts(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    order: tuple[Status, ...] = ("passed", "failed", "unexpected pass", "known failure", "skipped")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "none"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
