"""The table start x until x inference of SubscribeEvents: complete, and in words that the contract has."""

import itertools

import pytest

from support.proto_docs import load_contract
from support.subscribe_table import FIRST_EVENTS, INFERENCES, Row, parse_table, subscribe_table
from turnwire.v1.inference_service_pb2 import SubscribeEventsRequest, SubscribeUntil, SubscriptionEndReason

COMMENT = load_contract().element("turnwire.v1.InferenceService.SubscribeEvents").comment

STARTS = [field.name for field in SubscribeEventsRequest.DESCRIPTOR.oneofs_by_name["start"].fields]
UNTILS = [name.removeprefix("SUBSCRIBE_UNTIL_") for name, number in SubscribeUntil.items() if number]
ENDS = ["never", "INVALID_FIELD"] + [
    name.removeprefix("SUBSCRIPTION_END_REASON_") for name, number in SubscriptionEndReason.items() if number
]


def problems(rows: list[Row]) -> list[str]:
    wanted = set(itertools.product(STARTS, UNTILS, INFERENCES))
    cases = [row.case for row in rows]
    found = [f"missing {case}" for case in wanted - set(cases)]
    found += [f"no such case {case}" for case in set(cases) - wanted]
    found += [f"twice {case}" for case in set(cases) if cases.count(case) > 1]
    found += [f"first event {row.first_event} in {row}" for row in rows if row.first_event not in FIRST_EVENTS]
    found += [f"end {row.end} in {row}" for row in rows if row.end not in ENDS]
    found += [
        f"an event of a refused stream in {row}"
        for row in rows
        if row.end == "INVALID_FIELD" and row.first_event != "-"
    ]
    return sorted(found)


def test_table_is_complete() -> None:
    assert problems(subscribe_table()) == []


def test_only_inference_end_without_an_inference_is_refused() -> None:
    refused = {row.case for row in subscribe_table() if row.end == "INVALID_FIELD"}
    assert refused == {(start, "INFERENCE_END", "none") for start in STARTS}


def test_follow_never_ends_by_itself() -> None:
    assert {row.end for row in subscribe_table() if row.until == "FOLLOW"} == {"never"}


def test_gate_for_rows_fails() -> None:
    rows = subscribe_table()
    assert problems(rows[1:]) == ["missing ('from_beginning', 'FOLLOW', 'none')"]
    assert problems([*rows, rows[0]]) == ["twice ('from_beginning', 'FOLLOW', 'none')"]
    assert problems([*rows, Row("yesterday", "FOLLOW", "none", "2", "soon")]) == [
        "end soon in yesterday-FOLLOW-none",
        "first event 2 in yesterday-FOLLOW-none",
        "no such case ('yesterday', 'FOLLOW', 'none')",
    ]


def test_gate_for_the_form_fails() -> None:
    with pytest.raises(ValueError, match="no table"):
        parse_table(" There is no table here.\n")
    with pytest.raises(ValueError, match="other columns"):
        parse_table(COMMENT + "   | from_beginning | FOLLOW |\n")
