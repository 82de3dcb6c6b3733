"""The scripted engine: does what a script says, the same way every time.

The script is a turnwire.testing.v1.Script in ProtoJSON under the option `script`. Without one, the engine says the text
of the newest user block back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import cast

import protovalidate
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from turnwire.testing.v1.script_pb2 import Script, ScriptedCall, ScriptedFailure, ScriptedStep, ScriptedText
from turnwire_server.domain.errors import EngineError, EngineOptionsInvalidError
from turnwire_server.domain.inference import FinishClass, Usage
from turnwire_server.domain.profile import EngineInfo
from turnwire_server.domain.turn import User
from turnwire_server.engines.base import Emit, EngineCall, EngineResult, PartDelta, PartEnd, PartKind, PartStart

ENGINE = "scripted"
INFO = EngineInfo(ENGINE, "plays a script, or says the input back; no model is asked")

# How long a script can make the engine ignore that it is cancelled.
IGNORE_CANCEL_SECONDS_MAX = 60.0

DELTA_LENGTH = 16

# Waits that many seconds. Handed in, so that tests need no time.
Sleep = Callable[[float], Awaitable[None]]

FAILURES: Mapping[str, type[EngineError]] = MappingProxyType({cls.reason: cls for cls in EngineError.__subclasses__()})

# What a failing provider would have answered, for the metadata that its reason asks for.
_HTTP_STATUS: Mapping[str, str] = MappingProxyType(
    {
        "ENGINE_UNAVAILABLE": "503",
        "ENGINE_RATE_LIMITED": "429",
        "ENGINE_REJECTED": "400",
        "ENGINE_UNAUTHENTICATED": "401",
    }
)
_IDLE_SECONDS_MAX = "300"

# An engine call that returns has produced its output; the other classes belong to inferences that did not.
_FINISH_CLASSES = frozenset(
    {
        FinishClass.UNSPECIFIED,
        FinishClass.COMPLETED,
        FinishClass.MAX_TOKENS,
        FinishClass.MAX_ITERATIONS,
        FinishClass.TOOL_CALLS_PENDING,
    }
)


class ScriptedEngine:
    """Plays scripts. It has no state but whether it was closed, and any number of calls may run at once."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self._closed = asyncio.Event()

    async def aclose(self) -> None:
        """End the calls that ignore being cancelled, so that the process can exit."""
        self._closed.set()

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        """Play the part of the script that belongs to `call.iteration`.

        Errors: EngineOptionsInvalidError when the script breaks a rule, and whatever the script says.
        """
        script = parse_script(call.options)
        scripted = _call_of(script, call.iteration) if script.calls else _echo(call)
        first = 1 + sum(_tool_call_count(_call_of(script, earlier)) for earlier in range(1, call.iteration))
        performance = _Performance(
            emit,
            self._sleep,
            pace_seconds=_seconds(script.pace),
            delta_length=script.delta_length or DELTA_LENGTH,
            parts=count(),
            calls=count(first),
        )
        for step in scripted.steps:
            match step.WhichOneof("kind"):
                case "hang":
                    await self._hang(ignore_cancel=step.hang.ignore_cancel)
                case _:
                    await performance.play(step)
        has_calls = _tool_call_count(scripted) > 0
        return EngineResult(
            FinishClass(scripted.finish_class)
            or (FinishClass.TOOL_CALLS_PENDING if has_calls else FinishClass.COMPLETED),
            usage=_usage(scripted) if scripted.HasField("usage") else performance.usage(len(call.blocks)),
            stop_reason="script",
            model=call.config.model or ENGINE,
        )

    async def _hang(self, *, ignore_cancel: bool) -> None:
        try:
            await self._closed.wait()
        except asyncio.CancelledError:
            if not ignore_cancel:
                raise
            await self._stay()
        raise asyncio.CancelledError

    async def _stay(self) -> None:
        # Not for ever: whoever may start inferences must not be able to fill the server with these.
        until = asyncio.get_running_loop().time() + IGNORE_CANCEL_SECONDS_MAX
        while not self._closed.is_set():
            try:
                async with asyncio.timeout_at(until):
                    await self._closed.wait()
            except asyncio.CancelledError:
                continue
            except TimeoutError:
                return


