"""Whether the conformance suites prove what the contract says: what they cite, what not, and what no violation breaks.

A citation is an element and the beginning of one of its statements (support.statements). What cannot be cited, or
cannot be broken, stands in a list with the reason:

    turnwire.v1.ErrorReason.ERROR_REASON_QUOTA_EXCEEDED: A quota of the principal is used up.
        No profile of a server that is set up by default has a quota.

For those who write cases, `python -m support.citations` prints what is cited and no statement, what has to be cited and
is not, and what is cited and has no violation; with words, only what has one of them in it, such as a name of an rpc.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.proto_docs import ROOT
from support.statements import Statement, contract_statements, normative, plain
from turnwire_conformance.case import load_own_runs
from turnwire_conformance.client.case_file import load_cases

SUITE = ROOT / "tests" / "conformance"

UNCITED = SUITE / "uncited.txt"
"""What has to be proved and is not cited, with the reasons."""

UNPLANTED = SUITE / "unplanted.txt"
"""What is cited and no violation breaks, with the reasons."""

SAYS_LENGTH_MIN = 20
"""How many characters a citation has at least, unless it is the whole statement."""


@dataclass(frozen=True, slots=True, order=True)
class Cited:
    """An element, and the beginning of a statement about it."""

    element: str
    says: str

    def __str__(self) -> str:
        """As complaints name it."""
        return f"{self.element}: {self.says}"

    def statements(self, among: Sequence[Statement]) -> list[Statement]:
        """Return the statements that begin so; none for one that is no citation."""
        words = plain(self.says)
        return [each for each in among if each.element == self.element and each.text.startswith(words)]


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a list: what is left out, and why."""

    cited: Cited
    reason: str


class ListError(Exception):
    """A list that is not written as it has to be."""


def load_list(path: Path) -> list[Listed]:
    """Return the entries of a list. Errors: ListError."""
    found: list[Listed] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith(" ") and found:
            found[-1] = Listed(found[-1].cited, f"{found[-1].reason} {line.strip()}".strip())
            continue
        element, separator, says = line.partition(": ")
        if not separator:
            msg = f"{path.name}:{number}: an entry is `element: statement`, with its reason on the next line, indented"
            raise ListError(msg)
        found.append(Listed(Cited(element, says.strip()), ""))
    if silent := [str(each.cited) for each in found if not each.reason]:
        msg = f"{path.name} does not say why of {silent[0]}"
        raise ListError(msg)
    return found


@cache
def cited_by_server_cases() -> Sequence[Cited]:
    """Return what the cases for servers cite, each once."""
    return tuple(sorted({Cited(each.element, each.says) for run in load_own_runs() for each in run.proves}))


@cache
def cited_by_client_cases() -> Sequence[Cited]:
    """Return what the cases for clients cite, each once."""
    return tuple(sorted({Cited(each.element, each.says) for case in load_cases() for each in case.told.cites}))


def wrong(citations: Iterable[Cited], statements: Sequence[Statement], length_min: int = SAYS_LENGTH_MIN) -> list[str]:
    """Return what is cited and is no statement, or might be more than one, or tells a reader too little."""
    problems = ((each, _problem(each, each.statements(statements), length_min)) for each in citations)
    return [f"{problem}: {each}" for each, problem in problems if problem]


def _problem(cited: Cited, found: Sequence[Statement], length_min: int) -> str:
    match len(found):
        case 0:
            return "no such statement"
        case 1:
            words = plain(cited.says)
            is_whole = words == found[0].text
            return "" if is_whole or len(words) >= length_min else "too short a citation"
        case count:
            return f"{count} statements begin like this"


def unproved(due: Sequence[Statement], citations: Collection[Cited], listed: Sequence[Listed]) -> list[str]:
    """Return what has to be proved, and is neither cited nor listed; and what is listed and need not be."""
    cited = {statement for each in citations for statement in each.statements(due)}
    return [*_left(due, cited, listed, "not cited"), *_needless(due, cited, listed, "listed, and it is cited")]


def unplanted(cited: Sequence[Statement], broken: Collection[Cited], listed: Sequence[Listed]) -> list[str]:
    """Return what is cited and neither broken by a violation nor listed; and what is listed and need not be."""
    planted = {statement for each in broken for statement in each.statements(cited)}
    return [
        *_left(cited, planted, listed, "no violation"),
        *_needless(cited, planted, listed, "listed, and it is broken"),
    ]


def _left(
    due: Sequence[Statement], done: Collection[Statement], listed: Sequence[Listed], complaint: str
) -> Iterator[str]:
    excused = {statement for each in listed for statement in each.cited.statements(due)}
    yield from (f"{complaint}: {each}" for each in due if each not in done and each not in excused)


def _needless(
    due: Sequence[Statement], done: Collection[Statement], listed: Sequence[Listed], complaint: str
) -> Iterator[str]:
    for each in listed:
        found = each.cited.statements(due)
        if len(found) != 1:
            yield f"listed, and it is {'more than one' if found else 'none'} of those that have to be: {each.cited}"
        elif found[0] in done:
            yield f"{complaint}: {each.cited}"


def statements_cited(citations: Iterable[Cited]) -> list[Statement]:
    """Return the statements of the contract that are cited, in its order."""
    statements = contract_statements()
    cited = {statement for each in citations for statement in each.statements(statements)}
    return [each for each in statements if each in cited]


def problems() -> list[str]:
    """Return everything that is missing or wrong."""
    from violations.registry import all_violations  # it imports this module

    citations, of_clients = cited_by_server_cases(), cited_by_client_cases()
    broken = {cited for violation in all_violations() for cited in violation.breaks}
    return [
        *wrong({*citations, *of_clients}, contract_statements()),
        *wrong(broken, contract_statements(), length_min=1),
        *unproved(normative(), {*citations, *of_clients}, load_list(UNCITED)),
        *unplanted(statements_cited(citations), broken, load_list(UNPLANTED)),
    ]


def main(words: Sequence[str]) -> int:
    """Print what is missing."""
    found = [each for each in problems() if not words or any(word in each for word in words)]
    print("\n".join([*found, f"{len(found)} in all"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
