"""Each case is able to fail: defects are planted in the Python client, and found by the cases that they break."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from client_sentences import Sentence, bound, sentence
from turnwire_conformance.client.case_file import load_cases
from turnwire_conformance.client.runner import run_cases
from turnwire_conformance.report import table

ADAPTERS = Path(__file__).resolve().parent / "adapters"
PLANTED = [sys.executable, str(ADAPTERS / "planted.py")]

# The sentences of the contract that each defect breaks, and the cases that it has to fail.
PLANTS: dict[str, dict[str, Any]] = yaml.safe_load((ADAPTERS / "plants.yaml").read_text(encoding="utf-8"))
CASES = {case.full_name: case for case in load_cases()}

# Some defects wait for ever; no case takes a client that has none so long.
ANSWER_SECONDS_MAX = 8.0


def test_all_defects_are_listed() -> None:
    planted = subprocess.run([*PLANTED, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert planted == list(PLANTS)


def broken(plant: str) -> set[Sentence]:
    return {sentence(told["element"], told["says"]) for told in PLANTS[plant]["breaks"]}


# What is proved: that a case fails for a defect that breaks what it cites.
PROVED = {(name, sentence) for plant in PLANTS for name in PLANTS[plant]["fails"] for sentence in broken(plant)}


def test_every_must_and_should_that_binds_clients_is_broken_by_a_defect() -> None:
    assert bound() - {sentence for _, sentence in PROVED} == set()


def test_every_citation_of_every_case_is_proved_by_a_defect() -> None:
    cited = {(name, sentence(each.element, each.says)) for name, case in CASES.items() for each in case.told.cites}
    assert cited - PROVED == set()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", PLANTS)
def test_a_defect_is_found_by_the_cases_that_cite_what_it_breaks(plant: str) -> None:
    cases = [CASES[name] for name in PLANTS[plant]["fails"]]
    running = run_cases(cases, [*PLANTED, plant], jobs=2, answer_seconds_max=ANSWER_SECONDS_MAX)
    outcomes = asyncio.run(running)
    assert [outcome.name for outcome in outcomes if outcome.status != "failed"] == [], table(outcomes)
    assert broken(plant) <= {sentence(cited.element, cited.says) for case in cases for cited in case.told.cites}
