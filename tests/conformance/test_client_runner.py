"""The runner of client conformance: what becomes of a case that cannot be judged, and of those beside it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from turnwire.testing.v1.client_conformance_pb2 import ClientCase
from turnwire_conformance.client.case_file import Case, load_cases
from turnwire_conformance.client.runner import run_cases
from turnwire_conformance.report import Outcome

PYTHON_SDK = [sys.executable, str(Path(__file__).resolve().parent / "adapters" / "python_sdk.py")]
SESSIONS = next(case for case in load_cases() if case.full_name == "listing/sessions")
LIST: dict[str, Any] = {"command": {"list": {"sessions": {}}}}

# Says nothing of what it did, and has no listings.
LACKING = """\
import json, sys
for line in sys.stdin:
    print('{"unsupported": "not yet"}' if "list" in json.loads(line) else "{}", flush=True)
"""


def seeded(name: str, *steps: dict[str, Any]) -> Case:
    return Case("seeded", ParseDict({"name": name, "steps": steps}, ClientCase()))


def run(command: list[str], *cases: Case) -> list[Outcome]:
    return asyncio.run(run_cases(cases, command))


def test_a_case_that_the_suite_cannot_run_has_failed_and_the_others_have_their_outcomes() -> None:
    no_sequences: dict[str, Any] = {**LIST, "expected": {"sequences": "1-x"}}
    outcomes = run(PYTHON_SDK, SESSIONS, seeded("wrong", no_sequences), SESSIONS)
    assert [outcome.status for outcome in outcomes] == ["passed", "failed", "passed"]
    assert outcomes[1].detail.startswith("the suite failed: ValueError(")


def test_what_was_wrong_before_something_is_lacked_is_wrong() -> None:
    result = {"result": {"session_id": "session", "inference_id": "inference"}}
    wrong = {"command": result, "expected": {"state": "INFERENCE_STATE_SUCCEEDED"}}
    lacking, failing = run([sys.executable, "-c", LACKING], seeded("a", LIST), seeded("b", wrong, LIST))
    assert (lacking.status, lacking.detail) == ("skipped", "list is unsupported: not yet")
    assert (failing.status, failing.detail.partition(" is ")[0]) == ("failed", "step 1, result: the inference")
