"""`turnwire conformance`: the cases of the contract against a server."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import typer

from turnwire_client.cli import _failure
from turnwire_client.cli import _output as out
from turnwire_conformance import known_failing, report
from turnwire_conformance.case import load_own_runs
from turnwire_conformance.readiness import NotReadyError
from turnwire_conformance.runner import Target, UnreachableError, run_all

SUITE = "turnwire-conformance"


class Case(Protocol):
    """What the cases of both suites have."""

    @property
    def topic(self) -> str:
        """The file that it stands in."""
        ...

    @property
    def full_name(self) -> str:
        """The name that no other case has: `topic/name`."""
        ...

    @property
    def cites(self) -> Sequence[str]:
        """The sentences of the contract that it proves."""
        ...


C = TypeVar("C", bound=Case)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cases, and what to do with their outcomes. Empty `topics` and `cases` are all of them."""

    topics: Sequence[str] = ()
    cases: Sequence[str] = ()
    known_failing: Path | None = None
    junit: Path | None = None


def list_cases(wanted: Wanted, *, as_json: bool) -> None:
    """Shows the cases, by topic, and what each proves."""
    show_cases(choose(wanted, load_own_runs()), as_json=as_json)


def prove(target: Target, wanted: Wanted, *, as_json: bool) -> None:
    """Runs the cases, shows what came of them, and exits.

    0 if the contract is kept; 1 if it is not, or if no case was run; 2 for an arrangement that no case is for, or a
    profile that takes no scripts; 3 if nobody listens.
    """
    runs = choose(wanted, load_own_runs())
    _check_arrangement(target.arrangement)
    known = known_failures(wanted, load_own_runs())

    def tell(outcome: report.Outcome) -> None:
        judged = known_failing.judge(outcome, known)
        if not as_json and judged.status in report.BAD:
            out.print_line(f"{judged.status}: {judged.topic}/{judged.name}", "red")

    try:
        outcomes = asyncio.run(run_all(target, runs, tell))
    except UnreachableError as error:
        _exit(_failure.UNREACHABLE, "UNAVAILABLE", str(error), as_json=as_json)
    except NotReadyError as error:
        _exit(_failure.USAGE, "FAILED_PRECONDITION", str(error), as_json=as_json)
    judged = [known_failing.judge(outcome, known) for outcome in outcomes]
    if wanted.junit:
        report.write_junit(wanted.junit, SUITE, judged)
    if as_json:
        out.print_json(report.as_json(SUITE, judged))
    else:
        out.print_line(report.table(judged))
    if not report.is_any_run(judged):
        typer.echo(f"no case was run: {judged[0].detail}", err=True)
        raise typer.Exit(_failure.REFUSED)
    raise typer.Exit(0 if report.is_good(judged) else _failure.REFUSED)


def _exit(status: int, code: str, message: str, *, as_json: bool) -> NoReturn:
    if as_json:
        _failure.print_error(code, message)
    else:
        typer.echo(message, err=True)
    raise typer.Exit(status)


def _check_arrangement(name: str) -> None:
    named = sorted({run.arrangement for run in load_own_runs()} - {""})
    if name and name not in named:
        raise typer.BadParameter(f"no case is for the arrangement {name}; there are {', '.join(named)}")


def show_cases(cases: Sequence[Case], *, as_json: bool) -> None:
    """Shows cases, with what each proves."""
    if as_json:
        out.print_json({"cases": [{"case": case.full_name, "cites": list(case.cites)} for case in cases]})
        return
    for case in cases:
        out.print_line(case.full_name)
        for sentence in case.cites:
            out.print_line(f"    {sentence}", "dim")


def choose(wanted: Wanted, cases: Sequence[C]) -> list[C]:
    """Returns the cases that are wanted. It is wrong usage to want a topic that there is not, or no case at all."""
    if strangers := set(wanted.topics) - {case.topic for case in cases}:
        raise typer.BadParameter(
            f"no topic {', '.join(sorted(strangers))}; there are {', '.join(sorted({case.topic for case in cases}))}"
        )
    chosen = [
        case
        for case in cases
        if (not wanted.topics or case.topic in wanted.topics)
        and (not wanted.cases or any(text in case.full_name for text in wanted.cases))
    ]
    if not chosen:
        raise typer.BadParameter("no case has such a name; --list shows them all")
    return chosen


def known_failures(wanted: Wanted, cases: Sequence[Case]) -> dict[str, str]:
    """Returns why each of the cases fails that are known to. A list that is wrong is wrong usage."""
    if wanted.known_failing is None:
        return {}
    try:
        known = known_failing.load(wanted.known_failing)
        known_failing.check_names(known, [case.full_name for case in cases])
    except (OSError, known_failing.KnownFailingError) as error:
        raise typer.BadParameter(str(error)) from None
    return known
