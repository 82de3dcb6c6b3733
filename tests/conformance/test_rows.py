"""What the rows of a case stand for: numbers as they were written, names of rpcs, and reasons."""

from pathlib import Path
from typing import Any, cast

import pytest

from turnwire.testing.v1.conformance_pb2 import Refusal
from turnwire_conformance.case import load_runs
from turnwire_conformance.rpcs import Refused
from turnwire_conformance.stage import Stage, check_refusal
from turnwire_conformance.values import CaseError

SUITE = """
topic: rows
cases:
  - name: a-row
    proves: [{element: turnwire.v1.InferenceService.Wait, says: It holds}]
    arrangement: small
    rows:
      - {row: one, number: 1, share: 0.5, list: [2, {three: 3}], rpc: InferenceService.Wait}
      - {row: another one, number: 4294967295, rpc: InferenceService.Cancel}
    steps:
      - call: {rpc: $rpc}
"""


def test_numbers_of_a_row_are_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "rows.yaml").write_text(SUITE, encoding="utf-8")
    first, second = load_runs(cast("Any", tmp_path))
    assert str(first.row["number"]) == "1"
    assert first.row["share"] == 0.5
    assert str(first.row["list"]) == "[2, {'three': 3}]"
    assert second.name == "a-row[another-one]"
    assert str(second.row["number"]) == "4294967295"


def test_the_values_of_a_row_name_it_in_the_order_of_their_names(tmp_path: Path) -> None:
    rows = "rows:\n      - {b: 2, a: one, c: 0.5}\n"
    head, tail = SUITE.partition("    rows:")[0], SUITE[SUITE.index("    steps:") :]
    (tmp_path / "rows.yaml").write_text(f"{head}    {rows}{tail}", encoding="utf-8")
    assert [run.name for run in load_runs(cast("Any", tmp_path))] == ["a-row[one-2-0.5]"]


@pytest.mark.parametrize("value", ["[1]", "{a: 1}"])
def test_a_value_that_is_no_scalar_names_no_row(tmp_path: Path, value: str) -> None:
    (tmp_path / "rows.yaml").write_text(SUITE.replace("{row: another one", f"{{other: {value}"), encoding="utf-8")
    with pytest.raises(CaseError, match="needs a `row`"):
        load_runs(cast("Any", tmp_path))


def test_a_row_names_the_reason() -> None:
    stage = Stage("", cast("Any", None), {"reason": "SESSION_BUSY"})
    found = Refused("ABORTED", "", "SESSION_BUSY", "turnwire", {"session_id": "s", "inference_id": "i"})
    check_refusal(stage, found, Refusal(reason="$reason"))
    stage.variables["reason"] = "SESSION_NOT_FOUND"
    with pytest.raises(AssertionError, match="should be with SESSION_NOT_FOUND"):
        check_refusal(stage, found, Refusal(reason="$reason"))
