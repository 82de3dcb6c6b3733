"""The watcher's side of the seven promises: checks each response of SubscribeEvents against the one before."""

from collections.abc import Iterable, Sequence

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import SubscribeEventsResponse
from turnwire_client._errors import ProtocolError


class Continuity:
    """What has been seen of a log, over all the streams that it took to see it.

    `after_sequence` is where the next response has to begin, None while the server decides that. `inference_id` is
    empty for a watcher of the whole session. `started` tells that an event has come, `finished` that the
    inference's terminal event has.
    """

    def __init__(self, session_id: str, inference_id: str, after_sequence: int | None, log: str) -> None:
        self.session_id = session_id
        self.inference_id = inference_id
        self.after_sequence = after_sequence
        self.log = log
        self.started = False
        self.finished = False
        self._opened = False

    def reopen(self) -> None:
        """The next response is the first one of a stream."""
        self._opened = False

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
        events = response.events
        self._check_order(events, after, through)
        self.after_sequence = through
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
