"""The tool loop with tools of the server, on a provider's API in every dialect."""

import json
from typing import Any

import pytest

from support import aimock as mock
from support.live import FAILED, SUCCEEDED
from support.provided import Asked, Desk, Provided
from turnwire.v1 import inference_pb2, tool_pb2

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.parametrize("dialect", mock.DIALECTS)]

ENGINE_REJECTED = 105
WEATHER = {"city": "Zürich", "degrees": 6, "days": 3}
NAMES = {"get_weather", "get_time", "charge", "look_up", "erase"}
SERVER = tool_pb2.TOOL_PLACEMENT_SERVER

# A Claude that may be told which tool to use; the one that aimock's thinking takes refuses to be.
FORCED = "claude-sonnet-4-5"

# What each dialect calls the choice of a tool: for `none`, `required`, the name of one, and `auto`.
CHOICES: dict[str, tuple[Any, Any, Any, Any]] = {
    "openai-chat": (
        "none",
        "required",
        {"type": "function", "function": {"name": mock.TOOL_NAME}},
        "auto",
    ),
    "openai-responses": ("none", "required", {"type": "function", "name": mock.TOOL_NAME}, "auto"),
    "anthropic": ({"type": "none"}, {"type": "any"}, {"type": "tool", "name": mock.TOOL_NAME}, {"type": "auto"}),
    "google": (
        {"mode": "NONE"},
        {"mode": "ANY"},
        {"mode": "ANY", "allowedFunctionNames": [mock.TOOL_NAME]},
        # Gemini's word for a free choice with arguments that fit.
        {"mode": "VALIDATED"},
    ),
}


def _choice(asked: Asked) -> object:
    return asked.body["toolConfig"]["functionCallingConfig"] if asked.dialect == "google" else asked.body["tool_choice"]


def _config(choice: str, dialect: str) -> inference_pb2.InferenceConfig:
    return inference_pb2.InferenceConfig(tool_choice=choice, model=FORCED if dialect == "anthropic" else "")


async def _desk(provider_server: Provided, dialect: str) -> Desk:
    return await provider_server.desk(dialect, "tools")


async def test_one_tool(provider_server: Provided, dialect: str) -> None:
    desk = await _desk(provider_server, dialect)
    ended = await desk.session.say(mock.TOOL)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.inference.finish_class == inference_pb2.FINISH_CLASS_COMPLETED
    # OpenAI's Responses have reasoning around it, whether it can be read or not.
    blocks = [block for block in ended.produced if not block.HasField("reasoning")]
    assert [block.WhichOneof("kind") for block in blocks] == ["tool_call", "tool_use", "llm_text"]
    call, use, _ = blocks
    assert (call.tool_call.name, json.loads(call.tool_call.args)) == (mock.TOOL_NAME, mock.TOOL_ARGS)
    assert (use.tool_use.tool_call, json.loads(use.tool_use.result)) == (mock.TOOL_ID, WEATHER)
    assert ended.text == mock.TOOL_RESULT_TEXT
    assert [name for name in ended.names if not name.startswith("llm_thinking")] == [
        "inference_queued",
        "inference_started",
        "turn_opened",
        "tool_start",
        "tool_call",
        "tool_result",
        "tool_done",
        "llm_start",
        "llm_final",
        "turn_closed",
        "inference_finished",
    ]
    assert [start.placement for start in ended.told("tool_start")] == [SERVER]
    first, second = desk.asked
    assert (first.calls, first.results) == ([], [])
    assert second.calls == [(mock.TOOL_NAME, mock.TOOL_ARGS)]
    [result] = second.results
    assert json.loads(result) == WEATHER


async def test_two_tools_at_once_and_what_they_used(provider_server: Provided, dialect: str) -> None:
    desk = await _desk(provider_server, dialect)
    ended = await desk.session.say(mock.TOOLS)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.outcomes.keys() == {mock.TOOL_ID, mock.SECOND_TOOL_ID}
    assert ended.outcomes[mock.SECOND_TOOL_ID] == '"noon, CET"'
    assert [block.llm_text.text for block in ended.produced if block.HasField("llm_text")] == [
        mock.TOOLS_TEXT,
        mock.TOOLS_RESULT_TEXT,
    ]
    per_call = [told.usage for told in ended.told("engine_call_finished")]
    expected = inference_pb2.Usage(input_tokens=11, output_tokens=7)
    assert per_call == [expected, expected]
    assert ended.inference.usage == inference_pb2.Usage(input_tokens=22, output_tokens=14)
    assert ended.events[-1].inference_finished.usage == ended.inference.usage
    assert [told.iteration for told in ended.told("engine_call_started")] == [1, 2]
    finishes = [told.finish_class for told in ended.told("engine_call_finished")]
    assert finishes == [inference_pb2.FINISH_CLASS_TOOL_CALLS_PENDING, inference_pb2.FINISH_CLASS_COMPLETED]
    _, second = desk.asked
    assert second.calls == [(mock.TOOL_NAME, mock.TOOL_ARGS), (mock.SECOND_TOOL_NAME, mock.SECOND_TOOL_ARGS)]
    weather, time = second.results
    assert json.loads(weather) == WEATHER
    assert "noon, CET" in time


