"""`turnwire client-conformance`: the cases of the contract against an SDK, through its adapter."""

import asyncio
import shutil
from collections.abc import Sequence

import typer

from turnwire_client.cli import _failure
from turnwire_client.cli import _output as out
from turnwire_client.cli._conformance import Wanted, choose, known_failures, show_cases
from turnwire_conformance import known_failing, report
from turnwire_conformance.client.case_file import load_cases
from turnwire_conformance.client.runner import run_cases

SUITE = "client-conformance"


def list_cases(wanted: Wanted, *, as_json: bool) -> None:
    """Shows the cases, by topic, and what each proves."""
    show_cases(choose(wanted, load_cases()), as_json=as_json)


def prove(command: Sequence[str], wanted: Wanted, *, jobs: int, answer_seconds_max: float, as_json: bool) -> None:
    """Runs the cases, shows what came of them, and exits: 0 if the contract is kept, else 1.

    What the SDK lacks is a failure that has to be listed; where it lacks all that was asked for, nothing is proved.
    """
    cases = choose(wanted, load_cases())
    known = known_failures(wanted, load_cases())
    if not command:
        raise typer.BadParameter("say which adapter to run: -- COMMAND...")
    if shutil.which(command[0]) is None:
        raise typer.BadParameter(f"there is no program {command[0]}")

    def tell(outcome: report.Outcome) -> None:
        judged = known_failing.judge_lack(outcome, known)
        if not as_json and judged.status in report.BAD:
            out.print_line(f"{judged.status}: {judged.topic}/{judged.name}", "red")

    running = run_cases(cases, command, jobs=jobs, told=tell, answer_seconds_max=answer_seconds_max)
    judged = [known_failing.judge_lack(outcome, known) for outcome in asyncio.run(running)]
    if wanted.junit:
        report.write_junit(wanted.junit, SUITE, judged)
    if as_json:
        out.print_json(report.as_json(SUITE, judged))
    else:
        out.print_line(report.table(judged))
    is_proved = any(outcome.status != "skipped" for outcome in judged)
    raise typer.Exit(0 if is_proved and report.is_good(judged) else _failure.REFUSED)
