"""Reading the snapshot that a stream begins with, and comparing it with the log that it stands for."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from support.event_view import View, view_of
from turnwire.v1 import event_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import EVENT_BYTES_MAX
from turnwire_server.events.log_fold import LogFold
from turnwire_server.wire.event import event_from_proto, event_to_proto

# A part aims at 1 MiB and passes it by less than an event.
PART_BYTES_MAX = 1024 * 1024 + EVENT_BYTES_MAX


@dataclass
class Snapshot:
    """What stands for the events up to `through_sequence`; `responses` are those that it came in."""

    through_sequence: int
    opened: pb.SubscriptionOpened
    events: list[event_pb2.Event] = field(default_factory=list[event_pb2.Event])
    responses: list[pb.SubscribeEventsResponse] = field(default_factory=list[pb.SubscribeEventsResponse])


async def take_snapshot(call: AsyncIterator[pb.SubscribeEventsResponse]) -> Snapshot:
    """Read the responses of a stream up to the last part of its snapshot, and check what all of them promise."""
    first = await anext(call)
    assert first.HasField("opened"), "the first response has no `opened`"
    snapshot = Snapshot(first.through_sequence, first.opened)
    response = first
    while True:
        assert response.HasField("opened") == (response is first)
        assert response.after_sequence == response.through_sequence == snapshot.opened.head_sequence
        assert not response.events, "events before the end of the snapshot"
        assert not response.HasField("end"), "an end before the end of the snapshot"
        assert response.ByteSize() <= PART_BYTES_MAX
        snapshot.responses.append(response)
        snapshot.events.extend(response.snapshot.events)
        if response.snapshot.last:
            return snapshot
        response = await anext(call)


def fold_messages(events: Iterable[event_pb2.Event]) -> list[event_pb2.Event]:
    """Return what stands for these events."""
    fold = LogFold()
    folded = [done for event in events for done in fold.take(event_from_proto(event))]
    folded += [event for story in fold.unfinished() for event in story]
    return [event_to_proto(event) for event in folded]


def view_of_messages(events: Iterable[event_pb2.Event]) -> View:
    """Return what a client knows after these events."""
    return view_of([event_from_proto(event) for event in events])
