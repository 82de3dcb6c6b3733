import asyncio
import json
from collections.abc import Mapping

import pytest

from turnwire_server.domain.errors import (
    ContentRefusedError,
    EngineError,
    EngineOptionsInvalidError,
    EngineRateLimitedError,
    EngineUnavailableError,
)
from turnwire_server.domain.inference import FinishClass, InferenceConfig, Usage
from turnwire_server.domain.turn import Block, System, User
from turnwire_server.engines.base import EngineCall, EngineChunk, EngineResult, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.engines.scripted import FAILURES, ScriptedEngine, cut, parse_script

BLOCKS = (Block("1", User("first")), Block("2", System("be good")), Block("3", User("Grüße 🦊 an alle da draußen")))


class Stage:
    """A scripted engine on a clock that only counts."""

    def __init__(self) -> None:
        self.chunks: list[EngineChunk] = []
        self.slept: list[float] = []
        self.engine = ScriptedEngine(self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def _emit(self, chunk: EngineChunk) -> None:
        self.chunks.append(chunk)

    async def play(self, script: Mapping[str, object] | None = None, iteration: int = 1) -> EngineResult:
        options = {} if script is None else {"script": script}
        config = InferenceConfig(model="any")
        return await self.engine.run(EngineCall("s", "i", iteration, BLOCKS, config, options=options), self._emit)

    @property
    def starts(self) -> list[PartStart]:
        return [chunk for chunk in self.chunks if isinstance(chunk, PartStart)]

    @property
    def deltas(self) -> list[str]:
        return [chunk.delta for chunk in self.chunks if isinstance(chunk, PartDelta)]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def script(*steps: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"calls": [{"steps": list(steps)}], **more}


async def test_without_a_script_it_says_the_newest_user_text(stage: Stage) -> None:
    result = await stage.play()
    assert stage.deltas == ["Grüße 🦊 an alle ", "da draußen"]
    assert result == EngineResult(
        FinishClass.COMPLETED, Usage(input_tokens=3, output_tokens=2), stop_reason="script", model="any"
    )
    assert stage.slept == []


async def test_everything_in_order(stage: Stage) -> None:
    result = await stage.play(
        script(
            {"thinking": {"text": "ab", "repeat": 2}},
            {"pause": "1.5s"},
            {"text": {"text": "hello"}},
            {"tool_call": {"name": "sum", "args": '{"a":1}'}},
            {"tool_call": {"id": "mine", "name": "now"}},
            pace="0.25s",
            delta_length=3,
        )
    )
    assert stage.chunks == [
        PartStart(0, PartKind.THINKING),
        PartDelta(0, "aba"),
        PartDelta(0, "b"),
        PartEnd(0),
        PartStart(1, PartKind.TEXT),
        PartDelta(1, "hel"),
        PartDelta(1, "lo"),
        PartEnd(1),
        PartStart(2, PartKind.TOOL_CALL, id="call_1", name="sum"),
        PartDelta(2, '{"a'),
        PartDelta(2, '":1'),
        PartDelta(2, "}"),
        PartEnd(2),
        PartStart(3, PartKind.TOOL_CALL, id="mine", name="now"),
        PartDelta(3, "{}"),
        PartEnd(3),
    ]
    assert stage.slept == [0.25, 0.25, 1.5, *[0.25] * 6]
    assert result.finish_class is FinishClass.TOOL_CALLS_PENDING
    assert result.usage == Usage(input_tokens=3, output_tokens=8, reasoning_tokens=2)


async def test_the_iteration_chooses_the_call_and_ids_go_on() -> None:
    ask = {"steps": [{"tool_call": {"name": "a"}}, {"tool_call": {"id": "own", "name": "b"}}]}
    written = {"calls": [ask, {"steps": [{"tool_call": {"name": "c"}}]}]}
    ids = []
    for iteration in (1, 2, 3):
        stage = Stage()
        await stage.play(written, iteration)
        ids.append([start.id for start in stage.starts])
    assert ids == [["call_1", "own"], ["call_3"], ["call_4"]]


async def test_usage_and_finish_class_as_written(stage: Stage) -> None:
    call = {
        "steps": [{"text": {"text": "cut"}}],
        "usage": {"input_tokens": "5", "output_tokens": "6", "cached_tokens": "7", "reasoning_tokens": "8"},
        "finish_class": "FINISH_CLASS_MAX_TOKENS",
    }
    result = await stage.play({"calls": [call]})
    assert result.usage == Usage(5, 6, 7, 8)
    assert result.finish_class is FinishClass.MAX_TOKENS


@pytest.mark.parametrize("reason", sorted(FAILURES))
async def test_every_failure(stage: Stage, reason: str) -> None:
    with pytest.raises(EngineError) as caught:
        await stage.play(script({"text": {"text": "so far"}}, {"fail": {"reason": reason, "message": "as written"}}))
    assert caught.value.reason == reason
    assert str(caught.value) == "as written"
    assert caught.value.metadata.keys() == set(caught.value.keys)
    assert stage.deltas == ["so far"]


async def test_failures_have_defaults(stage: Stage) -> None:
    with pytest.raises(EngineUnavailableError) as caught:
        await stage.play(script({"fail": {}}))
    assert caught.value.metadata == {"engine": "scripted", "http_status": "503"}
    assert "503" in str(caught.value)
    with pytest.raises(EngineRateLimitedError, match="429"):
        await stage.play(script({"fail": {"reason": "ENGINE_RATE_LIMITED"}}))
    with pytest.raises(ContentRefusedError, match="refused"):
        await stage.play(script({"fail": {"reason": "CONTENT_REFUSED"}}))


async def test_a_crash_is_no_engine_error(stage: Stage) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        await stage.play(script({"crash": {"message": "boom"}}))


async def test_a_hang_ends_by_cancel(stage: Stage) -> None:
    task = asyncio.create_task(stage.play(script({"hang": {}})))
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_hang_that_ignores_cancels_ends_when_the_engine_is_closed(stage: Stage) -> None:
    task = asyncio.create_task(stage.play(script({"hang": {"ignore_cancel": True}})))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    await stage.engine.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"scirpt": {}}, "unknown option 'scirpt'"),
        ({"script": []}, "not a JSON object"),
        ({"script": script({"txt": {}})}, "Script.calls[0].steps[0]"),
        ({"script": script({"text": {"txt": ""}})}, "Script.calls[0].steps[0].text"),
        ({"script": script({"text": {"text": ""}, "hang": {}})}, "kind"),
        ({"script": script({})}, "script.calls[0].steps[0].kind: exactly one"),
        ({"script": script({"tool_call": {}})}, "script.calls[0].steps[0].tool_call.name: "),
        ({"script": script(pace="-1s")}, "script.pace: "),
        ({"script": script(pace=1)}, "Script.pace"),
        ({"script": script(delta_length=65537)}, "script.delta_length: "),
        ({"script": script({"fail": {"reason": "SESSION_BUSY"}})}, "script.calls[0].steps[0].fail.reason: "),
        ({"script": {"calls": [{"finish_class": "FINISH_CLASS_ERROR"}]}}, "script.calls[0].finish_class: "),
        ({"script": {"calls": [{"finish_class": 99}]}}, "script.calls[0].finish_class: "),
        ({"script": {"calls": 5}}, "calls"),
    ],
)
def test_a_broken_script_says_where(options: Mapping[str, object], where: str) -> None:
    with pytest.raises(EngineOptionsInvalidError) as caught:
        parse_script(options)
    assert where in str(caught.value)
    assert caught.value.metadata == {"engine": "scripted"}


async def test_a_broken_script_says_nothing(stage: Stage) -> None:
    with pytest.raises(EngineOptionsInvalidError):
        await stage.play(script({"text": {"text": "hello"}}, {}))
    assert stage.chunks == []


def test_names_may_be_written_both_ways() -> None:
    written = json.loads('{"calls": [{"steps": [{"toolCall": {"name": "a"}}]}], "deltaLength": 4}')
    assert parse_script({"script": written}) == parse_script(
        {"script": script({"tool_call": {"name": "a"}}, delta_length=4)}
    )


@pytest.mark.parametrize("text", ["", "a", "abc", "🦊🐕", "abcdefg"])
@pytest.mark.parametrize("repeat", [1, 2, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 100])
def test_cut(text: str, repeat: int, length: int) -> None:
    pieces = list(cut(text, repeat, length))
    assert "".join(pieces) == text * repeat
    assert all(len(piece) == length for piece in pieces[:-1])
    assert all(pieces)
