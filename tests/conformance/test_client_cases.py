"""The cases of client conformance: what they cite, and that the Python client passes them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from client_sentences import NOT_OURS, bound, contract_sentences, sentence, sentences_that_bind_clients
from turnwire_conformance.client.case_file import Case, CaseFileError, load_cases, parse_topic
from turnwire_conformance.client.runner import run_cases
from turnwire_conformance.report import table

ADAPTERS = Path(__file__).resolve().parent / "adapters"
CASES = load_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.full_name)
def test_each_case_cites_what_the_contract_says(case: Case) -> None:
    assert {sentence(cited.element, cited.says) for cited in case.told.cites} - contract_sentences() == set()


def test_every_must_and_should_that_binds_clients_is_cited() -> None:
    assert len(bound()) >= 16
    assert bound() - {sentence(cited.element, cited.says) for case in CASES for cited in case.told.cites} == set()


def test_what_is_said_not_to_bind_clients_is_still_there() -> None:
    assert set(NOT_OURS) <= {says for _, says in sentences_that_bind_clients()}


@pytest.mark.timeout(300)
def test_the_python_client_passes_all_cases() -> None:
    outcomes = asyncio.run(run_cases(CASES, [sys.executable, str(ADAPTERS / "python_sdk.py")], jobs=4))
    assert {outcome.status for outcome in outcomes} == {"passed"}, table(outcomes)


def test_an_adapter_is_small() -> None:
    assert len((ADAPTERS / "python_sdk.py").read_text().splitlines()) <= 200


CASE: dict[str, Any] = {"name": "a", "cites": [{"element": "e", "says": "s"}], "steps": [{}]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cases": [CASE | {"name": ""}]}, "a case needs a name, a citation and a step"),
    ({"cases": [CASE | {"cites": []}]}, "a needs a name, a citation and a step"),
    ({"cases": [CASE | {"steps": []}]}, "a needs a name, a citation and a step"),
    ({"cases": [CASE, CASE]}, "a comes twice"),
    ({"cases": [CASE | {"sean": []}]}, "no field named"),
    ({"cases": [CASE | {"faults": [{"rpc": "Weight", "hang": True}]}]}, "Weight is no rpc"),
    ({"cases": [CASE | {"steps": [{"expected": {"sequences": "1-x"}}]}]}, "1-x names no sequences"),
]


@pytest.mark.parametrize(("told", "complaint"), WRONG)
def test_a_file_that_is_wrong_is_refused(told: object, complaint: str) -> None:
    with pytest.raises(CaseFileError, match=complaint):
        parse_topic("seeded", json.dumps(told))
