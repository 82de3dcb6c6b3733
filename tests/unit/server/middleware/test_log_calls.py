"""log_calls: a line per engine call, without what was said."""

import asyncio
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.errors import EngineRateLimitedError
from turnwire_server.domain.event import Log
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.middleware.log_calls import LogCalls, LogCallsSettings
from unit.server.middleware.stage import Play, engine_call, said


class TickingClock:
    """A Clock that is a quarter of a second later whenever it is asked."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        self._seconds += 0.25
        return self._seconds


def log_calls(*, event: bool = False) -> LogCalls:
    return LogCalls(LogCallsSettings(level="debug", event=event), TickingClock())  # type: ignore[arg-type]


USAGE = {"input_tokens": 1, "output_tokens": 2, "cached_tokens": 0, "reasoning_tokens": 0}


async def test_line_has_facts_and_identities() -> None:
    play = Play()
    with capture_logs() as lines:
        await play.run(log_calls(), engine_call(said("my secret", delta_length=5)))
    assert lines == [
        {
            "event": "engine call",
            "log_level": "debug",
            "session_id": "s",
            "inference_id": "i",
            "iteration": 1,
            "block_count": 1,
            "tool_count": 0,
            "outcome": "finished",
            "seconds": 0.25,
            "finish_class": "COMPLETED",
            "model": "scripted",
            **USAGE,
        }
    ]
    assert (play.text, play.scope.told) == ("my secret", [])


async def test_event_has_the_same_facts_as_json() -> None:
    play = Play()
    await play.run(log_calls(event=True), engine_call())
    [event] = play.scope.payloads
    assert isinstance(event, Log)
    assert (event.level, event.message) == ("debug", "engine call")
    assert event.fields["finish_class"] == '"COMPLETED"'
    assert event.fields["seconds"] == "0.25"


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        (
            said(fail={"reason": "ENGINE_RATE_LIMITED", "message": "secret"}),
            EngineRateLimitedError,
            "ENGINE_RATE_LIMITED",
        ),
        (said(crash={"message": "secret"}), RuntimeError, "RuntimeError"),
    ],
)
async def test_failure_is_logged_by_its_reason(options: dict[str, object], error: type[Exception], reason: str) -> None:
    play = Play()
    with capture_logs() as lines, pytest.raises(error):
        await play.run(log_calls(event=True), engine_call(options))
    [line] = lines
    assert (line["outcome"], line["reason"], line["seconds"]) == ("failed", reason, 0.25)
    [event] = play.scope.payloads
    assert isinstance(event, Log)
    assert "secret" not in f"{line} {event}"


async def test_cancelled_call_is_logged_and_not_told() -> None:
    play, hangs = Play(), asyncio.Event()

    async def engine(call: EngineCall, emit: Emit) -> EngineResult:
        hangs.set()
        return await play.engine(call, emit)

    with capture_logs() as lines:
        task = asyncio.create_task(play.run(log_calls(event=True), engine_call(said(hang={})), engine))
        await hangs.wait()
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    assert [line["outcome"] for line in lines] == ["cancelled"]
    assert play.scope.told == []
