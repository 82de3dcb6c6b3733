"""The watcher's side of a snapshot: each of its events is handed out once, however many streams it takes to read it."""

from collections.abc import Sequence

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import SnapshotPart
from turnwire_client._errors import ProtocolError


class Snapshot:
    """A snapshot while it is read.

    An inference is handed out once it is whole: with its terminal event, after which nothing about it can change, or
    with the last part of the snapshot. So a snapshot that is cut can begin anew, at another sequence, and goes on with
    the inferences that were not handed out. What is held is one inference and all those that have not ended.

    `through_sequence` is what the snapshot of the present stream tells of, None before its first response.
    """

    def __init__(self) -> None:
        self.through_sequence: int | None = None
        self._unfinished: list[Event] = []
        self._last_end = 0
        self._handed_out = 0  # the last end that was handed out

    def begin_anew(self) -> None:
        """The next part is the first one of a stream."""
        self.through_sequence = None
        self._unfinished = []
        self._last_end = 0

    def take(self, part: SnapshotPart, through: int) -> Sequence[Event]:
        """Takes a part; returns the events that can be handed out.

        Raises ProtocolError when it breaks a promise.
        """
        ready: list[Event] = []
        for event in part.events:
            if event.sequence > through:
                raise ProtocolError(f"event {event.sequence} is in a snapshot at {through}")
            self._add(event)
            if event.HasField("inference_finished"):
                ready.extend(self._end(event.sequence))
        if part.last:
            ready += self._unfinished
        return ready

    def _add(self, event: Event) -> None:
        """Holds the event with those of its inference; `_unfinished` ends with the inference that is being told."""
        last = self._unfinished[-1] if self._unfinished else None
        if last is not None and last.inference_id == event.inference_id and event.sequence <= last.sequence:
            raise ProtocolError(f"event {event.sequence} follows {last.sequence} in a snapshot")
        self._unfinished.append(event)

    def _end(self, sequence: int) -> Sequence[Event]:
        """An inference has ended at this sequence; returns its events unless they were handed out before."""
        whole, self._unfinished = self._unfinished, []
        if any(event.inference_id != whole[-1].inference_id for event in whole):
            raise ProtocolError("an inference that has ended follows one that has not, in a snapshot")
        if sequence <= self._last_end:
            raise ProtocolError(f"the end {sequence} follows {self._last_end} in a snapshot")
        self._last_end = sequence
        if sequence <= self._handed_out:
            return ()
        self._handed_out = sequence
        return whole
