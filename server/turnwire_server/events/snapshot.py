"""The fold of an inference's events to the blocks that they tell of.

A running attempt folds what it tells, recovery folds what the log has: both get the same blocks, but for what goes
back to a provider with reasoning, which a large event leaves out.
"""

from dataclasses import dataclass, field

from turnwire_server.domain.event import (
    EngineCallFinished,
    Event,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    ToolCallCompleted,
    ToolDelta,
    ToolResult,
    ToolStart,
)
from turnwire_server.domain.inference import Usage
from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block, BlockKind, BlockStatus, LlmText, Reasoning


@dataclass(slots=True)
class _Entity:
    """One block as far as it was told. `final` is set by its final event."""

    start: LlmStart | LlmThinkingStart | ToolStart
    pieces: list[str] = field(default_factory=list[str])
    final: LlmFinal | LlmThinkingFinal | ToolCallCompleted | None = None


class Fold:
    """Takes the events of one attempt in order; tells the blocks that it has produced, its usage and its model."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.model = ""
        self._entities: dict[str, _Entity] = {}
        self._uses: dict[str, ToolUse] = {}

    def apply(self, event: Event) -> None:
        """Take one event; those that tell of no output are skipped."""
        match event.payload:
            case LlmDelta(delta) | LlmThinkingDelta(delta) | ToolDelta(delta):
                self._entities[event.entity].pieces.append(delta)
            case LlmStart() | LlmThinkingStart() | ToolStart() as start:
                self._entities[event.entity] = _Entity(start)
            case LlmFinal() | LlmThinkingFinal() | ToolCallCompleted() as final:
                self._entities[event.entity].final = final
            case ToolResult(use):
                self._uses[event.entity] = use
            case EngineCallFinished(usage, model=model):
                self.usage += usage
                self.model = model or self.model
            case _:
                pass

    def __contains__(self, entity: str) -> bool:
        return entity in self._entities

    def text(self, entity: str) -> str:
        """Return the joined pieces of one entity."""
        return "".join(self._entities[entity].pieces)

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the tool calls that are complete, in the order in which they began."""
        return tuple(
            ToolCall(name, entity.start.name, "".join(entity.pieces))
            for name, entity in self._entities.items()
            if isinstance(entity.start, ToolStart) and entity.final
        )

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks in the order in which they began, INCOMPLETE those without a final; then the outcomes."""
        produced = tuple(
            Block(
                id="" if isinstance(entity.start, ToolStart) else name,
                kind=_kind(name, entity),
                role="assistant" if isinstance(entity.start, ToolStart) else entity.start.role,
                status=BlockStatus.COMPLETE if entity.final else BlockStatus.INCOMPLETE,
            )
            for name, entity in self._entities.items()
            if entity.final or entity.pieces or isinstance(entity.start, ToolStart)
        )
        return produced + tuple(Block("", use, "tool") for use in self._uses.values())


def _kind(name: str, entity: _Entity) -> BlockKind:
    text = "".join(entity.pieces)
    match entity.start:
        case LlmStart():
            return LlmText(text)
        case LlmThinkingStart():
            final = entity.final
            # Without what was left out of a large event, the rest is of no use to a provider.
            if not isinstance(final, LlmThinkingFinal) or final.text_omitted:
                return Reasoning(text)
            return Reasoning(text, final.summary, final.encrypted_content, final.signature, final.item)
        case ToolStart(tool):
            return ToolCall(name, tool, text)
