"""The field rules: requests that break one, with the field and the rule that are named; and requests on the edge."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from turnwire.testing.v1 import script_pb2
from turnwire.v1 import debug_service_pb2 as debug
from turnwire.v1 import engine_service_pb2 as engine
from turnwire.v1 import inference_service_pb2 as inference
from turnwire.v1 import session_service_pb2 as session
from turnwire.v1 import tool_pb2 as tool
from turnwire.v1 import turn_pb2 as turn
from turnwire.v1.inference_pb2 import InferenceConfig, Overrides
from turnwire.v1.session_pb2 import NewSession
from turnwire_server.domain.errors import InvalidFieldError
from turnwire_server.wire.rules import check_rules, rule_violations

KIB = 1024
MIB = 1024 * KIB
USER = turn.Block(user=turn.UserBlock(text="hello"))
BEGINNING = inference.FromBeginning()


def start(**fields: Any) -> inference.StartInferenceRequest:
    if "new_session" not in fields:
        fields = {"session_id": "s"} | fields
    return inference.StartInferenceRequest(**fields)


def config(**fields: Any) -> inference.StartInferenceRequest:
    return start(overrides=Overrides(config=InferenceConfig(**fields)))


def new_session(**fields: Any) -> session.CreateSessionRequest:
    return session.CreateSessionRequest(session=NewSession(**fields))


def block(**fields: Any) -> inference.StartInferenceRequest:
    return start(input=[USER, turn.Block(**fields)])


def image(**fields: Any) -> inference.StartInferenceRequest:
    return start(input=[turn.Block(user=turn.UserBlock(images=[turn.Image(**fields)]))])


def outcome(**fields: Any) -> inference.SubmitToolResultsRequest:
    return inference.SubmitToolResultsRequest(inference_id="i", outcomes=[tool.ToolOutcome(**fields)])


def subscribe(**fields: Any) -> inference.SubscribeEventsRequest:
    return inference.SubscribeEventsRequest(**({"session_id": "s"} | fields))


# The request, the field that is named, the rule.
BROKEN: list[tuple[Message, str, str]] = [
    (inference.StartInferenceRequest(), "target", "required"),
    (start(session_id=""), "session_id", "string.pattern"),
    (start(session_id="a b"), "session_id", "string.pattern"),
    (start(session_id="s\n"), "session_id", "string.pattern"),
    (start(session_id="ü"), "session_id", "string.pattern"),
    (start(session_id="s" * 129), "session_id", "string.pattern"),
    (start(new_session=NewSession(session_id="a/b")), "new_session.session_id", "string.pattern"),
    (start(new_session=NewSession(labels={"a b": ""})), 'new_session.labels["a b"]', "string.pattern"),
    (start(input=[USER] * 1001), "input", "repeated.max_items"),
    (start(profile="p" * 129), "profile", "string.max_len"),
    (start(conflict_policy=9), "conflict_policy", "enum.defined_only"),
    (start(idempotency_key="k" * 129), "idempotency_key", "string.pattern"),
    (start(idempotency_key="with space"), "idempotency_key", "string.pattern"),
    (start(timeout=Duration()), "timeout", "duration.gt_lte"),
    (start(timeout=Duration(seconds=-1)), "timeout", "duration.gt_lte"),
    (start(timeout=Duration(seconds=30 * 86400, nanos=1)), "timeout", "duration.gt_lte"),
    (start(attempts_max=0), "attempts_max", "uint32.gte_lte"),
    (start(attempts_max=11), "attempts_max", "uint32.gte_lte"),
    (start(metadata={"not_versioned": "1"}), 'metadata["not_versioned"]', "string.pattern"),
    (start(metadata={"a.b@v0": "1"}), 'metadata["a.b@v0"]', "string.pattern"),
    (start(data={"a.b@v1": "x" * (64 * KIB + 1)}), 'data["a.b@v1"]', "string.max_bytes"),
    (start(data={f"a.b{n}@v1": "1" for n in range(65)}), "data", "map.max_pairs"),
    (config(model="m" * 257), "overrides.config.model", "string.max_len"),
    (config(temperature=2.1), "overrides.config.temperature", "double.gte_lte"),
    (config(temperature=float("nan")), "overrides.config.temperature", "double.gte_lte"),
    (config(top_p=0), "overrides.config.top_p", "double.gt_lte"),
    (config(max_output_tokens=0), "overrides.config.max_output_tokens", "uint32.gte"),
    (config(stop_sequences=["x"] * 17), "overrides.config.stop_sequences", "repeated.max_items"),
    (config(stop_sequences=["x", ""]), "overrides.config.stop_sequences[1]", "string.min_len"),
    (config(reasoning_effort="extreme"), "overrides.config.reasoning_effort", "string.in"),
    (config(iterations_max=101), "overrides.config.iterations_max", "uint32.gte_lte"),
    (start(overrides=Overrides(tools=[tool.Tool(name="a b")])), "overrides.tools[0].name", "string.pattern"),
    (start(overrides=Overrides(engine_options="x" * (MIB + 1))), "overrides.engine_options", "string.max_bytes"),
    (block(id="i" * 257, user=USER.user), "input[1].id", "string.max_len"),
    (block(status=3, user=USER.user), "input[1].status", "enum.defined_only"),
    (block(metadata={"": "1"}, user=USER.user), 'input[1].metadata[""]', "string.pattern"),
    (block(metadata={"a.b": "1"}, user=USER.user), 'input[1].metadata["a.b"]', "string.pattern"),
    (block(user=turn.UserBlock(text="x" * (2 * MIB + 1))), "input[1].user.text", "string.max_bytes"),
    (block(user=turn.UserBlock(text="ü" * (MIB + 1))), "input[1].user.text", "string.max_bytes"),
    (block(user=turn.UserBlock(images=[turn.Image(url="a:b")] * 17)), "input[1].user.images", "repeated.max_items"),
    (block(tool_call=tool.ToolCall(name="n")), "input[1].tool_call.id", "string.min_len"),
    (block(tool_call=tool.ToolCall(id="c")), "input[1].tool_call.name", "string.min_len"),
    (block(tool_use=tool.ToolUse(tool_call="c")), "input[1].tool_use.outcome", "required"),
    (block(other=turn.OtherBlock()), "input[1].other.type", "string.min_len"),
    (image(), "input[0].user.images[0].source", "required"),
    (image(url=""), "input[0].user.images[0].url", "string.uri_empty"),
    (image(url="no/scheme"), "input[0].user.images[0].url", "string.uri"),
    (image(url="a:b", detail="blurred"), "input[0].user.images[0].detail", "string.in"),
    (image(content=b"x"), "input[0].user.images[0]", "image.content_media_type"),
    (inference.WaitRequest(), "inference_id", "string.pattern"),
    (inference.WaitRequest(inference_id="i", timeout=Duration(nanos=-1)), "timeout", "duration.gte"),
    (inference.WaitRequest(inference_id="i", until=9), "until", "enum.defined_only"),
    (inference.CancelRequest(), "target", "required"),
    (inference.CancelRequest(session_id="s", reason="r" * 1025), "reason", "string.max_len"),
    (subscribe(), "start", "required"),
    (subscribe(session_id="", from_beginning=BEGINNING), "session_id", "string.pattern"),
    (subscribe(from_beginning=BEGINNING, inference_id="a b"), "inference_id", "string.pattern"),
    (subscribe(from_beginning=BEGINNING, until=2), "", "subscribe.until_inference_end"),
    (
        subscribe(from_beginning=BEGINNING, cancel_after_disconnect=Duration()),
        "",
        "subscribe.cancel_after_disconnect",
    ),
    (inference.GetInferenceRequest(), "inference_id", "string.pattern"),
    (inference.ListInferencesRequest(session_id="s", states=[1, 99]), "states[1]", "enum.defined_only"),
    (inference.ListInferencesRequest(session_id="s", page_size=1001), "page_size", "uint32.lte"),
    (inference.ListEventsRequest(session_id="s", page_size=10001), "page_size", "uint32.lte"),
    (inference.ListEventsRequest(session_id="s", page_token="x" * 513), "page_token", "string.max_len"),
    (inference.SubmitToolResultsRequest(inference_id="i"), "outcomes", "repeated.min_items"),
    (outcome(tool_call="c"), "outcomes[0].outcome", "required"),
    (outcome(tool_call="", result="1"), "outcomes[0].tool_call", "string.min_len"),
    (new_session(display_name="n" * 257), "session.display_name", "string.max_len"),
    (new_session(labels={"k": "v" * 257}), 'session.labels["k"]', "string.max_bytes"),
    (new_session(ttl=Duration(nanos=999_999_999)), "session.ttl", "duration.gte_lte"),
    (session.UpdateSessionRequest(update_mask=FieldMask()), "session", "required"),
    (session.UpdateSessionRequest(session=session.SessionUpdate(session_id="s")), "update_mask", "required"),
    (session.ListSessionsRequest(labels={str(n): "" for n in range(17)}), "labels", "map.max_pairs"),
    (session.GetTurnRequest(), "target", "required"),
    (session.GetTurnRequest(at=session.TurnAt()), "at.session_id", "string.pattern"),
    (session.GetTurnRequest(inference_id="i", page_size=1001), "page_size", "uint32.lte"),
    (engine.GetProfileRequest(profile="p" * 129), "profile", "string.max_len"),
    (debug.SetStepModeRequest(session_id="s", deadline_action=2), "deadline_action", "enum.not_in"),
    (debug.ReleasePauseRequest(), "pause", "string.min_len"),
    (
        script_pb2.Script(calls=[script_pb2.ScriptedCall(steps=[script_pb2.ScriptedStep()])]),
        "calls[0].steps[0].kind",
        "required",
    ),
    (script_pb2.Script(pace=Duration(seconds=3601)), "pace", "duration.gte_lte"),
]

ALLOWED: list[Message] = [
    start(session_id="A-z0.9_:" + "s" * 120, input=[USER] * 1000, idempotency_key="!" + "~" * 127),
    start(new_session=NewSession()),
    start(timeout=Duration(seconds=30 * 86400), attempts_max=10),
    start(timeout=Duration(nanos=1), attempts_max=1),
    start(metadata={"geppetto.session_id@v1": "1"}, data={"a.b@v10": "x" * 64 * KIB}),
    start(input=[turn.Block()]),  # UNKNOWN_BLOCK_KIND, not INVALID_FIELD
    config(temperature=0, top_p=1, max_output_tokens=1, iterations_max=100, reasoning_effort="none", seed=-1),
    block(user=turn.UserBlock(text="ü" * MIB)),
    image(content=b"x", media_type="image/png"),
    image(url="u:" + "u" * 8190),
    inference.WaitRequest(inference_id="i", timeout=Duration()),
    inference.WaitRequest(inference_id="i", timeout=Duration(seconds=3600)),
    subscribe(after_sequence=0, until=2, inference_id="i", cancel_after_disconnect=Duration()),
    subscribe(live=inference.FromLive(), until=3),
    session.CreateSessionRequest(),
    session.GetTurnRequest(at=session.TurnAt(session_id="s", index=0)),
    outcome(tool_call="c", approved=tool.ToolApproval()),
    outcome(tool_call="c", result=""),
    debug.SetStepModeRequest(session_id="s", deadline_action=3),
]


@pytest.mark.parametrize(
    ("request_", "field", "rule"),
    [
        pytest.param(*row, id=f"{row[0].DESCRIPTOR.name}-{row[1]}-{row[2]}-{position}")
        for position, row in enumerate(BROKEN)
    ],
)
def test_broken_rule_is_named(request_: Message, field: str, rule: str) -> None:
    assert [(violation.field, violation.rule) for violation in rule_violations(request_)] == [(field, rule)]
    with pytest.raises(InvalidFieldError, match=f"^{field.split('[', maxsplit=1)[0]}"):
        check_rules(request_)


@pytest.mark.parametrize("request_", ALLOWED, ids=lambda each: each.DESCRIPTOR.name)
def test_edge_is_allowed(request_: Message) -> None:
    check_rules(request_)


def test_every_violation_is_named() -> None:
    request = start(session_id="", input=[turn.Block(tool_call=tool.ToolCall())], attempts_max=11)
    assert [violation.field for violation in rule_violations(request)] == [
        "session_id",
        "input[0].tool_call.id",
        "input[0].tool_call.name",
        "attempts_max",
    ]


def test_a_violation_says_what_is_wrong() -> None:
    (violation,) = rule_violations(start(attempts_max=11))
    assert violation.description == "must be greater than or equal to 1 and less than or equal to 10"
