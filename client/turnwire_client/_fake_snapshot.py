"""The snapshots of FakeServer: what it tells of its log, in parts of one event, the hardest case for a client."""

from collections.abc import Iterable, Iterator

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import SnapshotPart

_DELTAS = frozenset({"llm_delta", "llm_thinking_delta"})
_FINALS = frozenset({"llm_final", "llm_thinking_final"})


def snapshot_parts(events: Iterable[Event]) -> Iterator[SnapshotPart]:
    """The parts of a snapshot of these events, of which FakeServer writes no others than text and reasoning."""
    stories: dict[str, dict[int | str, Event]] = {}
    for event in events:
        story = stories.setdefault(event.inference_id, {})
        name = str(event.WhichOneof("payload"))
        if name in _DELTAS:
            story[event.entity] = _joined(story.pop(event.entity, None), event, name)
            continue
        if name in _FINALS:
            story.pop(event.entity, None)
        story[event.sequence] = event
        if name == "inference_finished":
            for told in stories.pop(event.inference_id).values():
                yield SnapshotPart(events=[told])
    for story in stories.values():
        for told in story.values():
            yield SnapshotPart(events=[told])
    yield SnapshotPart(last=True)


def _joined(before: Event | None, event: Event, name: str) -> Event:
    if before is None:
        return event
    joined = Event()
    joined.CopyFrom(event)
    delta, earlier = getattr(joined, name), getattr(before, name)
    delta.delta, delta.offset = earlier.delta + delta.delta, earlier.offset
    return joined
