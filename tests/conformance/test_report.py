"""What came of cases, as people, CI and programs are told; and the list of those that are known to fail."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from turnwire_conformance import known_failing
from turnwire_conformance.report import Outcome, Status, as_json, is_good, table, write_junit

PASSED = Outcome("a", "start", "passed", "", 0.25, ["It works."])
FAILED = Outcome("b", "start", "failed", "sequence 3 came twice\nafter 3", 1.0, ["A client MUST."])
SKIPPED = Outcome("c", "wait", "skipped", "not implemented", 0.0, [])


@pytest.mark.parametrize(
    ("status", "good"),
    [("passed", True), ("skipped", True), ("known failure", True), ("failed", False), ("unexpected pass", False)],
)
def test_what_makes_a_suite_fail(status: Status, good: bool) -> None:
    assert is_good([PASSED, PASSED.with_status(status, "because")]) is good


def test_the_table_has_counts_and_says_why_what_failed_failed() -> None:
    lines = table([PASSED, FAILED, SKIPPED]).splitlines()
    assert lines[:2] == ["start  1 passed, 1 failed", "wait   1 skipped"]
    assert lines[3:7] == [
        "failed: start/b",
        "    sequence 3 came twice",
        "    after 3",
        "    cites: A client MUST.",
    ]
    assert lines[-1] == "3 cases: 1 passed, 1 failed, 1 skipped; 1.2 s in all cases"


def test_json_has_everything() -> None:
    told = json.loads(json.dumps(as_json("suite", [PASSED, FAILED])))
    assert (told["suite"], told["counts"]) == ("suite", {"passed": 1, "failed": 1})
    assert told["outcomes"][1] == {
        "name": "b",
        "topic": "start",
        "status": "failed",
        "detail": "sequence 3 came twice\nafter 3",
        "seconds": 1.0,
        "cites": ["A client MUST."],
        "failed_in": "",
    }


def test_junit_counts_failures_and_holds_any_text(tmp_path: Path) -> None:
    odd = FAILED.with_status("failed", "a \x00 and a <b> & more")
    write_junit(tmp_path / "told.xml", "suite", [PASSED, odd, SKIPPED, FAILED.with_status("known failure", "why")])
    suite = ET.parse(tmp_path / "told.xml").getroot()
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["4", "1", "2"]
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"], ["skipped"]]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "failed: a \N{REPLACEMENT CHARACTER} and a <b> & more"


def test_a_listed_failure_is_known_and_a_listed_pass_is_unexpected(tmp_path: Path) -> None:
    listed = tmp_path / "known.txt"
    listed.write_text("# a comment\n\nstart/b  the heartbeat is late\nstart/a  it was broken\nwait/c  who knows\n")
    known = known_failing.load(listed)
    known_failing.check_names(known, ["start/a", "start/b", "wait/c", "wait/d"])
    judged = [known_failing.judge(outcome, known) for outcome in (PASSED, FAILED, SKIPPED)]
    assert [outcome.status for outcome in judged] == ["unexpected pass", "known failure", "skipped"]
    assert judged[1].detail.splitlines() == ["the heartbeat is late", "sequence 3 came twice", "after 3"]
    assert known_failing.judge(FAILED, {}) is FAILED


def test_what_an_sdk_lacks_has_to_be_listed() -> None:
    unlisted, listed = (known_failing.judge_lack(SKIPPED, known) for known in ({}, {"wait/c": "it cannot wait"}))
    assert (unlisted.status, listed.status) == ("failed", "skipped")
    assert unlisted.detail.startswith("not implemented\n")
    assert listed.detail.splitlines() == ["it cannot wait", "not implemented"]
    assert known_failing.judge_lack(PASSED, {"start/a": "it was broken"}).status == "unexpected pass"
    assert known_failing.judge_lack(FAILED, {}) is FAILED


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("start/a\n", ":1: say why start/a fails"), ("start/a x\nstart/a y\n", ":2: start/a is listed twice")],
)
def test_a_list_that_is_wrong_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    listed = tmp_path / "known.txt"
    listed.write_text(text)
    with pytest.raises(known_failing.KnownFailingError, match=complaint):
        known_failing.load(listed)


def test_a_case_that_does_not_exist_is_refused() -> None:
    with pytest.raises(known_failing.KnownFailingError, match="no such case: start/z"):
        known_failing.check_names({"start/z": "gone"}, ["start/a"])
