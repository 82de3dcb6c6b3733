"""What is known of one session's log: a digest of every event, and whole the events of what has not ended."""

from collections.abc import Iterable
from hashlib import blake2b

from google.protobuf.message import Message

from turnwire.v1.event_pb2 import Event
from turnwire_conformance.promises import check_inference

DIGEST_BYTES = 12


def digest(message: Message) -> bytes:
    """Return the digest of a message."""
    return blake2b(message.SerializeToString(deterministic=True), digest_size=DIGEST_BYTES).digest()


class Logbook:
    """A log as far as it was read. Twelve bytes are kept of each event."""

    def __init__(self) -> None:
        self.unfinished: dict[str, list[Event]] = {}
        self.active = ""
        self._digests = bytearray()

    @property
    def head(self) -> int:
        """The sequence of the last event that was read."""
        return len(self._digests) // DIGEST_BYTES

    def take(self, events: Iterable[Event]) -> dict[str, list[Event]]:
        """Take events as they are in the log now, some of them again; return those of the inferences that ended.

        Checks HistoryImmutable for what is known, and Gapless, Unique, SingleActive and Terminal for what is new.
        """
        ended: dict[str, list[Event]] = {}
        for event in events:
            if event.sequence <= self.head:
                self._check_known(event)
                continue
            assert event.sequence == self.head + 1, f"Gapless: {event.sequence} follows {self.head}"
            self._digests += digest(event)
            self._check_active(event)
            story = self.unfinished.setdefault(event.inference_id, [])
            assert story or event.HasField("inference_queued"), f"Terminal: {event.inference_id} goes on after its end"
            story.append(event)
            if event.HasField("inference_finished"):
                check_inference(story)
                ended[event.inference_id] = self.unfinished.pop(event.inference_id)
        return ended

    def check_head(self, head: int) -> None:
        """Durable: a log does not get shorter."""
        assert head >= self.head, f"Durable: the head is {head}, and was {self.head}"

    def check_known(self, events: Iterable[Event]) -> None:
        """HistoryImmutable: events that were read before are what they were."""
        for event in events:
            self._check_known(event)

    def _check_known(self, event: Event) -> None:
        place = (event.sequence - 1) * DIGEST_BYTES
        known = bytes(self._digests[place : place + DIGEST_BYTES])
        assert digest(event) == known, f"HistoryImmutable: other bytes at {event.sequence}: {event}"

    def _check_active(self, event: Event) -> None:
        if event.HasField("inference_started"):
            assert self.active in {"", event.inference_id}, (
                f"SingleActive: {event.inference_id} starts at {event.sequence} while {self.active} is active"
            )
            self.active = event.inference_id
        elif event.HasField("inference_finished") and self.active == event.inference_id:
            self.active = ""
