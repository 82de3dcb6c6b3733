"""How a case writes a request down."""

import json
from typing import Any

import pytest

from turnwire.testing.v1.conformance_pb2 import Call
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1.inference_service_pb2 import ListInferencesRequest, StartInferenceRequest, WaitRequest
from turnwire.v1.session_service_pb2 import CreateSessionRequest
from turnwire_conformance.values import CaseError, Written, build, pick


def test_a_request_with_all_that_values_know() -> None:
    value = {
        "session_id": "$session",
        "conflict_policy": "ENQUEUE",
        "timeout": "2.5s",
        "attempts_max": 3,
        "metadata": {"a.b@v1": {"n": "$number"}},
        "input": {"$list": [{"user": {"text": "block ${n} of ${session}"}}, 2]},
        "overrides": {
            "engine_options": {"script": {"calls": [{"steps": [{"tool_call": {"args": {"$json_of": {"a": 1}}}}]}]}},
            "tools": [{"name": {"$times": ["ab", 3]}}],
        },
    }
    request = StartInferenceRequest()
    build(request, value, {"session": "s-1", "number": 7})
    assert (request.session_id, request.conflict_policy, request.attempts_max) == ("s-1", 2, 3)
    assert request.timeout.ToTimedelta().total_seconds() == 2.5
    assert json.loads(request.metadata["a.b@v1"]) == {"n": 7}
    assert [block.user.text for block in request.input] == ["block 0 of s-1", "block 1 of s-1"]
    script = json.loads(request.overrides.engine_options)["script"]
    assert script["calls"][0]["steps"][0]["tool_call"]["args"] == '{"a": 1}'
    assert request.overrides.tools[0].name == "ababab"


def test_what_a_row_says_is_put_in_where_it_is_used() -> None:
    row = {"what": Written({"session_id": "$session", "display_name": {"$times": ["x", 3]}})}
    request = CreateSessionRequest()
    build(request, {"session": "$what"}, {**row, "session": "s-1"})
    assert (request.session.session_id, request.session.display_name) == ("s-1", "xxx")


def test_a_number_is_its_json_text() -> None:
    built = build(CreateSessionRequest(), {"session": {"metadata": {"whole": 7, "part": 0.5}}}, {})
    assert pick(built, "session.metadata") == {"whole": "7", "part": "0.5"}


def test_messages_are_put_in_whole_and_what_nobody_knows_is_sent() -> None:
    block = turn_pb2.Block(id="b", user=turn_pb2.UserBlock(text="hi"))
    request = StartInferenceRequest()
    build(request, {"input": ["$block", {"$message": {"id": "c"}, "$append": "fa3e0100"}]}, {"block": block})
    assert request.input[0] == block
    assert request.input[1].id == "c"
    assert request.input[1].SerializeToString().endswith(bytes.fromhex("fa3e0100"))
    built = build(WaitRequest(), {"$bytes": "0a0178"}, {})
    assert built == WaitRequest(inference_id="x")


def test_lists_of_enums_sums_and_empty_messages() -> None:
    request = build(ListInferencesRequest(), {"states": ["QUEUED", 7], "page_size": {"$sum": ["$a", 1]}}, {"a": 4})
    assert request == ListInferencesRequest(
        states=[inference_pb2.INFERENCE_STATE_QUEUED, inference_pb2.INFERENCE_STATE_CANCELLED], page_size=5
    )
    created = CreateSessionRequest()
    build(created, {"session": {}}, {})
    assert created.HasField("session")


@pytest.mark.parametrize(
    "value",
    [
        {"session": "x"},
        {"session_id": "$nobody"},
        {"conflict_policy": "SOMETIMES"},
        {"input": "hello"},
        {"attempts_max": "many"},
        {"input": [{"$bytes": "zz"}]},
        "hello",
    ],
)
def test_a_value_that_has_no_meaning_is_an_error_of_the_case(value: Any) -> None:
    with pytest.raises(CaseError):
        build(StartInferenceRequest(), value, {})


def test_a_path_leads_through_fields_keys_and_indexes() -> None:
    call = Call(rpc="a", save={"x": "y"})
    assert pick({"calls": [call]}, "calls.0.save.x") == "y"
    assert pick(call, "") is call
    with pytest.raises(LookupError):
        pick(call, "save.z")
