"""pydantic-ai's stream events as chunks: parts that start once, grow by whole code points and end once."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import cast

from pydantic_ai.messages import (
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.engines.pydantic_ai.options import Dialect

# Anthropic's word for thinking that it does not show; pydantic-ai uses it as the id of such a part.
REDACTED_THINKING = "redacted_thinking"

# pydantic-ai makes up an id where the model gives none. The contract wants those empty: the runtime mints its own.
_MADE_UP_ID = "pyd_ai_"

_Details = dict[str, object] | Callable[[dict[str, object] | None], dict[str, object]] | None


@dataclass(slots=True)
class _Part:
    """One part as far as it has come. A tool call is started late, when its name is certainly whole."""

    kind: PartKind
    number: int = -1
    id: str = ""
    name: str = ""
    signature: str = ""
    details: dict[str, object] = field(default_factory=dict[str, object])
    raw_length: int = 0
    said: bool = False
    ended: bool = False
    half: str = ""

    @property
    def started(self) -> bool:
        return self.number >= 0


class Output:
    """The parts of one engine call. Text and reasoning end when the next part starts, tool calls at the end.

    Tool calls of one answer may be streamed side by side, so nothing but the end of the stream says that one is whole.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._numbers = count()
        # pydantic-ai's index of a part to the part, in order of appearance.
        self._parts: dict[int, _Part] = {}

    @property
    def has_tool_calls(self) -> bool:
        """Whether the model asked for a tool."""
        return any(part.kind is PartKind.TOOL_CALL for part in self._parts.values())

    def take(self, event: ModelResponseStreamEvent) -> Iterator[EngineChunk]:
        """Return the chunks that an event is worth; none for most kinds of event."""
        match event:
            case PartStartEvent(index=index, part=TextPart() as text):
                yield from self._begin(index, _Part(PartKind.TEXT), text.provider_details)
                yield from self._grow(self._parts[index], text.content)
            case PartStartEvent(index=index, part=ThinkingPart() as thinking):
                yield from self._begin_thinking(index, thinking)
            case PartStartEvent(index=index, part=ToolCallPart() as call):
                identity = "" if call.tool_call_id.startswith(_MADE_UP_ID) else call.tool_call_id
                new = _Part(PartKind.TOOL_CALL, id=identity, name=call.tool_name)
                yield from self._begin(index, new, call.provider_details)
                yield from self._grow(self._parts[index], _args(call.args))
            case PartDeltaEvent(index=index, delta=delta) if index in self._parts:
                yield from self._continue(index, self._parts[index], delta)
            case _:
                pass

    def finish(self) -> Iterator[EngineChunk]:
        """End what is open; the stream is complete."""
        yield from self._start_calls()
        for part in sorted(self._open(), key=lambda part: part.number):
            yield from self._end(part)

    def _open(self) -> list[_Part]:
        # A reasoning item with several summaries stands under several indices.
        return list({id(part): part for part in self._parts.values() if part.started and not part.ended}.values())

    def _begin(self, index: int, new: _Part, details: dict[str, object] | None) -> Iterator[EngineChunk]:
        if (known := self._parts.get(index)) is not None and known.kind is new.kind:
            # The same part once more, with what it has by now; what was said of it stays said.
            return
        yield from self._start_calls()
        yield from self._keep_thought_signature(new, details)
        for part in self._open():
            if part.kind is not PartKind.TOOL_CALL:
                yield from self._end(part)
        self._parts[index] = new
        if new.kind is not PartKind.TOOL_CALL:
            yield self._start(new)

    def _begin_thinking(self, index: int, thinking: ThinkingPart) -> Iterator[EngineChunk]:
        item = thinking.id or ""
        same_item = [part for part in self._open() if part.kind is PartKind.THINKING and item and part.id == item]
        if same_item and self._dialect is Dialect.OPENAI_RESPONSES and index not in self._parts:
            self._parts[index] = same_item[0]
            yield from self._grow(same_item[0], "\n\n")
        else:
            yield from self._begin(index, _Part(PartKind.THINKING, id=item), None)
        part = self._parts[index]
        part.signature = thinking.signature or part.signature
        yield from self._grow(part, thinking.content)
        yield from self._grow(part, self._raw(part, thinking.provider_details))

    def _continue(self, index: int, part: _Part, delta: object) -> Iterator[EngineChunk]:
        match delta:
            case TextPartDelta(content_delta=content):
                yield from self._grow(self._reopened(index, part) if content else part, content)
            case ThinkingPartDelta(content_delta=content, signature_delta=signature):
                part.signature = signature or part.signature
                said = (content or "") + self._raw(part, cast("_Details", delta.provider_details))
                yield from self._grow(self._reopened(index, part) if said else part, said)
            case ToolCallPartDelta():
                part.name += "" if part.started else delta.tool_name_delta or ""
                yield from self._grow(part, _args(delta.args_delta))
            case _:
                pass

    def _reopened(self, index: int, part: _Part) -> _Part:
        """A part that goes on after another one had begun goes on as a part of its own."""
        if part.ended:
            part = self._parts[index] = _Part(part.kind, id=part.id, details=part.details, raw_length=part.raw_length)
        return part

    def _grow(self, part: _Part, said: str) -> Iterator[EngineChunk]:
        if not said or part.ended:
            return
        if not part.started:
            if part.kind is PartKind.TOOL_CALL:
                yield from self._start_calls()
            else:
                yield self._start(part)
        part.said = True
        if whole := _whole(part, said):
            yield PartDelta(part.number, whole)

    def _start(self, part: _Part) -> PartStart:
        part.number = next(self._numbers)
        is_call = part.kind is PartKind.TOOL_CALL
        return PartStart(part.number, part.kind, id=part.id if is_call else "", name=part.name)

    def _start_calls(self) -> Iterator[EngineChunk]:
        for part in self._parts.values():
            if part.kind is PartKind.TOOL_CALL and not part.started:
                yield self._start(part)

    def _end(self, part: _Part) -> Iterator[EngineChunk]:
        if part.half:
            part.half = ""
            yield PartDelta(part.number, "\ufffd")
        part.ended = True
        if part.kind is not PartKind.THINKING:
            yield PartEnd(part.number)
            return
        match self._dialect:
            case Dialect.ANTHROPIC if part.id == REDACTED_THINKING:
                yield PartEnd(part.number, encrypted_content=part.signature, item=REDACTED_THINKING)
            case Dialect.ANTHROPIC:
                yield PartEnd(part.number, signature=part.signature)
            case Dialect.GOOGLE:
                yield PartEnd(part.number, encrypted_content=part.signature)
            case _:
                yield PartEnd(part.number, encrypted_content=part.signature, item=part.id)

    def _keep_thought_signature(self, new: _Part, details: dict[str, object] | None) -> Iterator[EngineChunk]:
        """Gemini signs its thoughts on the part that follows them; the contract keeps signatures with the reasoning.

        Gemini refuses a tool call whose signature does not come back, so one without thoughts gets empty reasoning.
        """
        signature = (details or {}).get("thought_signature")
        if self._dialect is not Dialect.GOOGLE or not isinstance(signature, str):
            return
        for part in self._open():
            if part.kind is PartKind.THINKING:
                part.signature = signature
                return
        if new.kind is PartKind.TOOL_CALL:
            thought = _Part(PartKind.THINKING, signature=signature)
            yield self._start(thought)
            yield from self._end(thought)

    def _raw(self, part: _Part, details: _Details) -> str:
        """Return what is new of reasoning that a Responses server sends as it is, without a summary (gpt-oss)."""
        if not details or self._dialect is not Dialect.OPENAI_RESPONSES:
            return ""
        part.details = details(part.details) if callable(details) else {**part.details, **details}
        pieces = part.details.get("raw_content")
        raw = "".join(cast("list[str]", pieces)) if isinstance(pieces, list) else ""
        new, part.raw_length = raw[part.raw_length :], len(raw)
        return new


def _args(args: object) -> str:
    if args is None or isinstance(args, str):
        return args or ""
    return json.dumps(args, ensure_ascii=False, separators=(",", ":"))


def _whole(part: _Part, said: str) -> str:
    """Return `said` without half code points; keep a last half for the next piece.

    JSON can escape the halves of one code point in two pieces of a stream.
    """
    text, part.half = part.half + said, ""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    if "\ud800" <= text[-1] <= "\udbff":
        text, part.half = text[:-1], text[-1]
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
