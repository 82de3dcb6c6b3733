"""What a stream of events has in it, when nothing goes wrong."""

from collections.abc import Iterator, Sequence

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import (
    SnapshotPart,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
    SubscribeUntil,
    SubscriptionEnd,
    SubscriptionEndReason,
    SubscriptionOpened,
)
from turnwire_conformance.client.answers import check_cursor
from turnwire_conformance.client.world import INFERENCE, LOG, World


def responses(world: World, request: SubscribeEventsRequest, per_response: int) -> Iterator[SubscribeEventsResponse]:
    """Yields the responses of a stream, the end included if it has one.

    The first one opens the stream, and has no events. Raises Refusal.
    """
    start = request.WhichOneof("start")
    after = {"after_sequence": request.after_sequence, "live": world.head, "snapshot": world.head}.get(start or "", 0)
    check_cursor(world, after, request.log)
    opened = SubscriptionOpened(log=LOG, earliest_sequence=1, head_sequence=world.head)
    yield SubscribeEventsResponse(after_sequence=after, through_sequence=after, opened=opened)
    if start == "snapshot":
        yield from _snapshot(world, per_response)
    events = [
        event
        for event in world.events[after:]
        if not request.inference_id or event.inference_id == request.inference_id
    ]
    through = after
    for first in range(0, len(events), per_response):
        part = events[first : first + per_response]
        yield SubscribeEventsResponse(events=part, after_sequence=through, through_sequence=part[-1].sequence)
        through = part[-1].sequence
    reason = _end_reason(world, request)
    if reason is not None:
        yield SubscribeEventsResponse(
            after_sequence=through, through_sequence=world.head, end=SubscriptionEnd(reason=reason)
        )


def _end_reason(world: World, request: SubscribeEventsRequest) -> SubscriptionEndReason.ValueType | None:
    if request.until == SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP:
        return SubscriptionEndReason.SUBSCRIPTION_END_REASON_CAUGHT_UP
    if request.until == SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END and world.is_finished():
        return SubscriptionEndReason.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
    return None


def _snapshot(world: World, per_response: int) -> Iterator[SubscribeEventsResponse]:
    """The log without the deltas that a final stands for, in parts."""
    events = folded(world.events)
    for first in range(0, len(events), per_response):
        last = first + per_response >= len(events)
        part = SnapshotPart(events=events[first : first + per_response], last=last)
        yield SubscribeEventsResponse(after_sequence=world.head, through_sequence=world.head, snapshot=part)


def folded(events: Sequence[Event]) -> list[Event]:
    """The events of a log that bring a client to the same view as all of them do."""
    final = {event.entity for event in events if event.HasField("llm_final") and not event.llm_final.text_omitted}
    kept = (event for event in events if not (event.HasField("llm_delta") and event.entity in final))
    # What has not ended comes last.
    return sorted(kept, key=lambda event: event.inference_id != INFERENCE)
