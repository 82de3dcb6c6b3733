"""Structured output on a provider's API in every dialect: the schema goes there, and the text is checked here."""

import json
from typing import Any

import grpc
import pytest

from support import aimock as mock
from support.live import FAILED, SUCCEEDED
from support.provided import Asked, Provided
from support.rpc import refusal, violations
from turnwire.v1 import inference_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTPUT_INVALID = 112
ANSWER: dict[str, Any] = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
SCHEMA = json.dumps(ANSWER)


def _native(asked: Asked) -> Any:
    """Return the schema where a dialect has a place for it."""
    body = asked.body
    match asked.dialect:
        case "openai-chat":
            return body.get("response_format", {}).get("json_schema", {}).get("schema")
        case "openai-responses":
            return body.get("text", {}).get("format", {}).get("schema")
        case "anthropic":
            return body.get("output_config", {}).get("format", {}).get("schema")
        case _:
            return body.get("generationConfig", {}).get("responseJsonSchema")


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_the_schema_reaches_the_provider_and_the_text_satisfies_it(
    provider_server: Provided, dialect: str
) -> None:
    desk = await provider_server.desk(dialect)
    ended = await desk.session.say(mock.STRUCTURED, schema=SCHEMA)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.text == mock.STRUCTURED_TEXT
    [asked] = desk.asked
    native = _native(asked)
    assert native
    assert native["properties"] == ANSWER["properties"]
    assert (native["type"], native["required"]) == ("object", ["answer"])
    following = await desk.session.say(mock.PLAIN)
    assert following.inference.state == SUCCEEDED, "the schema was for one turn"
    assert _native(desk.asked[-1]) is None


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_text_that_does_not_satisfy_is_sent_back_once(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    ended = await desk.session.say(mock.SLOPPY, schema=SCHEMA)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    said = [block.user.text or block.llm_text.text for block in ended.produced if not block.HasField("reasoning")]
    assert (said[0], said[2]) == (mock.SLOPPY_TEXT, mock.STRUCTURED_TEXT)
    assert '"forty-two" is not of type "integer"' in said[1]
    first, second = desk.asked
    assert "forty-two" not in first.text
    assert json.dumps(said[1], ensure_ascii=False) in second.text, "the model is told what is wrong"
    assert json.dumps(mock.SLOPPY_TEXT) in second.text, "after what it said"
    assert _native(first) == _native(second)
    [told] = ended.told("error")
    assert told.error.reason == OUTPUT_INVALID
    assert ended.inference.usage.input_tokens == 22
    assert [call.iteration for call in ended.told("engine_call_started")] == [1, 2]


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_text_that_never_satisfies_ends_it_and_stays(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    ended = await desk.session.say(mock.BABBLING, schema=SCHEMA)
    error = ended.inference.error
    assert (ended.inference.state, error.reason) == (FAILED, OUTPUT_INVALID)
    assert "JSON" in error.metadata["violation"]
    assert len(desk.asked) == 2, "one repair, and no more"
    texts = [block.llm_text.text for block in ended.produced if block.HasField("llm_text")]
    assert texts == [mock.BABBLING_TEXT] * 2
    assert (await desk.session.say(mock.PLAIN, parent=ended.inference.turn_index)).text == mock.PLAIN_TEXT


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_only_the_last_text_of_a_tool_loop_has_to_satisfy(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect, "tools")
    ended = await desk.session.say(mock.TOOLS, schema='{"type": "object"}')
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, OUTPUT_INVALID)
    [first] = [event.error.metadata["violation"] for event in ended.told("error")]
    assert "JSON" in first
    assert len(ended.told("tool_result")) == 2, "tools were executed before, although their text was no JSON"
    if dialect == "google":
        assert [_native(asked) for asked in desk.asked] == [None] * 3, "Gemini before 3 takes tools or a schema"


# What a provider would refuse, or would take for something else than it is, is checked here alone.
EVERYTHING, OBJECTS = mock.DIALECTS, ("openai-chat", "openai-responses", "google")
SCHEMAS: list[tuple[object, tuple[str, ...]]] = [
    ({**ANSWER, "properties": {**ANSWER["properties"], "why": {"type": "string"}}}, EVERYTHING),
    ({**ANSWER, "additionalProperties": False}, EVERYTHING),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, OBJECTS),
    ({"type": "object", "properties": {"answer": {"type": "integer"}, "more": {"type": "object"}}}, OBJECTS),
    ({"type": "object", "properties": {"answer": {}}, "required": ["answer"]}, OBJECTS),
    ({"oneOf": [ANSWER, {"type": "string"}]}, ("google",)),
    ({"type": ["object", "null"]}, ("google",)),
    (True, ()),
    ({}, ()),
]


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_every_schema_is_checked_whether_the_provider_can_hold_to_it_or_not(
    provider_server: Provided, dialect: str
) -> None:
    desk = await provider_server.desk(dialect)
    for schema, dialects in SCHEMAS:
        ended = await desk.session.say(mock.STRUCTURED, schema=json.dumps(schema))
        assert ended.inference.state == SUCCEEDED, (schema, ended.inference.error)
        native = _native(desk.asked[-1])
        assert (native is not None) == (dialect in dialects), (schema, native)
        if isinstance(schema, dict) and native and "additionalProperties" not in schema:
            more = native.get("properties", {}).get("more", {})
            assert more.get("additionalProperties") is not False, "an open object was closed"


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "nothing"}',
        '{"type": "object", "properties": 7}',
        '{"$ref": "https://schemas.invalid/answer.json"}',
        '{"properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}',
        '{"$ref": "file:///etc/passwd"}',
        '{"$ref": "#/nowhere"}',
        "not JSON",
        "7",
    ],
)
async def test_a_schema_that_cannot_be_used_is_refused_before_anything_begins(
    provider_server: Provided, schema: str
) -> None:
    session = await provider_server.server.session("openai-chat")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.start(mock.STRUCTURED, schema=schema)
    assert refusal(caught.value)[:2] == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert set(violations(caught.value)) == {"overrides.output_schema"}
    listed = await session.stubs.inference.ListInferences(pb.ListInferencesRequest(session_id=session.session_id))
    assert list(listed.inferences) == []
    assert await session.log() == []
