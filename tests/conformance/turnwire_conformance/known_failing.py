"""The list of cases that are known to fail, and what becomes of an outcome that is on it.

A file has one case per line, `topic/name  why`; empty lines and lines that begin with `#` are not looked at.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from turnwire_conformance.report import Outcome


class KnownFailingError(Exception):
    """The list itself is wrong: a line has no reason, names a case twice, or names one that does not exist."""


def load(path: Path) -> dict[str, str]:
    """Return why each case fails, by `topic/name`.

    Raises KnownFailingError for a line without a reason and for a case that is listed twice; OSError.
    """
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        case, *why = line.split(maxsplit=1)
        if not why:
            raise KnownFailingError(f"{path}:{number}: say why {case} fails")
        if case in known:
            raise KnownFailingError(f"{path}:{number}: {case} is listed twice")
        known[case] = why[0].strip()
    return known


def check_names(known: Mapping[str, str], cases: Iterable[str]) -> None:
    """Raises KnownFailingError if a case is listed that is not among these, given as `topic/name`."""
    strangers = sorted(known.keys() - set(cases))
    if strangers:
        raise KnownFailingError(f"no such case: {', '.join(strangers)}")


def judge(outcome: Outcome, known: Mapping[str, str]) -> Outcome:
    """Return the outcome in the light of the list: a listed failure is known, a listed pass is unexpected.

    What is skipped stays skipped: nothing is known of it.
    """
    why = known.get(f"{outcome.topic}/{outcome.name}")
    if why is None:
        return outcome
    if outcome.status == "failed":
        return outcome.with_status("known failure", f"{why}\n{outcome.detail}")
    if outcome.status == "passed":
        return outcome.with_status("unexpected pass", f"it passes now; strike it off the list, which says: {why}")
    return outcome


def judge_lack(outcome: Outcome, known: Mapping[str, str]) -> Outcome:
    """Returns the outcome in the light of the list, where what is skipped is what an SDK lacks.

    It stays skipped if it is listed; else it has failed.
    """
    if outcome.status != "skipped":
        return judge(outcome, known)
    why = known.get(f"{outcome.topic}/{outcome.name}")
    if why is None:
        return outcome.with_status("failed", f"{outcome.detail}\nlist the case as known to fail if that is meant to be")
    return outcome.with_status("skipped", f"{why}\n{outcome.detail}")
