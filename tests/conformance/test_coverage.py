"""The conformance suites prove all of the contract: every statement that binds is cited, and broken by a violation.

`python -m support.citations` prints what is missing.
"""

from pathlib import Path

import pytest

from support.citations import (
    UNCITED,
    UNPLANTED,
    Cited,
    Listed,
    ListError,
    cited_by_client_cases,
    cited_by_server_cases,
    load_list,
    statements_cited,
    unplanted,
    unproved,
    wrong,
)
from support.proto_docs import Reason, catalogue, load_contract
from support.statements import Statement, contract_statements, normative
from turnwire_conformance.case import load_own_runs
from turnwire_conformance.catalogue import REASONS
from turnwire_conformance.catalogue import Reason as Due
from violations.registry import RegistryError, all_violations, named
from violations.violation import violation

FIRST_TERMINAL_REASON = 100

CASES_MIN = 150


def catalogue_problems(reasons: dict[str, Reason], known: dict[str, Due]) -> list[str]:
    """What the runner knows of reasons otherwise than the contract says."""
    due = {
        name: Due(reason.code, reason.metadata, reason.retry == "after RetryInfo")
        for name, reason in reasons.items()
        if reason.number < FIRST_TERMINAL_REASON
    }
    return sorted(name for name in due.keys() | known.keys() if due.get(name) != known.get(name))


def test_every_citation_is_a_statement() -> None:
    found = wrong({*cited_by_server_cases(), *cited_by_client_cases()}, contract_statements())
    assert not found, "\n".join(found)


def test_every_statement_that_binds_is_cited() -> None:
    citations = {*cited_by_server_cases(), *cited_by_client_cases()}
    found = unproved(normative(), citations, load_list(UNCITED))
    assert not found, "\n".join(found)


def test_every_statement_that_is_cited_is_broken() -> None:
    broken = {cited for violation in all_violations() for cited in violation.breaks}
    left = unplanted(statements_cited(cited_by_server_cases()), broken, load_list(UNPLANTED))
    found = [*wrong(broken, contract_statements(), length_min=1), *left]
    assert not found, "\n".join(found)


def test_the_catalogue_is_that_of_the_contract() -> None:
    assert catalogue_problems(catalogue(load_contract()), dict(REASONS)) == []


def test_there_are_many_cases() -> None:
    names = {run.full_name.partition("[")[0] for run in load_own_runs()}
    assert len(names) >= CASES_MIN


# --- each of these can fail ---------------------------------------------------------------------------

FIRST = Statement("rpc", "turnwire.v1.Asks.Ask", "sentence", "Asks for something, and waits until it is there.")
SECOND = Statement("rpc", "turnwire.v1.Asks.Ask", "sentence", "Asks for something, and MUST NOT wait.")
THIRD = Statement("field", "turnwire.v1.Asks.text", "sentence", "A text.")
SEEDED = (FIRST, SECOND, THIRD)

IS_FIRST = Cited(FIRST.element, "Asks for something, and waits")


@pytest.mark.parametrize(
    ("cited", "complaint"),
    [
        (Cited(FIRST.element, "Asks for nothing"), "no such statement"),
        (Cited(THIRD.element, FIRST.text), "no such statement"),
        (Cited(FIRST.element, "Asks for something, and"), "2 statements begin like this"),
        (Cited(THIRD.element, "A te"), "too short a citation"),
    ],
)
def test_gate_for_citations_fails(cited: Cited, complaint: str) -> None:
    assert wrong([cited], SEEDED) == [f"{complaint}: {cited}"]


def test_a_whole_statement_is_no_short_citation() -> None:
    assert wrong([Cited(THIRD.element, "A text."), IS_FIRST], SEEDED) == []


def test_gate_for_what_binds_fails() -> None:
    listed = [Listed(Cited(THIRD.element, "A text."), "nobody can tell")]
    assert unproved(SEEDED, [IS_FIRST], listed) == [f"not cited: {SECOND}"]
    assert unproved(SEEDED, [IS_FIRST, Cited(SECOND.element, SECOND.text)], listed) == []


@pytest.mark.parametrize(
    ("cited", "complaint"),
    [
        (IS_FIRST, f"listed, and it is cited: {IS_FIRST}"),
        (Cited(FIRST.element, "Gone."), f"listed, and it is none of those that have to be: {FIRST.element}: Gone."),
        (
            Cited(FIRST.element, "Asks"),
            f"listed, and it is more than one of those that have to be: {FIRST.element}: Asks",
        ),
    ],
)
def test_gate_for_lists_fails(cited: Cited, complaint: str) -> None:
    citations = [Cited(each.element, each.text) for each in SEEDED]
    assert unproved(SEEDED, citations, [Listed(cited, "because")]) == [complaint]


def test_gate_for_violations_fails() -> None:
    cited = [FIRST, SECOND]
    assert unplanted(cited, [IS_FIRST], []) == [f"no violation: {SECOND}"]
    assert unplanted(cited, [IS_FIRST], [Listed(Cited(SECOND.element, SECOND.text), "because")]) == []
    assert unplanted([FIRST], [IS_FIRST], [Listed(IS_FIRST, "because")]) == [f"listed, and it is broken: {IS_FIRST}"]


def test_gate_for_the_catalogue_fails() -> None:
    reasons = catalogue(load_contract())
    known = {**REASONS, "QUEUE_FULL": Due("RESOURCE_EXHAUSTED"), "NEVER_HEARD_OF": Due("INTERNAL")}
    del known["DRAINING"]
    assert catalogue_problems(reasons, known) == ["DRAINING", "NEVER_HEARD_OF", "QUEUE_FULL"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("turnwire.v1.Asks.Ask\n    because\n", ":1: an entry is"),
        ("turnwire.v1.Asks.Ask: Asks.\n\n# a comment\n", "does not say why of turnwire.v1.Asks.Ask: Asks."),
    ],
)
def test_a_list_that_is_wrong_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ListError, match=complaint):
        load_list(path)


def test_a_list_has_reasons(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# a comment\n\nturnwire.v1.Asks.Ask: Asks.\n    Nobody asks,\n    and nobody will.\n")
    assert load_list(path) == [Listed(Cited("turnwire.v1.Asks.Ask", "Asks."), "Nobody asks, and nobody will.")]


def test_two_violations_of_one_name_are_refused() -> None:
    twice = violation("twice", (FIRST.element, FIRST.text))
    with pytest.raises(RegistryError, match="topic/twice"):
        named("topic", [twice, twice])
