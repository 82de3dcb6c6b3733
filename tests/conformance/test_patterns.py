"""Each form of a pattern holds for what it says, and for nothing else."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1.inference_service_pb2 import ListInferencesResponse
from turnwire_conformance.patterns import MismatchError, check_pattern
from turnwire_conformance.values import CaseError

INFERENCE = inference_pb2.Inference(
    session_id="s",
    state=inference_pb2.INFERENCE_STATE_RUNNING,
    queue_position=0,
    create_time=Timestamp(seconds=5),
    usage=inference_pb2.Usage(input_tokens=3),
    cancel_reason='{"why": [1, 2]}',
)
LISTING = ListInferencesResponse(inferences=[inference_pb2.Inference(session_id=name) for name in "abc"])
TURN = turn_pb2.Turn(metadata={"a.b@v1": "1"})
VARIABLES = {"session": "s", "earlier": Timestamp(seconds=4), "usage": inference_pb2.Usage(input_tokens=3)}


Row = tuple[Any, Any, Any]

ROWS: list[Row] = [
    (INFERENCE, {"session_id": "$session"}, {"session_id": "${session}s"}),
    (INFERENCE, {"state": "RUNNING"}, {"state": "QUEUED"}),
    (INFERENCE, {"state": "INFERENCE_STATE_RUNNING"}, {"state": 1}),
    (INFERENCE, {"state": {"$not": "QUEUED"}}, {"state": {"$not": "RUNNING"}}),
    (INFERENCE, {"state": {"$any_of": ["QUEUED", "RUNNING"]}}, {"state": {"$any_of": ["QUEUED"]}}),
    (INFERENCE, {"queue_position": 0}, {"queue_position": {"$absent": True}}),
    (INFERENCE, {"queue_position": {"$present": True}}, {"turn_index": {"$present": True}}),
    (INFERENCE, {"turn_index": {"$absent": True}}, {"turn_index": 0}),
    (INFERENCE, {"start_time": {"$absent": True}}, {"start_time": {}}),
    (INFERENCE, {"attempt": 0}, {"attempt": 1}),
    (INFERENCE, {"model": ""}, {"model": {"$present": True}}),
    (INFERENCE, {"create_time": {"$gt": "$earlier"}}, {"create_time": {"$lt": "$earlier"}}),
    (INFERENCE, {"usage": {"$equals": "$usage"}}, {"usage": {"input_tokens": 4}}),
    (INFERENCE, {"usage": "$usage"}, {"usage": {"input_tokens": 3, "output_tokens": 1}}),
    (INFERENCE, {"cancel_reason": {"$json": {"why": [1, 2]}}}, {"cancel_reason": {"$json": {"why": [1]}}}),
    (INFERENCE, {"cancel_reason": {"$contains": "why"}}, {"cancel_reason": {"$contains": "how"}}),
    (INFERENCE, {"cancel_reason": {"$matches": "^..why"}}, {"cancel_reason": {"$matches": "^why"}}),
    (INFERENCE, {"cancel_reason": {"$size": 15}}, {"cancel_reason": {"$size": {"$gt": 15}}}),
    (INFERENCE, {"$all_of": [{"attempt": 0}, {"session_id": "s"}]}, {"$all_of": [{"attempt": 0}, {"attempt": 1}]}),
    (LISTING, {"inferences": [{}, {"session_id": "b"}, {}]}, {"inferences": [{}, {}]}),
    (LISTING.inferences, {"$size": 3}, {"$size": 2}),
    (LISTING.inferences, {"$each": {"attempt": 0}}, {"$each": {"session_id": "a"}}),
    (
        LISTING.inferences,
        {"$has": [{"session_id": "a"}, {"session_id": "c"}]},
        {"$has": [{"session_id": "c"}, {"session_id": "a"}]},
    ),
    (
        LISTING.inferences,
        {"$has_any_order": [{"session_id": "c"}, {"session_id": "a"}]},
        {"$has_any_order": [{"session_id": "c"}, {"session_id": "c"}]},
    ),
    (LISTING.inferences, {"$lacks": {"session_id": "d"}}, {"$lacks": {"session_id": "b"}}),
    (LISTING.inferences, {"$equals": list(LISTING.inferences)}, {"$equals": list(LISTING.inferences)[:2]}),
    (LISTING.inferences, {"$rising": "session_id"}, {"$size": 3, "$rising": "attempt", "$each": {"attempt": 1}}),
    ([1, 1, 3], {"$rising": ""}, {"$rising": "", "$size": 2}),
    (TURN, {"metadata": {"a.b@v1": "1"}}, {"metadata": {"a.b@v1": "2"}}),
    (TURN, {"metadata": {"c.d@v1": {"$absent": True}}}, {"metadata": {"c.d@v1": "1"}}),
    (Duration(seconds=2), {"$ge": "2s"}, {"$ge": "2.5s"}),
    (3, {"$le": 3}, {"$lt": 3}),
    (b"\x00\xff", {"$bytes": "00ff"}, {"$bytes": "00fe"}),
    (True, True, 1),
    (1, 1, True),
    ("3", 3, 4),
]


@pytest.mark.parametrize(("found", "pattern", "other"), ROWS)
def test_a_pattern_holds_for_what_it_says_and_not_for_another(found: Any, pattern: Any, other: Any) -> None:
    check_pattern(found, pattern, VARIABLES)
    with pytest.raises(MismatchError):
        check_pattern(found, other, VARIABLES)


@pytest.mark.parametrize(("found", "path"), [([1, 3, 2], ""), (LISTING.inferences[::-1], "session_id")])
def test_what_falls_does_not_rise(found: Any, path: str) -> None:
    with pytest.raises(MismatchError, match="in rising order"):
        check_pattern(found, {"$rising": path}, {})


def test_a_mismatch_says_where_what_and_what_was_due() -> None:
    with pytest.raises(MismatchError) as error:
        check_pattern(LISTING, {"inferences": [{}, {"session_id": "x"}, {}]}, {})
    assert str(error.value) == "inferences[1].session_id is b, and should be x"


@pytest.mark.parametrize("found", [None, 3, "x", b"x", [1, "x"], INFERENCE], ids=repr)
@pytest.mark.parametrize(
    "pattern",
    [
        {"$gt": "5s"},
        {"$le": "2026-01-01T00:00:00Z"},
        {"$size": 9},
        {"$contains": "z"},
        {"$matches": "z"},
        {"$equals": ["z"]},
        {"$has": ["z"]},
        {"$each": "z"},
        {"$rising": "z"},
        {"$json": "z"},
        {"$bytes": "00"},
        {"session_id": "z"},
    ],
    ids=str,
)
def test_a_value_of_another_kind_does_not_hold(found: Any, pattern: Any) -> None:
    with pytest.raises(MismatchError):
        check_pattern(found, pattern, {})


@pytest.mark.parametrize("pattern", [{"no_such_field": 1}, {"session_id": {"$like": 1}}, {"session_id": "$nobody"}])
def test_a_pattern_that_has_no_meaning_is_an_error_of_the_case(pattern: Any) -> None:
    with pytest.raises(CaseError):
        check_pattern(INFERENCE, pattern, {})
