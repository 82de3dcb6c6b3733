"""thinking_mode: phases of thinking, as events."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.domain.event import ThinkingMode as Said
from turnwire_server.domain.event import ThinkingModeCompleted, ThinkingModeStarted, ThinkingModeUpdate
from turnwire_server.engines.base import Emit, EngineCall, EngineResult, PartDelta, PartKind, PartStart
from turnwire_server.middleware.sections import TEXT_LENGTH_MAX
from turnwire_server.middleware.thinking_mode import ThinkingMode, ThinkingModeSettings
from unit.server.middleware.stage import USER, Play, engine_call, said

OPENING = '<turnwire:thinking_mode mode="exploring" phase="gathering">'
CLOSING = "</turnwire:thinking_mode>"
EXPLORING = Said("exploring", "gathering")


def thinking_mode(*, prompt: bool = True) -> ThinkingMode:
    return ThinkingMode(ThinkingModeSettings(prompt=prompt))


async def test_model_is_told_how() -> None:
    play = Play()
    await play.run(thinking_mode(), engine_call())
    assert '<turnwire:thinking_mode mode="' in play.instructions[0]
    await play.run(thinking_mode(prompt=False), engine_call())
    assert play.seen[1].blocks == (USER,)


@given(st.integers(1, 120), st.sampled_from(["text", "thinking"]))
async def test_phase_is_told(delta_length: int, kind: str) -> None:
    play = Play()
    text = f"So: {OPENING} what is there {CLOSING} Then {OPENING}more{CLOSING}"
    await play.run(thinking_mode(), engine_call(said(text, delta_length=delta_length, kind=kind)))
    assert play.text == text
    assert play.scope.told == [
        (ThinkingModeStarted(EXPLORING), "e1"),
        (ThinkingModeCompleted(Said("exploring", "gathering", "what is there"), success=True), "e1"),
        (ThinkingModeStarted(EXPLORING), "e2"),
        (ThinkingModeCompleted(Said("exploring", "gathering", "more"), success=True), "e2"),
    ]


async def test_long_phase_is_told_as_it_grows() -> None:
    play = Play()
    reasoning = "x" * TEXT_LENGTH_MAX
    await play.run(thinking_mode(), engine_call(said(f"{OPENING}{reasoning}yyy{CLOSING}", delta_length=50)))
    first, *updates, last = play.scope.payloads
    assert first == ThinkingModeStarted(EXPLORING)
    texts = [update.thinking_mode.reasoning for update in updates if isinstance(update, ThinkingModeUpdate)]
    assert len(texts) == len(updates) > 10
    assert texts == sorted(texts)
    assert all(reasoning.startswith(text) for text in texts)
    assert sum(map(len, texts)) < 6 * TEXT_LENGTH_MAX
    assert last == ThinkingModeCompleted(Said("exploring", "gathering", reasoning), success=True)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", Said()),
        (" mode=deep", Said("deep")),
        (" phase='two words' <>", None),
        (' phase="p" sure="no" ! x=1', Said("", "p", "", '{"sure": "no", "x": "1"}')),
    ],
)
async def test_what_is_missing_or_malformed_stops_nothing(attributes: str, expected: Said | None) -> None:
    play = Play()
    await play.run(thinking_mode(), engine_call(said(f"<turnwire:thinking_mode{attributes}>{CLOSING}")))
    assert [p.thinking_mode for p in play.scope.payloads if isinstance(p, ThinkingModeStarted)] == (
        [expected] if expected else []
    )


async def test_phase_that_is_not_closed_ends_with_its_part() -> None:
    play = Play()
    await play.run(thinking_mode(), engine_call(said(f"{OPENING}cut", f"{OPENING}a{OPENING}b{CLOSING}")))
    ends = [payload for payload in play.scope.payloads if isinstance(payload, ThinkingModeCompleted)]
    assert [(end.thinking_mode.reasoning, end.success, end.error) for end in ends] == [
        ("cut", False, "the section was not closed"),
        ("a", False, "the section was not closed"),
        ("b", True, ""),
    ]


async def unfinished(call: EngineCall, emit: Emit) -> EngineResult:
    """An engine that leaves its part open, and then plays its script."""
    await emit(PartStart(100, PartKind.TEXT))
    await emit(PartDelta(100, f"{OPENING}on the way"))
    return await Play().engine(call, emit)


ON_THE_WAY = Said("exploring", "gathering", "on the way")


async def test_phase_ends_with_an_engine_that_leaves_it_open() -> None:
    play = Play()
    await play.run(thinking_mode(), engine_call(), unfinished)
    assert play.scope.told[-1] == (
        ThinkingModeCompleted(ON_THE_WAY, success=False, error="the section was not closed"),
        "e1",
    )


async def test_phase_ends_with_a_call_that_fails() -> None:
    play = Play()
    with pytest.raises(RuntimeError):
        await play.run(thinking_mode(), engine_call(said(crash={})), unfinished)
    assert play.scope.told[-1] == (
        ThinkingModeCompleted(ON_THE_WAY, success=False, error="the engine call failed"),
        "e1",
    )


async def test_phase_ends_with_a_call_that_is_cancelled() -> None:
    play = Play()
    hangs = asyncio.Event()

    async def engine(call: EngineCall, emit: Emit) -> EngineResult:
        await emit(PartStart(100, PartKind.TEXT))
        await emit(PartDelta(100, f"{OPENING}on the way"))
        hangs.set()
        return await play.engine(call, emit)

    task = asyncio.create_task(play.run(thinking_mode(), engine_call(said(hang={})), engine))
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert play.scope.told[-1] == (
        ThinkingModeCompleted(ON_THE_WAY, success=False, error="the engine call was cancelled"),
        "e1",
    )


async def test_only_so_many_phases_are_told() -> None:
    play = Play()
    text = f"{OPENING}{CLOSING}" * 300
    await play.run(thinking_mode(), engine_call(said(text, delta_length=1000)))
    assert play.text == text
    assert sum(isinstance(payload, ThinkingModeStarted) for payload in play.scope.payloads) == 256
    assert sum(isinstance(payload, ThinkingModeCompleted) for payload in play.scope.payloads) == 256
