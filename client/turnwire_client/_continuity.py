"""The watcher's side of the seven promises: checks each response of SubscribeEvents against the one before."""

from collections.abc import Iterable, Sequence

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import SubscribeEventsResponse, SubscriptionEndReason
from turnwire_client._errors import ProtocolError, UnknownEventError
from turnwire_client._snapshot import Snapshot

# How a stream ends that has told all that it was asked for.
COMPLETE = frozenset(
    {
        SubscriptionEndReason.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED,
        SubscriptionEndReason.SUBSCRIPTION_END_REASON_CAUGHT_UP,
    }
)


class Continuity:
    """What has been seen of a log, over all the streams that it took to see it.

    `after_sequence` is where the next response has to begin, None while the server decides that. `inference_id` is
    empty for a watcher of the whole session. `started` tells that an event has come, `finished` that the
    inference's terminal event has. `snapshot` is the one that is being read, None when there is none or it is whole;
    `snapshot_through` is where the last one that is whole ends.
    """

    def __init__(self, session_id: str, inference_id: str, after_sequence: int | None, log: str) -> None:
        self.session_id = session_id
        self.inference_id = inference_id
        self.after_sequence = after_sequence
        self.log = log
        self.started = False
        self.finished = False
        self.snapshot: Snapshot | None = None
        self.snapshot_through: int | None = None
        self._opened = False

    def begin_snapshot(self) -> None:
        """The next stream begins with a snapshot, which tells everything anew."""
        self.after_sequence, self.snapshot, self.snapshot_through = None, Snapshot(), None
        self.finished = False

    def reopen(self) -> None:
        """The next response is the first one of a stream."""
        self._opened = False
        if self.snapshot:
            self.snapshot.begin_anew()

    def take(self, response: SubscribeEventsResponse) -> Sequence[Event]:
        """Checks a response and returns its events.

        Raises ProtocolError when it breaks a promise.
        """
        self._check_opened(response)
        after, through = response.after_sequence, response.through_sequence
        if self.after_sequence is not None and after != self.after_sequence:
            raise ProtocolError(f"a response begins after {after}, the one before ended at {self.after_sequence}")
        if through < after:
            raise ProtocolError(f"a response covers ({after}, {through}]")
        if self.snapshot:
            return self._take_snapshot(self.snapshot, response)
        if response.HasField("snapshot"):
            raise ProtocolError("a part of a snapshot that was not asked for, or is whole already")
        events = response.events
        self._check_order(events, after, through)
        self.after_sequence = through
        return events

    def _take_snapshot(self, snapshot: Snapshot, response: SubscribeEventsResponse) -> Sequence[Event]:
        """The cursor stays where it is until the snapshot is whole: there is none inside of it."""
        through = response.through_sequence
        if response.events or response.after_sequence != through or snapshot.through_sequence not in {None, through}:
            raise ProtocolError(f"a snapshot at {snapshot.through_sequence} goes on after {response.after_sequence}")
        snapshot.through_sequence = through
        events = snapshot.take(response.snapshot, through)
        for event in events:
            self.started = True
            self._check_belongs(event)
        if response.end.reason in COMPLETE and not response.snapshot.last:
            raise ProtocolError("the stream ended within its snapshot")
        if response.snapshot.last:
            self.after_sequence = self.snapshot_through = through
            self.snapshot = None
        return events

    def _check_opened(self, response: SubscribeEventsResponse) -> None:
        if response.HasField("opened") == self._opened:
            raise ProtocolError("`opened` is not in the first response" if not self._opened else "`opened` came twice")
        if self._opened:
            return
        if self.log and response.opened.log != self.log:
            raise ProtocolError(f"the stream was opened on log {response.opened.log!r}, not on {self.log!r}")
        self.log = response.opened.log
        self._opened = True

    def _check_order(self, events: Iterable[Event], after: int, through: int) -> None:
        last = after
        for event in events:
            sequence = event.sequence
            if sequence <= last or sequence > through:
                raise ProtocolError(f"event {sequence} follows {last} in a response that covers ({after}, {through}]")
            if not self.inference_id and sequence != last + 1:
                raise ProtocolError(f"events {last + 1} to {sequence - 1} are missing")
            last = sequence
            self.started = True
            self._check_belongs(event)
        if not self.inference_id and last != through:
            raise ProtocolError(f"events {last + 1} to {through} are missing")

    def _check_belongs(self, event: Event) -> None:
        if event.session_id != self.session_id:
            raise ProtocolError(f"event {event.sequence} is of session {event.session_id}")
        if not self.inference_id:
            return
        if event.inference_id != self.inference_id:
            raise ProtocolError(f"event {event.sequence} is of inference {event.inference_id}")
        if self.finished:
            raise ProtocolError(f"event {event.sequence} follows the terminal event of {self.inference_id}")
        self.finished = event.HasField("inference_finished")


def is_known(event: Event) -> bool:
    """Whether this version knows the event; False for one that may be skipped.

    Raises UnknownEventError for one that must not be.
    """
    if event.WhichOneof("payload") is not None:
        return True
    if not event.ignorable:
        raise UnknownEventError(f"event {event.sequence} is of a kind that this version does not know")
    return False