@dataclass(slots=True)
class _Performance:
    """One engine call being played."""

    emit: Emit
    sleep: Sleep
    pace_seconds: float
    delta_length: int
    parts: Iterator[int]
    calls: Iterator[int]
    delta_count: int = 0
    thinking_delta_count: int = 0

    async def play(self, step: ScriptedStep) -> None:
        match step.WhichOneof("kind"):
            case "text":
                await self._say(PartStart(next(self.parts), PartKind.TEXT), step.text)
            case "thinking":
                before = self.delta_count
                await self._say(PartStart(next(self.parts), PartKind.THINKING), step.thinking)
                self.thinking_delta_count += self.delta_count - before
            case "tool_call":
                number = next(self.calls)
                identity = step.tool_call.id or f"call_{number}"
                start = PartStart(next(self.parts), PartKind.TOOL_CALL, id=identity, name=step.tool_call.name)
                await self._say(start, ScriptedText(text=step.tool_call.args or "{}"))
            case "pause":
                await self.sleep(_seconds(step.pause))
            case "fail":
                raise _failure(step.fail)
            case _:
                raise RuntimeError(step.crash.message or "the script says: crash")

    async def _say(self, start: PartStart, said: ScriptedText) -> None:
        await self.emit(start)
        for delta in cut(said.text, said.repeat or 1, self.delta_length):
            if self.pace_seconds:
                await self.sleep(self.pace_seconds)
            await self.emit(PartDelta(start.part, delta))
            self.delta_count += 1
        await self.emit(PartEnd(start.part))

    def usage(self, block_count: int) -> Usage:
        """One token per delta, one per input block."""
        return Usage(
            input_tokens=block_count, output_tokens=self.delta_count, reasoning_tokens=self.thinking_delta_count
        )


def parse_script(options: Mapping[str, object]) -> Script:
    """Return the script of `options`, the empty one where there is none.

    Errors: EngineOptionsInvalidError with the place and the rule.
    """
    if unknown := sorted(options.keys() - {"script"}):
        raise _invalid(f"unknown option {unknown[0]!r}; the engine takes only `script`")
    written = options.get("script", {})
    if not isinstance(written, dict):
        raise _invalid("`script` is not a JSON object")
    try:
        script = json_format.ParseDict(cast("dict[str, object]", written), Script())
    except json_format.ParseError as error:
        raise _invalid(f"script: {' '.join(str(error).split())}") from error
    for violation in protovalidate.collect_violations(script, fail_fast=True):
        raise _invalid(f"script.{_path(violation)}: {violation.proto.message}")
    for number, scripted in enumerate(script.calls):
        if FinishClass(scripted.finish_class) not in _FINISH_CLASSES:
            raise _invalid(f"script.calls[{number}].finish_class: an output cannot end so; use `fail` or `hang`")
        for position, step in enumerate(scripted.steps):
            if step.HasField("fail") and step.fail.reason and step.fail.reason not in FAILURES:
                place = f"script.calls[{number}].steps[{position}].fail.reason"
                raise _invalid(f"{place}: {step.fail.reason!r} is none of {', '.join(sorted(FAILURES))}")
    return script


def cut(text: str, repeat: int, length: int) -> Iterator[str]:
    """Cut `text`, repeated, into pieces of `length` code points; holds no more than a piece and two texts."""
    total = len(text) * repeat
    tile = text * min(repeat, length // max(len(text), 1) + 2)
    for start in range(0, total, length):
        offset = start % len(text)
        yield tile[offset : offset + min(length, total - start)]


def _invalid(problem: str) -> EngineOptionsInvalidError:
    return EngineOptionsInvalidError(f"engine {ENGINE} does not understand its options: {problem}", engine=ENGINE)


def _path(violation: protovalidate.Violation) -> str:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return path


def _echo(call: EngineCall) -> ScriptedCall:
    texts = [block.kind.text for block in call.blocks if isinstance(block.kind, User)]
    text = texts[-1] if texts else ""
    return ScriptedCall(steps=[ScriptedStep(text=ScriptedText(text=text))] if text else [])


def _call_of(script: Script, iteration: int) -> ScriptedCall:
    return script.calls[min(iteration, len(script.calls)) - 1] if script.calls else ScriptedCall()


def _tool_call_count(scripted: ScriptedCall) -> int:
    return sum(step.HasField("tool_call") for step in scripted.steps)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _usage(scripted: ScriptedCall) -> Usage:
    usage = scripted.usage
    return Usage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)


def _failure(fail: ScriptedFailure) -> EngineError:
    cls = FAILURES[fail.reason or "ENGINE_UNAVAILABLE"]
    values = {
        "engine": ENGINE,
        "http_status": _HTTP_STATUS.get(cls.reason, "none"),
        "idle_seconds_max": _IDLE_SECONDS_MAX,
    }
    return cls(fail.message, **{key: values[key] for key in cls.keys})
