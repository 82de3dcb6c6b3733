"""agent_mode: what the engine sees in a mode, and how the mode changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.domain.event import AgentMode as AgentModeChanged
from turnwire_server.domain.event import Log
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool
from turnwire_server.domain.turn import Block, System
from turnwire_server.engines.base import Emit, EngineCall, EngineResult, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.middleware.agent_mode import ALLOWED_TOOLS_KEY, MODE_KEY, AgentMode, AgentModeSettings
from turnwire_server.middleware.system_prompt import SystemPrompt, SystemPromptSettings
from unit.server.middleware.stage import USER, Play, RecordingScope, engine_call, said

MODES = {
    "plan": {"prompt": "Only plan.", "allowed_tools": ["read"]},
    "write": {"prompt": "Write.", "allowed_tools": ["read", "write"]},
    "free": {"prompt": "Do as you like."},
    "mute": {"prompt": "", "allowed_tools": []},
}
TOOLS = (Tool("read"), Tool("write"), Tool("delete"))
TO_WRITE = '<turnwire:agent_mode mode="write">the plan\nis done</turnwire:agent_mode>'


def agent_mode(default: str = "plan", **modes: dict[str, Any]) -> AgentMode:
    return AgentMode(AgentModeSettings.model_validate({"default": default, "modes": modes or MODES}))


def in_mode(text: str) -> Play:
    return Play(scope=RecordingScope({MODE_KEY: text, "app.other@v1": "1"}))


async def test_default_mode_is_shown_and_its_tools_are_offered() -> None:
    play = Play()
    await play.run(agent_mode(), engine_call(tools=TOOLS))
    [prompt] = play.instructions
    assert prompt.startswith("Only plan.\n\nYour mode is plan; the other modes are free, mute, write.")
    assert '<turnwire:agent_mode mode="free">' in prompt
    assert play.seen[0].tools == TOOLS[:1]
    assert play.scope.data == {ALLOWED_TOOLS_KEY: '["read"]'}
    assert play.scope.told == []


async def test_mode_of_the_session_is_kept() -> None:
    play = in_mode('"write"')
    await play.run(agent_mode(), engine_call(tools=TOOLS))
    assert play.instructions[0].startswith("Write.")
    assert play.seen[0].tools == TOOLS[:2]
    assert play.scope.data[MODE_KEY] == '"write"'


async def test_mode_without_a_list_allows_all_tools() -> None:
    play = in_mode('"free"')
    play.scope.data[ALLOWED_TOOLS_KEY] = '["read"]'
    await play.run(agent_mode(), engine_call(tools=TOOLS))
    assert play.seen[0].tools == TOOLS
    assert ALLOWED_TOOLS_KEY not in play.scope.data


@pytest.mark.parametrize("stored", ['"gone"', "3", "{", '"' + "x" * 5000 + '"'])
async def test_unknown_mode_of_the_session_is_told_and_kept(stored: str) -> None:
    play = in_mode(stored)
    for iteration in (1, 2):
        await play.run(agent_mode(), engine_call(tools=TOOLS, iteration=iteration))
    assert play.seen[0].tools == TOOLS[:1]
    [event] = play.scope.payloads
    assert isinstance(event, Log)
    assert event.level == "warning"
    assert len(json.loads(event.fields["mode"])) <= 64
    assert play.scope.data[MODE_KEY] == stored


async def test_prompt_is_behind_the_system_blocks() -> None:
    play = Play()
    client = Block("b0", System("the client's"), "system")
    late = Block("b2", System("later"), "system")
    chained = [
        SystemPrompt(SystemPromptSettings(text="the profile's")),
        agent_mode(only={"prompt": "mode"}, default="only"),
    ]
    await play.run(chained, engine_call(blocks=(client, USER, late)))
    assert play.instructions == ["the profile's", "the client's", "mode", "later"]


async def test_single_mode_without_a_prompt_shows_nothing() -> None:
    play = Play()
    await play.run(agent_mode(only={"prompt": ""}, default="only"), engine_call())
    assert play.seen[0].blocks == (USER,)


@pytest.mark.parametrize(
    ("default", "choice", "expected"),
    [
        ("plan", "read", "read"),
        ("plan", "delete", ""),
        ("plan", "required", "required"),
        ("mute", "required", ""),
        ("mute", "none", "none"),
        ("mute", "auto", "auto"),
        ("free", "delete", "delete"),
    ],
)
async def test_choice_that_cannot_be_met_is_dropped(default: str, choice: str, expected: str) -> None:
    play = Play()
    config = InferenceConfig(model="m", tool_choice=choice)
    await play.run(agent_mode(default), engine_call(tools=TOOLS, config=config))
    assert play.seen[0].config == InferenceConfig(model="m", tool_choice=expected)


@given(st.integers(1, 80))
async def test_model_changes_the_mode(delta_length: int) -> None:
    play = Play()
    text = f"Done. {TO_WRITE} Bye."
    middleware = agent_mode()
    await play.run(middleware, engine_call(said(text, delta_length=delta_length), tools=TOOLS))
    assert play.text == text
    assert play.scope.payloads == [
        AgentModeChanged("Mode write", "write", from_mode="plan", data='{"reason": "the plan\\nis done"}')
    ]
    assert play.scope.data == {MODE_KEY: '"write"', ALLOWED_TOOLS_KEY: '["read", "write"]'}
    assert play.seen[0].tools == TOOLS[:1]
    await play.run(middleware, engine_call(tools=TOOLS, iteration=2))
    assert play.seen[1].tools == TOOLS[:2]
    assert len(play.scope.told) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<turnwire:agent_mode mode="plan">stay</turnwire:agent_mode>',
        '<turnwire:agent_mode mode="write">not closed',
        '<turnwire:agent_mode mode="write"',
        "the other modes are free, mute, write",
    ],
)
async def test_mode_stays(text: str) -> None:
    play = Play()
    await play.run(agent_mode(), engine_call(said(text)))
    assert play.scope.told == []
    assert MODE_KEY not in play.scope.data


@pytest.mark.parametrize("attributes", ['mode="fly"', "", 'name="write"'])
async def test_unknown_mode_is_told_and_nothing_changes(attributes: str) -> None:
    play = Play()
    await play.run(agent_mode(), engine_call(said(f"<turnwire:agent_mode {attributes}>x</turnwire:agent_mode>")))
    [event] = play.scope.payloads
    assert isinstance(event, Log)
    assert event.level == "warning"
    assert MODE_KEY not in play.scope.data


async def test_last_section_counts() -> None:
    play = Play()
    await play.run(agent_mode(), engine_call(said('<turnwire:agent_mode mode="fly"/>', TO_WRITE, "and so on")))
    assert [type(payload) for payload in play.scope.payloads] == [AgentModeChanged]


async def test_reasoning_and_arguments_change_nothing() -> None:
    play = Play()
    await play.run(agent_mode(), engine_call(said(TO_WRITE, kind="thinking")))
    args = json.dumps({"text": TO_WRITE.replace('"', "'")})
    await play.run(agent_mode(), engine_call(said(toolCall={"name": "read", "args": args})))
    assert play.scope.told == []


async def test_interleaved_parts_are_read_apart() -> None:
    async def engine(call: EngineCall, emit: Emit) -> EngineResult:
        for chunk in (
            PartStart(0, PartKind.TEXT),
            PartStart(1, PartKind.TEXT),
            PartDelta(0, TO_WRITE[:20]),
            PartDelta(1, "in between"),
            PartDelta(0, TO_WRITE[20:]),
            PartEnd(0),
        ):
            await emit(chunk)
        return await Play().engine(call, emit)

    play = Play()
    await play.run(agent_mode(), engine_call(), engine)
    assert play.scope.data[MODE_KEY] == '"write"'


async def test_call_that_fails_changes_nothing() -> None:
    play = Play()
    with pytest.raises(RuntimeError):
        await play.run(agent_mode(), engine_call(said(TO_WRITE, crash={})))
    assert play.scope.told == []
    assert MODE_KEY not in play.scope.data


async def test_long_reason_is_cut() -> None:
    play = Play()
    text = f'<turnwire:agent_mode mode="write">{"ü" * 200_000}</turnwire:agent_mode>'
    await play.run(agent_mode(), engine_call(said(text, delta_length=5000)))
    [event] = play.scope.payloads
    assert isinstance(event, AgentModeChanged)
    assert json.loads(event.data) == {"reason": "ü" * 4096}
