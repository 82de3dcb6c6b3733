"""The seven promises of event.proto as checks on what watchers saw.

A `Watch` is one watcher: it takes the responses of one or more streams, and checks every promise that one watcher can
see. `check_agreement` compares watchers with each other and with the log as it is read afterwards.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from turnwire.v1 import event_pb2, inference_service_pb2


@dataclass
class Watch:
    """What one watcher of one session saw, over all of its streams. `inference_id` is its filter."""

    session_id: str
    inference_id: str = ""
    events: list[event_pb2.Event] = field(default_factory=list[event_pb2.Event])
    position: int = 0
    log: str = ""
    end: int = 0
    _is_open: bool = False

    def begin(self, after: int) -> None:
        """A stream begins after a sequence."""
        self.position = after
        self.end = 0
        self._is_open = False

    def take(self, response: inference_service_pb2.SubscribeEventsResponse) -> None:
        """Take one response, and check it against what came before."""
        assert not self.end, "a response after the one with `end`"
        assert response.HasField("opened") != self._is_open, "`opened` is in the first response, and only there"
        if not self._is_open:
            assert self.log in {"", response.opened.log}, "the log changed under the watcher"
            self.log = response.opened.log
            self._is_open = True
        assert response.after_sequence == self.position, f"Gapless: {response.after_sequence} follows {self.position}"
        assert response.through_sequence >= response.after_sequence
        for event in response.events:
            self._take_event(event, response)
        self.position = response.through_sequence
        self.end = response.end.reason

    def _take_event(self, event: event_pb2.Event, response: inference_service_pb2.SubscribeEventsResponse) -> None:
        assert event.session_id == self.session_id
        last = max(response.after_sequence, self.events[-1].sequence if self.events else 0)
        assert event.sequence > last, f"Ordered, Unique: {event.sequence} follows {last}"
        assert event.sequence <= response.through_sequence
        if self.inference_id:
            assert event.inference_id == self.inference_id
        else:
            assert event.sequence == last + 1, f"Gapless: {event.sequence} follows {last}"
        assert event.WhichOneof("payload"), "an event of no known variant"
        assert len(event.SerializeToString()) <= 256 * 1024
        self.events.append(event)


def check_log(events: Iterable[event_pb2.Event]) -> Mapping[str, list[event_pb2.Event]]:
    """Check a whole log: Gapless from 1, and each inference by itself; return the events of each inference."""
    by_inference: dict[str, list[event_pb2.Event]] = {}
    for position, event in enumerate(events, 1):
        assert event.sequence == position, f"Gapless: {event.sequence} at place {position}"
        by_inference.setdefault(event.inference_id, []).append(event)
    for own in by_inference.values():
        check_inference(own)
    return by_inference


def check_inference(events: list[event_pb2.Event]) -> None:
    """Check the events of one ended inference: Terminal, and that its entities tell whole stories."""
    names = [event.WhichOneof("payload") for event in events]
    assert names[0] == "inference_queued"
    assert names.count("inference_finished") == 1, f"Terminal: {names}"
    assert names[-1] == "inference_finished", f"Terminal: {names[-1]} follows the end"
    assert events[-1].inference_finished.event_count == len(events)
    text: dict[str, bytes] = {}
    ended: set[str] = set()
    for event in events:
        name, entity = event.WhichOneof("payload") or "", event.entity
        payload = getattr(event, name)
        if name in {"llm_start", "llm_thinking_start", "tool_start"}:
            assert entity not in text, f"{entity} begins twice"
            text[entity] = b""
        elif name in {"llm_delta", "llm_thinking_delta", "tool_delta"}:
            assert entity not in ended
            assert payload.offset == len(text[entity]), f"{entity}: delta at {payload.offset}"
            assert payload.delta
            text[entity] += payload.delta.encode()
        elif name in {"llm_final", "llm_thinking_final"}:
            ended.add(entity)
            assert payload.text_bytes == len(text[entity])
            assert payload.text_omitted or payload.text.encode() == text[entity]
        elif name == "tool_call":
            ended.add(entity)
            assert payload.args_omitted or payload.call.args.encode() == text[entity]
    if events[-1].inference_finished.HasField("succeeded"):
        assert ended == text.keys(), "a block of a succeeded inference has no final"


def check_agreement(log: list[event_pb2.Event], watches: Iterable[Watch]) -> None:
    """Resumable: every watcher saw the same bytes at each sequence, and everything its filter lets through."""
    stored = {event.sequence: event.SerializeToString(deterministic=True) for event in log}
    for watch in watches:
        seen = {event.sequence: event.SerializeToString(deterministic=True) for event in watch.events}
        first = watch.events[0].sequence if watch.events else 1
        expected = {
            event.sequence: stored[event.sequence]
            for event in log
            if first <= event.sequence <= watch.position
            and (not watch.inference_id or event.inference_id == watch.inference_id)
        }
        assert seen == expected
