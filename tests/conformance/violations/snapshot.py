"""Snapshots that are not what the log folds to."""

from collections.abc import Callable
from typing import Any

from turnwire.v1.event_pb2 import Event
from violations.exchange import Plant
from violations.streams import is_a, rewrites
from violations.violation import violation

PART = "SnapshotPart"


def folds(refold: Callable[[list[Any]], list[Any]]) -> Plant:
    """Return a plant that folds the events of each part of a snapshot otherwise."""

    def edit(_: Any, response: Any) -> None:
        if response.HasField("snapshot"):
            events = refold(list(response.snapshot.events))
            del response.snapshot.events[:]
            response.snapshot.events.extend(events)

    return rewrites(edit)


def without(*payloads: str) -> Plant:
    """Return a plant that leaves events out of snapshots."""
    which = is_a(*payloads)
    return folds(lambda events: [event for event in events if not which(event)])


def with_deltas(events: list[Any]) -> list[Any]:
    """Have a delta before each final that stands for it."""
    told: list[Any] = []
    for event in events:
        if event.HasField("llm_final"):
            delta = Event()
            delta.CopyFrom(event)
            delta.llm_delta.delta = event.llm_final.text or "x"
            told.append(delta)
        told.append(event)
    return told


def in_pieces(events: list[Any]) -> list[Any]:
    """Have a joined delta in two pieces."""
    told: list[Any] = []
    for event in events:
        if event.HasField("llm_delta") and len(event.llm_delta.delta) > 1:
            piece = Event()
            piece.CopyFrom(event)
            piece.llm_delta.delta = event.llm_delta.delta[:1]
            event.llm_delta.delta = event.llm_delta.delta[1:]
            event.llm_delta.offset += 1
            told.append(piece)
        told.append(event)
    return told


def with_first_sequences(events: list[Any]) -> list[Any]:
    """Have joined deltas at the sequence of the first one."""
    for event in events:
        if event.HasField("llm_delta"):
            event.sequence -= len(event.llm_delta.delta) - 1
    return events


def the_oldest_first(events: list[Any]) -> list[Any]:
    """Have inferences in the order in which they began."""
    first: dict[str, int] = {}
    for event in events:
        first[event.inference_id] = min(event.sequence, first.get(event.inference_id, event.sequence))
    return sorted(events, key=lambda event: first[event.inference_id])


def before_it_was(_: Any, response: Any) -> None:
    """Say that a snapshot is of an earlier place."""
    if response.HasField("snapshot") or response.HasField("opened"):
        response.after_sequence = response.through_sequence = 1


def never_whole(_: Any, response: Any) -> None:
    """Never say which part is the last."""
    if response.HasField("snapshot"):
        response.snapshot.last = False


VIOLATIONS = [
    violation(
        "a-snapshot-lacks-texts",
        (f"{PART}.events", "Events that, taken in order, bring a client"),
        without("llm_final", "tool_call"),
    ),
    violation(
        "a-snapshot-lacks-starts",
        (f"{PART}.events", "Each entity is told by its start"),
        without("llm_start", "llm_thinking_start", "tool_start"),
    ),
    violation("a-snapshot-is-in-pieces", (f"{PART}.events", "Each entity is told by its start"), folds(in_pieces)),
    violation(
        "a-snapshot-has-what-was-replaced",
        (f"{PART}.events", "Left out is what was void already"),
        folds(with_deltas),
    ),
    violation(
        "a-snapshot-forgets-what-inferences-were-at",
        (f"{PART}.events", "What tells of the inference itself stays"),
        without("inference_started"),
    ),
    violation(
        "joined-deltas-stand-where-they-began",
        (f"{PART}.events", "The sequence of an event is that of the last one"),
        folds(with_first_sequences),
    ),
    violation(
        "what-began-first-comes-first",
        (f"{PART}.events", "The sequence of an event is that of the last one"),
        folds(the_oldest_first),
    ),
    violation(
        "a-snapshot-is-of-an-earlier-place",
        (PART, "A part of a snapshot: what is known at the sequence"),
        rewrites(before_it_was, lambda request: request.HasField("snapshot")),
    ),
    violation("a-snapshot-has-no-last-part", (f"{PART}.last", "Whether this is the last part."), rewrites(never_whole)),
]
