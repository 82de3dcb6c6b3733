"""What a client makes of the events of a session: what each inference is at, and what each of its blocks says.

It is written from event.proto, and knows nothing of how logs are folded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from turnwire_server.domain.event import (
    Event,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ThinkingMode,
    ThinkingModeCompleted,
    ThinkingModeStarted,
    ThinkingModeUpdate,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolResult,
    ToolsRequired,
    ToolStart,
)


@dataclass
class EntityView:
    """One block, tool call or phase of a thinking mode."""

    start: Payload | None = None
    text: str = ""
    byte_count: int = field(default=0, compare=False)
    final: Payload | None = None
    result: Payload | None = None
    is_done: bool = False
    mode: ThinkingMode | None = None
    mode_end: Payload | None = None


@dataclass
class InferenceView:
    """One inference. `told` is what is about it as a whole, with what is only told, such as log lines."""

    state: str = ""
    attempt: int = 0
    told: list[Payload] = field(default_factory=list[Payload])
    entities: list[tuple[str, EntityView]] = field(default_factory=list[tuple[str, EntityView]])


View: TypeAlias = dict[str, InferenceView]


def view_of(events: Sequence[Event]) -> View:
    """Return what a client knows after these events, which may begin with a snapshot."""
    views: View = {}
    for inference_id in dict.fromkeys(event.inference_id for event in events):
        view = views[inference_id] = InferenceView()
        for event in _without_void([each for each in events if each.inference_id == inference_id]):
            _apply(view, event)
    return views


def _without_void(events: Sequence[Event]) -> Iterable[Event]:
    """Leave out what was void by the time that a loss was told."""
    left: list[Event] = []
    for event in events:
        if isinstance(event.payload, InferenceAttemptLost):
            holds_through = event.payload.superseded_after_sequence
            left = [each for each in left if each.sequence <= holds_through]
        left.append(event)
    return left


def _apply(view: InferenceView, event: Event) -> None:
    entity = next((entity for name, entity in reversed(view.entities) if name == event.entity), None)
    match event.payload:
        case LlmStart() | LlmThinkingStart() | ToolStart() as start:
            view.entities.append((event.entity, EntityView(start)))
        case LlmDelta(delta, offset) | LlmThinkingDelta(delta, offset) | ToolDelta(delta, offset):
            assert entity is not None
            assert not entity.final, "a delta after the final"
            assert offset == entity.byte_count, "a delta that does not follow"
            entity.text += delta
            entity.byte_count += len(delta.encode())
        case LlmFinal() | LlmThinkingFinal() | ToolCallCompleted() as final:
            assert entity is not None
            entity.final = final
            _take_final(entity, final)
        case ToolResult() as result:
            assert entity is not None
            entity.result = result
        case ToolDone():
            assert entity is not None
            entity.is_done = True
        case ThinkingModeStarted(mode) | ThinkingModeUpdate(mode) | ThinkingModeCompleted(mode):
            if entity is None:
                entity = EntityView()
                view.entities.append((event.entity, entity))
            entity.mode = mode
            entity.mode_end = event.payload if isinstance(event.payload, ThinkingModeCompleted) else None
        case payload:
            view.told.append(payload)
            view.attempt = event.attempt
            view.state = _state(payload) or view.state


def _take_final(entity: EntityView, final: LlmFinal | LlmThinkingFinal | ToolCallCompleted) -> None:
    if isinstance(final, ToolCallCompleted):
        entity.text = entity.text if final.args_omitted else final.call.args
    else:
        entity.text = entity.text if final.text_omitted else final.text
        assert len(entity.text.encode()) == final.text_bytes, "a text of another length than its final says"


def _state(payload: Payload) -> str:
    match payload:
        case InferenceQueued() | InferenceAttemptLost():
            return "queued"
        case InferenceStarted():
            return "running"
        case ToolsRequired():
            return "waiting"
        case InferenceFinished(outcome):
            return type(outcome).__name__
        case _:
            return ""
