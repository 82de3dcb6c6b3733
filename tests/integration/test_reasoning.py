"""Reasoning on a provider's API in every dialect: told, kept, and given back to whoever made it, and to nobody else."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from support import aimock as mock
from support.live import SUCCEEDED, Ended
from support.provided import Asked, Provided
from turnwire.v1 import inference_pb2, turn_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

THINKS = inference_pb2.InferenceConfig(reasoning_effort="low")


# Which fields of a reasoning block a dialect fills, and what is in them where aimock lets the fixture say so.
FIELDS: dict[str, Mapping[str, str]] = {
    "openai-chat": {"item": "reasoning_content"},
    "openai-responses": {"item": "", "encrypted_content": ""},
    "anthropic": {"signature": mock.SIGNATURE},
    "google": {"encrypted_content": mock.SIGNATURE},
}


def _reasoning(ended: Ended) -> list[turn_pb2.ReasoningBlock]:
    return [block.reasoning for block in ended.produced if block.HasField("reasoning")]


def _check_fields(reasoning: turn_pb2.ReasoningBlock, dialect: str) -> None:
    said = {field.name: value for field, value in reasoning.ListFields() if field.name != "text"}
    expected = FIELDS[dialect]
    assert said.keys() == expected.keys()
    assert said == {name: expected[name] or value for name, value in said.items()}


def _sent_reasoning(asked: Asked, reasoning: turn_pb2.ReasoningBlock) -> Mapping[str, Any]:
    """Return how a dialect gives reasoning back."""
    match asked.dialect:
        case "openai-chat":
            return {"reasoning_content": reasoning.text}
        case "openai-responses":
            return {
                "type": "reasoning",
                "id": reasoning.item,
                "encrypted_content": reasoning.encrypted_content,
                "summary": [{"type": "summary_text", "text": reasoning.text}] if reasoning.text else [],
            }
        case "anthropic":
            return {"type": "thinking", "thinking": reasoning.text, "signature": reasoning.signature}
        case _:
            return {"text": reasoning.text, "thought": True}


def _history(asked: Asked) -> list[Mapping[str, Any]]:
    """Return what a request says of what the model said and did, in order."""
    match asked.dialect:
        case "openai-chat":
            return [message for message in asked.body["messages"] if message["role"] == "assistant"]
        case "openai-responses":
            return [each for each in asked.body["input"] if each.get("role") != "user"]
        case "anthropic":
            return [
                each
                for message in asked.body["messages"]
                if message["role"] == "assistant"
                for each in message["content"]
            ]
        case _:
            return [
                part for content in asked.body["contents"] if content["role"] == "model" for part in content["parts"]
            ]


def _place(asked: Asked, reasoning: turn_pb2.ReasoningBlock) -> int:
    """Return where a request gives reasoning back; -1 if it does not."""
    wanted = _sent_reasoning(asked, reasoning).items()
    return next((place for place, each in enumerate(_history(asked)) if wanted <= each.items()), -1)


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_reasoning_is_told_kept_and_given_back_in_the_next_turn(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    ended = await desk.session.say(mock.THINKING, config=THINKS)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    names = [name for name in ended.names if name.startswith("llm")]
    assert names == ["llm_thinking_start", "llm_thinking_final", "llm_start", "llm_final"]
    assert len(ended.told("llm_thinking_delta")) > 3
    [reasoning], [final] = _reasoning(ended), ended.told("llm_thinking_final")
    assert reasoning.text == final.text == mock.THOUGHT
    assert (final.signature, final.encrypted_content, final.item, final.summary) == (
        reasoning.signature,
        reasoning.encrypted_content,
        reasoning.item,
        reasoning.summary,
    )
    if dialect != "google":  # aimock signs no text in Gemini's dialect; what is not signed does not go back
        _check_fields(reasoning, dialect)
    await desk.session.say(mock.PLAIN, config=THINKS)
    assert (_place(desk.asked[-1], reasoning) == 0) == (dialect != "google")
    assert mock.THINKING_TEXT in desk.asked[-1].text


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_reasoning_is_given_back_within_the_tool_loop(provider_server: Provided, dialect: str) -> None:
    """A provider that thinks before it calls a tool wants its thought back with the result, or refuses it."""
    desk = await provider_server.desk(dialect, "tools")
    ended = await desk.session.say(mock.THINKING_TOOL, config=THINKS)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert [block.WhichOneof("kind") for block in ended.produced][:3] == ["reasoning", "tool_call", "tool_use"]
    assert ended.text == mock.THINKING_TOOL_TEXT
    reasoning = _reasoning(ended)[0]
    assert reasoning.text == mock.THOUGHT
    _check_fields(reasoning, dialect)
    await desk.session.say(mock.PLAIN, config=THINKS)
    for asked in desk.asked[1:]:
        place = _place(asked, reasoning)
        assert place == 0
        [call] = asked.calls
        assert call == (mock.TOOL_NAME, mock.TOOL_ARGS)
        match dialect:
            case "openai-chat":
                assert _history(asked)[place]["tool_calls"]
            case "google":
                following = _history(asked)[place + 1]
                assert following["thoughtSignature"] == mock.SIGNATURE
                assert following["functionCall"]["name"] == mock.TOOL_NAME
            case _:
                assert _history(asked)[place + 1]["name"] == mock.TOOL_NAME


async def test_thinking_that_is_not_shown_is_given_back_as_well(provider_server: Provided) -> None:
    desk = await provider_server.desk("anthropic")
    ended = await desk.session.say(mock.REDACTED, config=THINKS)
    [reasoning] = _reasoning(ended)
    expected = turn_pb2.ReasoningBlock(encrypted_content=mock.REDACTED_DATA, item="redacted_thinking")
    assert reasoning == expected
    await desk.session.say(mock.PLAIN, config=THINKS)
    assert _history(desk.asked[-1])[0] == {"type": "redacted_thinking", "data": mock.REDACTED_DATA}


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_reasoning_of_another_provider_is_kept_and_not_given_away(
    provider_server: Provided, dialect: str
) -> None:
    """A session goes from one provider to the next; each gets its own thoughts back."""
    desk = await provider_server.desk(dialect, "tools")
    others = [other for other in mock.DIALECTS if other != dialect]
    for other in others:
        ended = await desk.session.say(mock.THINKING_TOOL, profile=f"{other}-tools", config=THINKS)
        assert ended.inference.state == SUCCEEDED, (other, ended.inference.error)
    ended = await desk.session.say(mock.THINKING_TOOL, config=THINKS)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert sum(block.reasoning.text == mock.THOUGHT for block in ended.turn.blocks) == 4
    first, second = desk.asked
    assert mock.THOUGHT not in first.text
    assert mock.SIGNATURE not in first.text
    assert "encrypted-reasoning" not in first.text
    assert len(first.calls) == len(first.results) == 3, "what was done is told all the same"
    assert second.text.count(mock.THOUGHT) == 1


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_foreign_block_is_kept_byte_for_byte_and_no_engine_sees_it(
    provider_server: Provided, dialect: str
) -> None:
    desk = await provider_server.desk(dialect)
    foreign = [
        turn_pb2.OtherBlock(type="acme.whiteboard", payload=bytes(range(256)) * 9, media_type="application/x-board"),
        turn_pb2.OtherBlock(type="acme.note", payload=b'{"do not": "show me"}'),
    ]
    request = desk.session.request("")
    request.input.add(other=foreign[0])
    request.input.add(user=turn_pb2.UserBlock(text=mock.PLAIN))
    request.input.add(other=foreign[1])
    started = (await desk.session.stubs.inference.StartInference(request)).inference
    ended = await desk.session.finish(started)
    assert (ended.inference.state, ended.text) == (SUCCEEDED, mock.PLAIN_TEXT)
    await desk.session.say(mock.PLAIN)
    for turn in (ended.turn, await desk.session.turn()):
        assert [block.other for block in turn.blocks if block.HasField("other")] == foreign
    for asked in desk.asked:
        assert "acme" not in asked.text
        assert "show me" not in asked.text
        assert base64.b64encode(bytes(range(256)))[:40].decode() not in asked.text