async def test_the_history_of_tools_is_shown_in_the_next_turn(provider_server: Provided, dialect: str) -> None:
    """The model names the same calls again, in a turn of their own: a request must not have a name twice."""
    desk = await _desk(provider_server, dialect)
    await desk.session.say(mock.TOOLS)
    ended = await desk.session.say(mock.TOOL)
    assert ended.text == mock.TOOL_RESULT_TEXT
    assert [name for name, _ in desk.asked[-1].calls] == [mock.TOOL_NAME, mock.SECOND_TOOL_NAME, mock.TOOL_NAME]
    assert len(desk.asked[-1].results) == 3
    assert desk.asked[-1].text.count(f'"{mock.TOOL_ID}"') == 2, "the name of one call and of its result"


async def test_tools_are_offered_with_their_schemas(provider_server: Provided, dialect: str) -> None:
    desk = await _desk(provider_server, dialect)
    free = {"type": "object", "properties": {"any": {"type": "object"}, "n": {"type": "integer"}}, "required": ["any"]}
    own = tool_pb2.Tool(name="own", description="Mine.", input_schema=json.dumps(free))
    await desk.session.say(mock.PLAIN, tools=[own, tool_pb2.Tool(name="bare")])
    [asked] = desk.asked
    assert asked.tools.keys() == {*NAMES, "own", "bare"}
    weather = asked.tools["get_weather"]
    assert weather["properties"]["city"] == {"type": "string", "description": "where"}
    assert weather["required"] == ["city"]
    assert weather["properties"]["days"]["maximum"] == 7
    assert asked.tools["get_time"]["properties"]["zone"]["enum"] == ["CET", "UTC"]
    assert "Say what the weather will be." in asked.text
    offered = asked.tools["own"]
    assert offered["properties"]["n"] == {"type": "integer"}
    assert offered["required"] == ["any"]
    # An object that may have anything in it must not become one that may have nothing in it.
    assert offered["properties"]["any"].get("additionalProperties") is not False
    assert asked.tools["bare"].get("properties", {}) == {}


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_choice_of_tools_reaches_the_provider_once(provider_server: Provided, dialect: str, place: int) -> None:
    desk = await _desk(provider_server, dialect)
    choice = ("none", "required", mock.TOOL_NAME)[place]
    ended = await desk.session.say(mock.TOOL, config=_config(choice, dialect))
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    chosen, free = CHOICES[dialect][place], CHOICES[dialect][3]
    # What is forced is forced once, so that the model can answer; what is forbidden stays forbidden.
    assert [_choice(asked) for asked in desk.asked] == [chosen, chosen if choice == "none" else free]
    assert (ended.outcomes[mock.TOOL_ID] == "not_allowed") == (choice == "none")
    assert all(asked.tools.keys() == NAMES for asked in desk.asked)


async def test_a_choice_that_cannot_be_met_is_refused(provider_server: Provided, dialect: str) -> None:
    desk = await _desk(provider_server, dialect)
    ended = await desk.session.say(mock.TOOL, config=inference_pb2.InferenceConfig(tool_choice="nothing"))
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ENGINE_REJECTED)
    assert "nothing" in ended.inference.error.message
    assert desk.asked == []


async def test_a_call_that_the_choice_does_not_allow_is_refused(provider_server: Provided, dialect: str) -> None:
    """aimock asks for two tools whatever it is told; only the one that was named may be called."""
    desk = await _desk(provider_server, dialect)
    ended = await desk.session.say(mock.TOOLS, config=_config(mock.TOOL_NAME, dialect))
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert json.loads(ended.outcomes[mock.TOOL_ID]) == WEATHER
    assert ended.outcomes[mock.SECOND_TOOL_ID] == "not_allowed"
    assert "not_allowed" in desk.asked[1].results[1]


async def test_the_loop_is_cut_at_its_bound(provider_server: Provided, dialect: str) -> None:
    desk = await _desk(provider_server, dialect)
    ended = await desk.session.say(mock.TOOL, config=inference_pb2.InferenceConfig(iterations_max=1))
    assert ended.inference.state == SUCCEEDED
    assert ended.inference.finish_class == inference_pb2.FINISH_CLASS_MAX_ITERATIONS
    assert json.loads(ended.outcomes[mock.TOOL_ID]) == WEATHER, "what the last call asks for is executed"
    assert len(desk.asked) == 1
    following = await desk.session.say("", conflict_policy=inference_pb2.CONFLICT_POLICY_REJECT)
    assert following.text == mock.TOOL_RESULT_TEXT, "a turn that ends with a result can be gone on from"
