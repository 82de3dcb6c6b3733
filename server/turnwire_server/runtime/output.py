"""What an engine says, told as events: the pieces of one engine call become starts, deltas and finals.

Deltas of one entity carry the offset of their first byte; a final carries the complete text. The same events are
folded as they are told, so the blocks of the turn are what the watchers saw. An engine that breaks the rules of its
port is stopped here, before it can spoil the log.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
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
from turnwire_server.domain.json_text import is_json_object
from turnwire_server.domain.tool import ToolCall, ToolPlacement
from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.events.snapshot import Fold

# What one block of output may have in bytes: what the contract allows a text, and the arguments of a call.
BLOCK_BYTES_MAX: Mapping[PartKind, int] = MappingProxyType(
    {PartKind.TEXT: 2 * 1024 * 1024, PartKind.THINKING: 2 * 1024 * 1024, PartKind.TOOL_CALL: 1024 * 1024}
)

# What all output of one engine call may have in bytes. It is held in memory and committed as a whole.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024

# What goes back to a provider with its reasoning may have in bytes: the summary and the opaque form together keep the
# block below 3 MiB, and signature and item keep its final below 256 KiB when the rest is left out.
REASONING_BYTES_MAX = 512 * 1024
SIGNATURE_BYTES_MAX = 64 * 1024
ITEM_BYTES_MAX = 512

# What the contract allows the id and the name of a tool call, in characters.
TOOL_CALL_LENGTH_MAX = 256

# What the ids and names of all calls of one engine call may have in bytes, with what encoding adds to each at most: one
# event, tools.required, lists them.
CALLS_BYTES_MAX = 192 * 1024
CALL_ENCODING_BYTES = 16

# A piece that is longer is cut, so that its event keeps well below 256 KiB.
DELTA_CHARACTERS_MAX = 32 * 1024

_DELTAS: Mapping[PartKind, Callable[[str, int], Payload]] = MappingProxyType(
    {PartKind.TEXT: LlmDelta, PartKind.THINKING: LlmThinkingDelta, PartKind.TOOL_CALL: ToolDelta}
)

Tell = Callable[[Payload, str], Awaitable[None]]

# Who will execute a tool of a name; UNSPECIFIED: nobody.
PlacementOf = Callable[[str], ToolPlacement]


@dataclass(slots=True)
class _Part:
    kind: PartKind
    entity: str
    name: str
    byte_count: int = 0
    is_begun: bool = False
    is_ended: bool = False
    is_whole_call: bool = False


class BrokenOutput(Exception):  # noqa: N818 - a defect of an engine, never an error of the contract
    """An engine broke the rules of its port."""


class Output:
    """The output of one engine call. `tell` takes each payload with its entity, and folds it into `fold`.

    `taken` are the names of calls that the inference has made before. `ends_calls`: nobody executes any call, so
    nothing more happens to one that is whole.
    """

    def __init__(
        self,
        tell: Tell,
        fold: Fold,
        mint: Mint,
        placement_of: PlacementOf = lambda _: ToolPlacement.UNSPECIFIED,
        taken: Collection[str] = (),
        *,
        ends_calls: Callable[[], bool] = lambda: True,
    ) -> None:
        self._tell = tell
        self._fold = fold
        self._mint = mint
        self._placement_of = placement_of
        self._taken = taken
        self._ends_calls = ends_calls
        self._parts: dict[int, _Part] = {}
        self._byte_count = 0
        self._call_byte_count = 0
        self._error: Exception | None = None

    @property
    def has_tool_calls(self) -> bool:
        """Whether the engine asked for a tool, with whole arguments."""
        return any(part.is_whole_call for part in self._parts.values())

    @property
    def has_broken_calls(self) -> bool:
        """Whether the engine asked for a tool with arguments that are no JSON object; of use after end()."""
        return any(part.kind is PartKind.TOOL_CALL and not part.is_whole_call for part in self._parts.values())

    async def take(self, chunk: EngineChunk) -> None:
        """Take one piece. Errors: OutputTooLargeError, BrokenOutput; after one, every further call raises it again."""
        try:
            if self._error:
                raise self._error
            match chunk:
                case PartDelta():
                    await self._delta(self._open_part(chunk.part), chunk.delta)
                case PartStart():
                    await self._start(chunk)
                case PartEnd():
                    await self._end(self._open_part(chunk.part), chunk)
        except (OutputTooLargeError, BrokenOutput) as error:
            self._error = error
            raise

    async def end(self) -> None:
        """End the parts that the engine left open: it returned, so they are complete. Errors: those of take()."""
        if self._error:
            raise self._error
        for number, part in tuple(self._parts.items()):
            if not part.is_ended:
                await self.take(PartEnd(number))
        self._error = BrokenOutput("the engine went on after it had returned")

    def _open_part(self, number: int) -> _Part:
        part = self._parts.get(number)
        if part is None or part.is_ended:
            msg = f"the engine went on with part {number}, which is not open"
            raise BrokenOutput(msg)
        return part

    async def _start(self, start: PartStart) -> None:
        if start.part in self._parts:
            msg = f"the engine began part {start.part} twice"
            raise BrokenOutput(msg)
        is_call = start.kind is PartKind.TOOL_CALL
        if is_call and not 0 < len(start.name) <= TOOL_CALL_LENGTH_MAX:
            msg = f"the engine called a tool with a name of {len(start.name)} characters"
            raise BrokenOutput(msg)
        part = _Part(start.kind, self._entity(start.id if is_call else ""), start.name)
        self._parts[start.part] = part
        if is_call:
            self._call_byte_count += len(part.entity.encode()) + len(part.name.encode()) + CALL_ENCODING_BYTES
            _check_size(self._call_byte_count, CALLS_BYTES_MAX)
            await self._begin(part)

    def _entity(self, wished: str) -> str:
        # A model's own id for a call is kept if it can be: models count from 1 with each call, or repeat themselves.
        is_free = wished not in self._fold and wished not in self._taken
        return wished if 0 < len(wished) <= TOOL_CALL_LENGTH_MAX and is_free else self._mint()

    async def _begin(self, part: _Part) -> None:
        # A block is told once there is something in it: an engine may begin a part and never say anything.
        part.is_begun = True
        match part.kind:
            case PartKind.TEXT:
                await self._tell(LlmStart(), part.entity)
            case PartKind.THINKING:
                await self._tell(LlmThinkingStart(), part.entity)
            case PartKind.TOOL_CALL:
                await self._tell(ToolStart(part.name, self._placement_of(part.name)), part.entity)

    async def _delta(self, part: _Part, delta: str) -> None:
        if not delta:
            return
        if not part.is_begun:
            await self._begin(part)
        is_ascii = delta.isascii()
        if not is_ascii:
            delta = delta.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        for begin in range(0, len(delta), DELTA_CHARACTERS_MAX):
            piece = delta[begin : begin + DELTA_CHARACTERS_MAX]
            offset = part.byte_count
            size = len(piece) if is_ascii else len(piece.encode())
            part.byte_count += size
            self._byte_count += size
            _check_size(part.byte_count, BLOCK_BYTES_MAX[part.kind])
            _check_size(self._byte_count, OUTPUT_BYTES_MAX)
            await self._tell(_DELTAS[part.kind](piece, offset), part.entity)

    async def _end(self, part: _Part, end: PartEnd) -> None:
        part.is_ended = True
        _check_size(len(end.summary.encode()) + len(end.encrypted_content.encode()), REASONING_BYTES_MAX)
        _check_size(len(end.signature.encode()), SIGNATURE_BYTES_MAX)
        _check_size(len(end.item.encode()), ITEM_BYTES_MAX)
        has_more = end.summary or end.encrypted_content or end.signature or end.item
        if part.kind is PartKind.THINKING and has_more and not part.is_begun:
            await self._begin(part)
        if part.is_begun:
            await self._tell_final(part, end)

    async def _tell_final(self, part: _Part, end: PartEnd) -> None:
        text = self._fold.text(part.entity)
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
                part.is_whole_call = not text or is_json_object(text)
                if part.is_whole_call:
                    await self._tell(ToolCallCompleted(ToolCall(part.entity, part.name, text)), part.entity)
                if not part.is_whole_call or self._ends_calls():
                    await self._tell(ToolDone(), part.entity)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise OutputTooLargeError(output_bytes_max=limit)
