"""The fold of a log: the fewest events that bring a client to the same view as all of them (contract: SnapshotPart).

What is folded may be folded again, alone or with what came after it: fold(fold(a) + b) is fold(a + b), wherever the log
is cut in two. That holds for every log that a server writes, because of two things that are true of each: a step has
all deltas of a block or none, so what a lost attempt makes void never cuts a joined delta in two; and an inference's
first event is never void.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from turnwire_server.domain.event import (
    EngineCallFinished,
    EngineCallStarted,
    Event,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceStarted,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    ThinkingModeCompleted,
    ThinkingModeUpdate,
    ToolCallCompleted,
    ToolDelta,
    ToolResult,
    ToolStart,
)

# What a joined delta has at most (contract: LlmDelta), so that its event keeps well below 256 KiB.
DELTA_BYTES_MAX = 128 * 1024


class LogFold:
    """Takes the events of a log in order; hands out what stands for an inference's events once it has ended.

    Only inferences that have not ended are held. An inference that is handed out is final: no later event changes it.
    """

    def __init__(self) -> None:
        self._stories: dict[str, _Story] = {}  # in the order in which they began

    def take(self, event: Event) -> tuple[Event, ...]:
        """Take the next event; return what stands for its inference if that is its end."""
        story = self._stories.get(event.inference_id)
        if story is None:
            story = self._stories[event.inference_id] = _Story()
        story.take(event)
        if not isinstance(event.payload, InferenceFinished):
            return ()
        del self._stories[event.inference_id]
        return story.ended()

    def unfinished(self) -> Iterator[tuple[Event, ...]]:
        """Yield what stands for each inference that has not ended so far."""
        for story in self._stories.values():
            yield story.events()


@dataclass(slots=True)
class _Joined:
    """Neighbouring deltas of one entity. `last` is the last of them, `byte_count` what all of them have."""

    last: Event
    offset: int
    byte_count: int
    pieces: list[str]

    def event(self) -> Event:
        if len(self.pieces) == 1:
            return self.last
        payload = self.last.payload
        assert isinstance(payload, LlmDelta | LlmThinkingDelta | ToolDelta)
        return replace(self.last, payload=replace(payload, delta="".join(self.pieces), offset=self.offset))


class _Story:
    """What stands for the events of one inference so far."""

    def __init__(self) -> None:
        self._kept: list[Event] = []
        # The deltas of entities whose final has not come.
        self._deltas: dict[str, list[_Joined]] = {}
        # The last update of a thinking mode in each stage. A lost attempt may bring back the one before the last, so
        # that is kept until the inference has ended.
        self._updates: dict[tuple[str, int], Event] = {}
        self._stage = 0

    def take(self, event: Event) -> None:
        match event.payload:
            case LlmDelta(delta, offset) | LlmThinkingDelta(delta, offset) | ToolDelta(delta, offset):
                self._join(event, delta, offset)
            case ThinkingModeUpdate():
                self._updates[event.entity, self._stage] = event
            case InferenceAttemptLost(superseded_after_sequence=holds_through):
                self._drop(holds_through)
                self._kept.append(event)  # it tells that the inference is in its line again
            case _:
                self._keep(event)

    def events(self) -> tuple[Event, ...]:
        """Return what stands for it so far, in order."""
        joined = (joined.event() for deltas in self._deltas.values() for joined in deltas)
        return tuple(sorted((*self._kept, *joined, *self._updates.values()), key=_sequence))

    def ended(self) -> tuple[Event, ...]:
        """Return what stands for it, once nothing can come back any more."""
        completed = {e.entity: e.sequence for e in self._kept if isinstance(e.payload, ThinkingModeCompleted)}
        last = {entity: update for (entity, _), update in self._updates.items()}
        self._updates = {
            (entity, 0): update for entity, update in last.items() if update.sequence > completed.get(entity, 0)
        }
        return self.events()

    def _keep(self, event: Event) -> None:
        self._kept.append(event)
        match event.payload:
            case LlmStart() | LlmThinkingStart() | ToolStart():
                self._settle(event.entity, is_needed=True)
            case LlmFinal(text_omitted=is_omitted) | LlmThinkingFinal(text_omitted=is_omitted):
                self._settle(event.entity, is_needed=is_omitted)
            case ToolCallCompleted(args_omitted=is_omitted):
                self._settle(event.entity, is_needed=is_omitted)
            case ThinkingModeCompleted():
                self._updates.pop((event.entity, self._stage), None)
            case InferenceStarted() | EngineCallStarted() | EngineCallFinished() | ToolResult():
                self._stage += 1  # between two steps there is at least one of these
            case _:
                pass

    def _join(self, event: Event, delta: str, offset: int) -> None:
        deltas = self._deltas.setdefault(event.entity, [])
        byte_count = len(delta) if delta.isascii() else len(delta.encode())
        if deltas and deltas[-1].byte_count + byte_count <= DELTA_BYTES_MAX:
            joined = deltas[-1]
            joined.pieces.append(delta)
            joined.byte_count += byte_count
            joined.last = event
        else:
            deltas.append(_Joined(event, offset, byte_count, [delta]))

    def _settle(self, entity: str, *, is_needed: bool) -> None:
        """Nothing joins the deltas of an entity any more; keep them if nothing else has what they say."""
        deltas = self._deltas.pop(entity, ())
        if is_needed:
            self._kept.extend(joined.event() for joined in deltas)

    def _drop(self, holds_through: int) -> None:
        """Forget what came after a sequence."""
        self._kept = [event for event in self._kept if event.sequence <= holds_through]
        self._updates = {key: event for key, event in self._updates.items() if event.sequence <= holds_through}
        for entity, deltas in tuple(self._deltas.items()):
            self._deltas[entity] = [joined for joined in deltas if joined.last.sequence <= holds_through]


def _sequence(event: Event) -> int:
    return event.sequence
