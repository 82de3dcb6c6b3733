"""The pydantic_ai engine without a provider: options, laziness, messages, output, failures."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping

import httpx2
import pytest
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
    UploadedFile,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.test import TestModel
from pydantic_ai.profiles import ModelProfile

from turnwire_server.domain.errors import (
    ContentRefusedError,
    EngineError,
    EngineOptionsInvalidError,
    EngineRateLimitedError,
    EngineRejectedError,
    EngineStreamBrokenError,
    EngineUnauthenticatedError,
    EngineUnavailableError,
)
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool, ToolCall, ToolError, ToolUse
from turnwire_server.domain.turn import Block, BlockKind, BlockStatus, Image, LlmText, Other, Reasoning, System, User
from turnwire_server.engines.base import EngineCall, EngineChunk, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.engines.pydantic_ai import PydanticAIEngine
from turnwire_server.engines.pydantic_ai.failures import engine_error
from turnwire_server.engines.pydantic_ai.messages import to_messages
from turnwire_server.engines.pydantic_ai.options import Dialect, Endpoint, parse_options
from turnwire_server.engines.pydantic_ai.output import Output
from turnwire_server.engines.pydantic_ai.settings import to_parameters
from turnwire_server.engines.pydantic_ai.upstream import connect

KEY = "sk-very-secret-key"


async def never(_: EngineChunk) -> None:
    raise AssertionError


# --- schemas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("true", {"type": "object"}),
        (" false ", {"type": "object", "not": {}}),
        ('{"type": "object"}', {"type": "object"}),
    ],
)
def test_boolean_schemas_are_told_as_objects(schema: str, told: Mapping[str, object]) -> None:
    model = TestModel(profile=ModelProfile(supports_json_schema_output=True))
    parameters = to_parameters(EngineCall("s", "i", 1, (), InferenceConfig(), (Tool("x", "", schema),), schema), model)
    assert parameters.function_tools[0].parameters_json_schema == told
    assert parameters.output_object is None  # no provider takes one that says nothing of what is in it


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "dialect must be one of openai-chat, openai-responses, anthropic, google, not ''"),
        ({"dialect": "cohere"}, "not 'cohere'"),
        ({"dialect": 1}, "dialect must be text"),
        ({"dialect": "google", "base_url": "ftp://x"}, "base_url"),
        ({"dialect": "google", "base_uri": "http://x"}, "unknown option 'base_uri'"),
        ({"dialect": "google", "idle_seconds_max": 0}, "idle_seconds_max"),
        ({"dialect": "google", "idle_seconds_max": True}, "idle_seconds_max"),
        ({"dialect": "google", "connect_seconds_max": "5"}, "connect_seconds_max"),
        ({"dialect": "google", "reasoning_summary": "long"}, "reasoning_summary"),
    ],
)
def test_options_that_are_not_understood(options: Mapping[str, object], problem: str) -> None:
    with pytest.raises(EngineOptionsInvalidError) as caught:
        parse_options(options)
    assert problem in str(caught.value)


def test_options() -> None:
    options = parse_options({"dialect": "anthropic", "base_url": "http://x/", "idle_seconds_max": 5})
    assert options.endpoint == Endpoint(Dialect.ANTHROPIC, "http://x")
    assert options.idle_seconds_max == 5


def test_keys_come_from_the_environment() -> None:
    environ = {"OPENAI_API_KEY": KEY, "MINE": "other"}
    assert Endpoint(Dialect.OPENAI_CHAT).api_key(environ) == KEY
    assert Endpoint(Dialect.OPENAI_CHAT, api_key_env="MINE").api_key(environ) == "other"
    assert Endpoint(Dialect.OPENAI_CHAT, "http://x", "MINE").api_key(environ) == "other"
    assert Endpoint(Dialect.OPENAI_CHAT, "http://x").api_key(environ) != KEY
    with pytest.raises(EngineUnauthenticatedError, match="GOOGLE_API_KEY or GEMINI_API_KEY is not set"):
        Endpoint(Dialect.GOOGLE).api_key(environ)
    with pytest.raises(EngineUnauthenticatedError, match="NOWHERE is not set"):
        Endpoint(Dialect.OPENAI_CHAT, "http://x", "NOWHERE").api_key(environ)


async def test_a_call_without_a_model_is_refused() -> None:
    engine = PydanticAIEngine()
    with pytest.raises(EngineOptionsInvalidError, match=r"config\.model"):
        await engine.run(EngineCall("s", "i", 1, (), options={"dialect": "google"}), never)
    await engine.aclose()


@pytest.mark.parametrize("own", [{"base_url": "http://evil"}, {"api_key_env": "HOME"}, {"dialect": "openai-chat"}])
async def test_a_request_cannot_choose_where_keys_go(own: Mapping[str, object]) -> None:
    profile = {"dialect": "anthropic", "base_url": "http://good", "api_key_env": "MINE"}
    engine = PydanticAIEngine([profile])
    call = EngineCall("s", "i", 1, (), InferenceConfig(model="m"), options={**profile, **own})
    with pytest.raises(EngineOptionsInvalidError, match="from its profile only"):
        await engine.run(call, never)
    await engine.aclose()


async def test_a_request_can_choose_what_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    profile = {"dialect": "anthropic", "base_url": "http://good", "api_key_env": "NOWHERE"}
    engine = PydanticAIEngine([profile])
    call = EngineCall("s", "i", 1, (), InferenceConfig(model="m"), options={**profile, "idle_seconds_max": 5})
    with pytest.raises(EngineUnauthenticatedError, match="NOWHERE is not set"):
        await engine.run(call, never)
    await engine.aclose()


def test_a_profile_that_is_not_understood() -> None:
    with pytest.raises(EngineOptionsInvalidError, match="dialect"):
        PydanticAIEngine([{}])


def test_importing_the_engine_imports_no_sdk() -> None:
    code = """
