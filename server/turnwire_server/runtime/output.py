"""What an engine says, told as events: the pieces of one engine call become starts, deltas and finals.

Deltas of one entity carry the offset of their first byte; a final carries the complete text. The same events are
folded as they are made, so the blocks of the turn are what the watchers saw.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from turnwire_server.domain.errors import OutputTooLargeError
from turnwire_server.domain.event import (
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolStart,
)
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.tool import ToolCall
from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart

# What one block of output may have; a text block of the contract has at most this, and the arguments of a call half
# of it.
OUTPUT_BYTES_MAX = 2 * 1024 * 1024

# What a provider may want back with its reasoning: signature, opaque form, summary. Text and this keep below 3 MiB.
REASONING_EXTRAS_MAX = 512 * 1024

# A piece that is longer is cut, so that its event keeps well below 256 KiB.
DELTA_CHARACTERS_MAX = 32 * 1024

_DELTAS: Mapping[PartKind, Callable[[str, int], Payload]] = MappingProxyType(
    {PartKind.TEXT: LlmDelta, PartKind.THINKING: LlmThinkingDelta, PartKind.TOOL_CALL: ToolDelta}
)

Tell = Callable[[Payload, str], Awaitable[None]]


@dataclass(slots=True)
class _Part:
    kind: PartKind
    entity: str
    name: str
    byte_count: int = 0
    is_begun: bool = False
    is_ended: bool = False
    is_whole_call: bool = False


class Output:
    """The output of one engine call. `tell` takes each payload with the entity that it is about."""

    def __init__(self, tell: Tell, text_of: Callable[[str], str], mint: Mint) -> None:
        self._tell = tell
        self._text_of = text_of
        self._mint = mint
        self._parts: dict[int, _Part] = {}

    @property
    def has_tool_calls(self) -> bool:
        """Whether the engine asked for a tool, with whole arguments."""
        return any(part.is_whole_call for part in self._parts.values())

    async def take(self, chunk: EngineChunk) -> None:
        """Take one piece. Errors: OutputTooLargeError."""
        match chunk:
            case PartStart():
                await self._start(chunk)
            case PartDelta():
                await self._delta(self._parts[chunk.part], chunk.delta)
            case PartEnd():
                await self._end(self._parts[chunk.part], chunk)

    async def end(self) -> None:
        """End the parts that the engine left open: it returned, so they are complete."""
        for number, part in self._parts.items():
            if not part.is_ended:
                await self._end(part, PartEnd(number))

    async def _start(self, start: PartStart) -> None:
        is_call = start.kind is PartKind.TOOL_CALL
        part = _Part(start.kind, start.id if is_call and start.id else self._mint(), start.name)
        self._parts[start.part] = part
        if is_call:
            await self._begin(part)

    async def _begin(self, part: _Part) -> None:
        # A block is told once there is something in it: an engine may begin a part and never say anything.
        if part.is_begun:
            return
        part.is_begun = True
        match part.kind:
            case PartKind.TEXT:
                await self._tell(LlmStart(), part.entity)
            case PartKind.THINKING:
                await self._tell(LlmThinkingStart(), part.entity)
            case PartKind.TOOL_CALL:
                await self._tell(ToolStart(part.name), part.entity)

    async def _delta(self, part: _Part, delta: str) -> None:
        if not delta:
            return
        await self._begin(part)
        if not delta.isascii():
            delta = delta.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        for begin in range(0, len(delta), DELTA_CHARACTERS_MAX):
            piece = delta[begin : begin + DELTA_CHARACTERS_MAX]
            offset = part.byte_count
            part.byte_count += len(piece) if piece.isascii() else len(piece.encode())
            limit = OUTPUT_BYTES_MAX // 2 if part.kind is PartKind.TOOL_CALL else OUTPUT_BYTES_MAX
            if part.byte_count > limit:
                raise OutputTooLargeError(output_bytes_max=limit)
            await self._tell(_DELTAS[part.kind](piece, offset), part.entity)

    async def _end(self, part: _Part, end: PartEnd) -> None:
        part.is_ended = True
        extras = (end.signature, end.encrypted_content, end.summary, end.item)
        if sum(map(len, extras)) > REASONING_EXTRAS_MAX:
            raise OutputTooLargeError(output_bytes_max=REASONING_EXTRAS_MAX)
        if part.kind is PartKind.THINKING and any(extras):
            await self._begin(part)
        if not part.is_begun:
            return
        text = self._text_of(part.entity)
        match part.kind:
            case PartKind.TEXT:
                await self._tell(LlmFinal(text, part.byte_count), part.entity)
            case PartKind.THINKING:
                final = LlmThinkingFinal(
                    text,
                    part.byte_count,
                    signature=end.signature,
                    summary=end.summary,
                    encrypted_content=end.encrypted_content,
                    item=end.item,
                )
                await self._tell(final, part.entity)
            case PartKind.TOOL_CALL:
                # Arguments that were cut, at max_output_tokens for instance, are no call: the block stays INCOMPLETE.
                part.is_whole_call = _is_object(text)
                if part.is_whole_call:
                    await self._tell(ToolCallCompleted(ToolCall(part.entity, part.name, text)), part.entity)
                await self._tell(ToolDone(), part.entity)


def _is_object(args: str) -> bool:
    if not args:
        return True
    try:
        return isinstance(json.loads(args), dict)
    except (ValueError, RecursionError):
        return False
