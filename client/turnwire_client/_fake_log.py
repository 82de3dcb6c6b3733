"""How the log of FakeServer is read: as a stream, and in one page."""

from collections.abc import AsyncIterator

from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire_client._fake import FakeStore
from turnwire_client._fake_session import TERMINAL, FakeSession, Refused
from turnwire_client._fake_snapshot import snapshot_parts


def open_log(store: FakeStore, request: pb.SubscribeEventsRequest) -> tuple[FakeSession, int]:
    """The session to watch, and the sequence to begin after. Raises Refused."""
    session = store.session(request.session_id)
    session_id, head = session.proto.session_id, len(session.events)
    if request.inference_id and request.inference_id not in session.inferences:
        raise Refused("INFERENCE_NOT_FOUND", inference_id=request.inference_id)
    if request.log and request.log != session.proto.log:
        raise Refused("LOG_REPLACED", session_id=session_id, log=session.proto.log)
    start = request.WhichOneof("start")
    after = {"after_sequence": request.after_sequence, "from_beginning": 0}.get(str(start), head)
    if after > head:
        raise Refused("CURSOR_AHEAD", session_id=session_id, after_sequence=after, head_sequence=head)
    return session, after


def read_log(store: FakeStore, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
    """Everything after a sequence. Raises Refused."""
    cursor = pb.SubscribeEventsRequest(
        session_id=request.session_id,
        inference_id=request.inference_id,
        after_sequence=request.after_sequence,
        log=request.log,
    )
    session, after = open_log(store, cursor)
    head = len(session.events)
    return pb.ListEventsResponse(
        events=[event for event in session.events[after:] if request.inference_id in {"", event.inference_id}],
        after_sequence=after,
        through_sequence=head,
        log=session.proto.log,
        head_sequence=head,
        earliest_sequence=1,
    )


async def stream(
    session: FakeSession, request: pb.SubscribeEventsRequest, position: int
) -> AsyncIterator[pb.SubscribeEventsResponse]:
    """One response per event, the hardest case for a client."""
    head = len(session.events)
    opened = pb.SubscriptionOpened(log=session.proto.log, earliest_sequence=1, head_sequence=head)
    yield pb.SubscribeEventsResponse(after_sequence=position, through_sequence=position, opened=opened)
    wanted = request.inference_id
    if request.HasField("snapshot"):
        for part in snapshot_parts(event for event in session.events[:head] if wanted in {"", event.inference_id}):
            yield pb.SubscribeEventsResponse(after_sequence=head, through_sequence=head, snapshot=part)
    ends = pb.SubscriptionEndReason
    reason = ends.SUBSCRIPTION_END_REASON_UNSPECIFIED
    while not reason:
        while position < len(session.events):
            event: Event = session.events[position]
            shown = [event] if wanted in {"", event.inference_id} else []
            yield pb.SubscribeEventsResponse(events=shown, after_sequence=position, through_sequence=position + 1)
            position += 1
        inference: Inference | None = session.inferences.get(wanted)
        if session.deleted:
            reason = ends.SUBSCRIPTION_END_REASON_SESSION_DELETED
        elif request.until == pb.SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP:
            reason = ends.SUBSCRIPTION_END_REASON_CAUGHT_UP
        elif (
            request.until == pb.SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END
            and inference is not None
            and inference.state in TERMINAL
        ):
            reason = ends.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
        elif position == len(session.events):
            await session.wait_change()
    end = pb.SubscriptionEnd(reason=reason)
    yield pb.SubscribeEventsResponse(after_sequence=position, through_sequence=position, end=end)