import sys
import turnwire_server.engines.pydantic_ai
heavy = {"pydantic_ai", "pydantic", "openai", "anthropic", "google.genai", "httpx2"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_a_missing_extra_says_what_to_install() -> None:
    code = """
import asyncio, sys
sys.modules["pydantic_ai"] = None
from turnwire_server.domain.errors import EngineOptionsInvalidError
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.engines.base import EngineCall
from turnwire_server.engines.pydantic_ai import PydanticAIEngine

call = EngineCall("s", "i", 1, (), InferenceConfig(model="m"), options={"dialect": "google", "base_url": "http://x"})
try:
    asyncio.run(PydanticAIEngine().run(call, None))
except EngineOptionsInvalidError as error:
    assert "pip install 'turnwire[pydantic-ai]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# --- messages -----------------------------------------------------------------------------------


def said(*kinds: BlockKind | Block, dialect: Dialect = Dialect.ANTHROPIC) -> list[ModelMessage]:
    blocks = [kind if isinstance(kind, Block) else Block(str(n), kind) for n, kind in enumerate(kinds)]
    return to_messages(blocks, dialect, "test")


def shape(messages: Iterable[ModelMessage]) -> list[list[str]]:
    return [[part.part_kind for part in message.parts] for message in messages]


def returned(messages: Iterable[ModelMessage]) -> list[tuple[str, object, str]]:
    parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    return [(part.tool_call_id, part.content, part.outcome) for part in parts]


def incomplete(kind: BlockKind) -> Block:
    return Block("x", kind, status=BlockStatus.INCOMPLETE)


def test_blocks_of_one_side_are_one_message() -> None:
    messages = said(
        System("be good"),
        User("hello"),
        User("you"),
        Reasoning("hm", signature="s"),
        LlmText("hi"),
        Other("foreign"),
        LlmText("there"),
        User("bye"),
    )
    assert shape(messages) == [
        ["system-prompt", "user-prompt", "user-prompt"],
        ["thinking", "text", "text"],
        ["user-prompt"],
    ]


def test_tool_results_stand_behind_their_calls() -> None:
    messages = said(
        User("go"),
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("b", "g"),
        User("meanwhile"),
        ToolUse("b", '"done"'),
        ToolUse("a", ToolError("broke", "timeout")),
        LlmText("ok"),
    )
    assert shape(messages) == [
        ["user-prompt"],
        ["tool-call", "tool-call"],
        ["tool-return", "tool-return", "user-prompt"],
        ["text"],
    ]
    assert returned(messages) == [("a", "timeout: broke", "failed"), ("b", "done", "success")]


def test_a_call_without_an_outcome_gets_an_error() -> None:
    assert returned(said(User("go"), ToolCall("a", "f"))) == [
        ("a", "unknown_outcome: the outcome of this call is unknown", "failed")
    ]


def test_an_outcome_without_a_call_is_left_out() -> None:
    assert shape(said(User("go"), ToolUse("a", "1"), LlmText("ok"))) == [["user-prompt"], ["text"]]


def test_ids_that_come_again_are_told_apart() -> None:
    turn = (ToolCall("call_1", "f"), ToolUse("call_1", '"first"'), LlmText("."))
    again = (User("again"), ToolCall("call_1", "f"), ToolUse("call_1", '"second"'))
    assert returned(said(User("go"), *turn, *again)) == [
        ("call_1", "first", "success"),
        ("call_1_2", "second", "success"),
    ]


def test_what_is_incomplete() -> None:
    messages = said(
        User("go"),
        incomplete(Reasoning("cut", signature="s")),
        incomplete(LlmText("partial")),
        incomplete(LlmText("")),
        incomplete(ToolCall("a", "f", '{"x')),
        ToolUse("a", ToolError("lost")),
        User("on"),
    )
    assert shape(messages) == [["user-prompt"], ["text"], ["user-prompt"]]


def test_reasoning_that_nothing_follows_is_left_out() -> None:
    messages = said(User("go"), Reasoning("hm", signature="s"), incomplete(LlmText("")), User("on"))
    assert shape(messages) == [["user-prompt", "user-prompt"]]


def test_arguments_that_are_no_object_are_not_sent() -> None:
    for args in ("", "[1]", '{"x', "null"):
        (_, response, _) = said(User("go"), ToolCall("a", "f", args), ToolUse("a", "1"))
        (call,) = response.parts
        assert isinstance(call, ToolCallPart)
        assert call.args == "{}"


@pytest.mark.parametrize(
    ("dialect", "result", "content"),
    [
        (Dialect.GOOGLE, '{"a": 1}', {"a": 1}),
        (Dialect.ANTHROPIC, '{"a": 1}', '{"a": 1}'),
        (Dialect.GOOGLE, "[1, 2]", "[1, 2]"),
        (Dialect.OPENAI_CHAT, "12345678901234567890", "12345678901234567890"),
        (Dialect.OPENAI_CHAT, '"text"', "text"),
        (Dialect.OPENAI_CHAT, "no json", "no json"),
    ],
)
def test_results(dialect: Dialect, result: str, content: object) -> None:
    assert returned(said(ToolCall("a", "f"), ToolUse("a", result), dialect=dialect)) == [("a", content, "success")]


REASONING = {
    "anthropic": Reasoning("t", signature="sig"),
    "redacted": Reasoning("", encrypted_content="data", item="redacted_thinking"),
    "google": Reasoning("t", encrypted_content="c2ln"),
    "openai-responses": Reasoning("t", encrypted_content="enc", item="rs_1"),
    "openai-chat": Reasoning("t", item="reasoning_content"),
    "plain": Reasoning("t"),
    "tags": Reasoning("t", item="content"),
}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("made_by", REASONING)
def test_reasoning_goes_back_only_to_who_made_it(dialect: Dialect, made_by: str) -> None:
    messages = said(REASONING[made_by], LlmText("ok"), dialect=dialect)
    goes = made_by == dialect.value or (made_by == "redacted" and dialect is Dialect.ANTHROPIC)
    assert shape(messages) == [["thinking", "text"] if goes else ["text"]]


def test_images() -> None:
    images = (Image(url="http://x/y.png", detail="low"), Image(content=b"p", media_type="image/png"), Image(file="f"))
    (message,) = said(User("look", images))
    (part,) = message.parts
    assert isinstance(part, UserPromptPart)
    kinds = [each if isinstance(each, str) else each.kind for each in part.content]
    assert kinds == ["look", "image-url", "binary", "uploaded-file"]
    assert shape(said(User(""), LlmText("x"))) == [["text"]]


@pytest.mark.parametrize("dialect", Dialect)
def test_an_image_says_what_a_dialect_has_a_word_for(dialect: Dialect) -> None:
    images = (
        Image(url="https://x/cat.webp?size=2", detail="low"),
        Image(url="https://x/cat", media_type="image/gif"),
        Image(content=b"p", media_type="image/png", detail="high"),
        Image(file="f.pdf"),
    )
    (message,) = said(User("", images), dialect=dialect)
    (part,) = message.parts
    assert isinstance(part, UserPromptPart)
    shown = [each for each in part.content if isinstance(each, ImageUrl | BinaryContent | UploadedFile)]
    assert [each.media_type for each in shown] == ["image/webp", "image/gif", "image/png", "image/png"]
    details = [each.vendor_metadata for each in shown]
    has_detail = dialect in {Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES}
    assert details == ([{"detail": "low"}, None, {"detail": "high"}, None] if has_detail else [None] * 4)
    # pydantic-ai would have this server read what Gemini is to read.
    assert isinstance(shown[0], UploadedFile) == (dialect is Dialect.GOOGLE)


# --- schemas ------------------------------------------------------------------------------------

CLOSED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FREE = {"type": "object", "properties": {"a": {"type": "object"}}, "required": ["a"]}
MODELS = {"openai-chat": "gpt-5-mini", "anthropic": "claude-sonnet-5-5", "google": "gemini-2.5-flash"}
ALL, NOT_ANTHROPIC, GEMINI = set(MODELS), {"openai-chat", "google"}, {"google"}


def parameters(dialect: str, schema: object, tool: object = None) -> ModelRequestParameters:
    model = connect(Endpoint(Dialect(dialect), "http://127.0.0.1:9")).model(MODELS[dialect])
    tools = (Tool("t", input_schema=json.dumps(tool)),) if tool else ()
    call = EngineCall("s", "i", 1, (), tools=tools, output_schema=json.dumps(schema) if schema is not None else "")
    return model.prepare_request(None, to_parameters(call, model))[1]


@pytest.mark.parametrize("dialect", MODELS)
@pytest.mark.parametrize(
    ("schema", "takes"),
    [
        (CLOSED, ALL),
        ({**CLOSED, "additionalProperties": False}, ALL),
        (FREE, NOT_ANTHROPIC),
        ({**CLOSED, "patternProperties": {"^x": {}}}, NOT_ANTHROPIC),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": ["object", "null"]}]}}}, NOT_ANTHROPIC),
        ({**CLOSED, "properties": {"a": {}}}, NOT_ANTHROPIC),
        ({"type": "array", "items": CLOSED}, GEMINI),
        ({"anyOf": [CLOSED]}, GEMINI),
        ({}, set[str]()),
        (True, set[str]()),
    ],
)
def test_an_output_schema_goes_where_it_stays_what_it_is(dialect: str, schema: object, takes: set[str]) -> None:
    output = parameters(dialect, schema).output_object
    assert (output is not None) == (dialect in takes)
    if output and schema is FREE:
        assert output.json_schema["properties"]["a"].get("additionalProperties") is not False


@pytest.mark.parametrize("dialect", MODELS)
def test_a_tool_may_take_whatever_its_schema_lets_it(dialect: str) -> None:
    (free,) = parameters(dialect, None, FREE).function_tools
    assert free.parameters_json_schema["properties"]["a"].get("additionalProperties") is not False
    (closed,) = parameters(dialect, None, CLOSED).function_tools
    assert closed.strict is (dialect != "anthropic"), "what can be strict is"


# --- output -------------------------------------------------------------------------------------


def chunks(*events: ModelResponseStreamEvent, dialect: Dialect = Dialect.OPENAI_CHAT) -> list[EngineChunk]:
    output = Output(dialect)
    taken = [chunk for event in events for chunk in output.take(event)]
    return [*taken, *output.finish()]


def text(index: int, content: str) -> PartDeltaEvent:
    return PartDeltaEvent(index=index, delta=TextPartDelta(content))


def args(index: int, delta: str | None, name: str | None = None) -> PartDeltaEvent:
    return PartDeltaEvent(index=index, delta=ToolCallPartDelta(tool_name_delta=name, args_delta=delta))


def test_text_ends_when_the_next_part_begins() -> None:
    assert chunks(
        PartStartEvent(index=0, part=ThinkingPart("a", id="reasoning")),
        PartDeltaEvent(index=0, delta=ThinkingPartDelta(content_delta="b")),
        PartEndEvent(index=0, part=ThinkingPart("ab")),
        PartStartEvent(index=1, part=TextPart("")),
        text(1, "c"),
        text(1, ""),
    ) == [
        PartStart(0, PartKind.THINKING),
        PartDelta(0, "a"),
        PartDelta(0, "b"),
        PartEnd(0, item="reasoning"),
        PartStart(1, PartKind.TEXT),
        PartDelta(1, "c"),
        PartEnd(1),
    ]


def test_tool_calls_interleave_and_start_with_whole_names() -> None:
    assert chunks(
        PartStartEvent(index=0, part=ToolCallPart("get_", None, tool_call_id="a")),
        args(0, None, "weather"),
        PartStartEvent(index=1, part=ToolCallPart("now", "", tool_call_id="pyd_ai_made_up")),
        args(1, "{"),
        args(0, '{"x"'),
        args(1, "}"),
        args(0, ":1}"),
    ) == [
        PartStart(0, PartKind.TOOL_CALL, "a", "get_weather"),
        PartStart(1, PartKind.TOOL_CALL, "", "now"),
        PartDelta(1, "{"),
        PartDelta(0, '{"x"'),
        PartDelta(1, "}"),
        PartDelta(0, ":1}"),
        PartEnd(0),
        PartEnd(1),
    ]


def test_a_tool_call_without_arguments_starts_all_the_same() -> None:
    assert chunks(PartStartEvent(index=0, part=ToolCallPart("now", None, tool_call_id="a"))) == [
        PartStart(0, PartKind.TOOL_CALL, "a", "now"),
        PartEnd(0),
    ]


def test_arguments_as_an_object_become_json() -> None:
    (_, delta, _) = chunks(PartStartEvent(index=0, part=ToolCallPart("f", {"city": "Zürich"}, tool_call_id="a")))
    assert delta == PartDelta(0, '{"city":"Zürich"}')


def test_text_that_goes_on_is_a_new_part() -> None:
    assert chunks(
        PartStartEvent(index=0, part=TextPart("a")),
        PartStartEvent(index=1, part=ThinkingPart("b")),
        text(0, "c"),
    ) == [
        PartStart(0, PartKind.TEXT),
        PartDelta(0, "a"),
        PartEnd(0),
        PartStart(1, PartKind.THINKING),
        PartDelta(1, "b"),
        PartStart(2, PartKind.TEXT),
        PartDelta(2, "c"),
        PartEnd(1),
        PartEnd(2),
    ]


def test_a_part_that_is_said_again_is_not_said_twice() -> None:
    twice = PartStartEvent(index=0, part=TextPart("a"))
    assert chunks(twice, PartStartEvent(index=0, part=TextPart("")), text(0, "b"))[1:-1] == [
        PartDelta(0, "a"),
        PartDelta(0, "b"),
    ]


def test_halves_of_a_code_point_are_joined() -> None:
    fox = "\ud83e", "\udd8a"
    assert chunks(PartStartEvent(index=0, part=TextPart("a" + fox[0])), text(0, fox[1] + "b"), text(0, fox[0])) == [
        PartStart(0, PartKind.TEXT),
        PartDelta(0, "a"),
        PartDelta(0, "🦊b"),
        PartDelta(0, "\ufffd"),
        PartEnd(0),
    ]
    assert chunks(PartStartEvent(index=0, part=TextPart(fox[1])))[1] == PartDelta(0, "\ufffd")


def test_summaries_of_one_item_are_one_part() -> None:
    assert chunks(
        PartStartEvent(index=0, part=ThinkingPart("one", id="rs_1")),
        PartStartEvent(index=1, part=ThinkingPart("two", id="rs_1")),
        PartDeltaEvent(index=0, delta=ThinkingPartDelta(signature_delta="sealed")),
        PartStartEvent(index=2, part=ThinkingPart("three", id="rs_2")),
        PartStartEvent(index=3, part=TextPart("x")),
        dialect=Dialect.OPENAI_RESPONSES,
    ) == [
        PartStart(0, PartKind.THINKING),
        PartDelta(0, "one"),
        PartDelta(0, "\n\n"),
        PartDelta(0, "two"),
        PartEnd(0, encrypted_content="sealed", item="rs_1"),
        PartStart(1, PartKind.THINKING),
        PartDelta(1, "three"),
        PartEnd(1, item="rs_2"),
        PartStart(2, PartKind.TEXT),
        PartDelta(2, "x"),
        PartEnd(2),
    ]


def test_raw_reasoning_is_said() -> None:
    def raw(*pieces: str) -> PartDeltaEvent:
        details = {"raw_content": list(pieces)}
        return PartDeltaEvent(index=0, delta=ThinkingPartDelta(provider_details=lambda _: details))

    start = PartStartEvent(index=0, part=ThinkingPart("", id="rs_1", provider_details={"raw_content": ["a"]}))
    assert chunks(start, raw("ab"), raw("ab", "c"), dialect=Dialect.OPENAI_RESPONSES)[1:-1] == [
        PartDelta(0, "a"),
        PartDelta(0, "b"),
        PartDelta(0, "c"),
    ]


@pytest.mark.parametrize("thoughts", [True, False])
def test_gemini_signs_on_the_part_that_follows(thoughts: bool) -> None:
    call = ToolCallPart("f", {}, tool_call_id="a", provider_details={"thought_signature": "c2ln"})
    events: list[ModelResponseStreamEvent] = [PartStartEvent(index=1, part=call)]
    if thoughts:
        events.insert(0, PartStartEvent(index=0, part=ThinkingPart("hm")))
    out = chunks(*events, dialect=Dialect.GOOGLE)
    assert PartEnd(0, encrypted_content="c2ln") in out
    assert out[0] == PartStart(0, PartKind.THINKING)
    assert PartStart(1, PartKind.TOOL_CALL, "a", "f") in out


def test_anthropic_redacts() -> None:
    thinking = ThinkingPart("", id="redacted_thinking", signature="data")
    assert chunks(PartStartEvent(index=0, part=thinking), dialect=Dialect.ANTHROPIC) == [
        PartStart(0, PartKind.THINKING),
        PartEnd(0, encrypted_content="data", item="redacted_thinking"),
    ]


# --- failures -----------------------------------------------------------------------------------


def http(status: int, body: object = None) -> ModelHTTPError:
    return ModelHTTPError(status, "m", body)


@pytest.mark.parametrize(
    ("raised", "streaming", "expected", "status"),
    [
        (http(401), False, EngineUnauthenticatedError, "401"),
        (http(403), False, EngineUnauthenticatedError, "403"),
        (http(429), False, EngineRateLimitedError, "429"),
        (http(400), False, EngineRejectedError, "400"),
        (http(404), False, EngineRejectedError, "404"),
        (http(408), False, EngineUnavailableError, "408"),
        (http(500), False, EngineUnavailableError, "500"),
        (http(529), True, EngineUnavailableError, "529"),
        (ModelConnectionError("m", "x", phase="connect"), False, EngineUnavailableError, "none"),
        (ModelConnectionError("m", "x", phase="read"), True, EngineStreamBrokenError, None),
        (httpx2.ReadError("x"), True, EngineStreamBrokenError, None),
        (httpx2.RemoteProtocolError("x"), True, EngineStreamBrokenError, None),
        (ModelRateLimitError("m", "x", in_stream=True), True, EngineRateLimitedError, "none"),
        (ModelAPIError("m", "x", in_stream=True), True, EngineUnavailableError, "none"),
        (ModelAPIError("m", "Failed to decode"), True, EngineStreamBrokenError, None),
        (ModelAPIError("m", "Failed to decode"), False, EngineUnavailableError, "none"),
        (UnexpectedModelBehavior("ended without content"), False, EngineStreamBrokenError, None),
        (UserError("not this model"), False, EngineRejectedError, "none"),
        (ModelHTTPError(400, "m", None, provider_error_code="content_filter"), False, ContentRefusedError, None),
    ],
)
def test_failures(raised: Exception, streaming: bool, expected: type[EngineError], status: str | None) -> None:
    error = engine_error(raised, streaming=streaming, key=KEY)
    assert type(error) is expected
    assert error.metadata.get("http_status") == status
    assert error.metadata["engine"] == "pydantic_ai"


def test_what_is_not_known_stays_as_it_is() -> None:
    assert engine_error(ValueError("x"), streaming=True, key=KEY) is None


def test_messages_tell_what_happened_but_no_keys() -> None:
    body = {"error": {"message": f"no model for {KEY}\n" + "x" * 1000}}
    told = str(engine_error(http(404, body), streaming=False, key=KEY))
    assert "no model for *** x" in told
    assert len(told) < 700
    assert KEY not in json.dumps(told)
    assert str(engine_error(http(401, body), streaming=False, key=KEY)).endswith("(HTTP status 401)")
    connection = ModelConnectionError("m", "Connection error.")
    connection.__cause__ = httpx2.ConnectError("refused")
    assert "ConnectError: refused" in str(engine_error(connection, streaming=False, key=KEY))
