"""The seven promises of event.proto as checks on what watchers saw.

A `Watch` is one watcher: it takes the responses of one or more streams, and checks every promise that one watcher can
see. `check_agreement` compares watchers with each other and with the log as it is read afterwards.

A violation begins with the name of the promise that is broken. Every assertion has its broken stream in
tests/conformance/test_promises.py, which fails when one is added without.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from turnwire.v1 import event_pb2, inference_service_pb2
from turnwire.v1.inference_pb2 import FINISH_CLASS_TOOL_CALLS_PENDING

EVENT_BYTES_MAX = 256 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024

_STARTS = {"llm_start", "llm_thinking_start", "tool_start"}
_DELTAS = {"llm_delta", "llm_thinking_delta", "tool_delta"}
_FINALS = {"llm_final", "llm_thinking_final", "tool_call"}
_OF_CALLS = {"tool_result", "tool_done", "tools_required"}
_AFTER_A_LOSS = {"inference_started", "turn_closed", "inference_finished"}


@dataclass
class Watch:
    """What one watcher of one session saw, over all of its streams. `inference_id` is its filter.

    `start` is the sequence that its first stream began after; it has to see all that follows, each event once.
    `response_bytes` are the sizes of the responses that it took.
    """

    session_id: str
    inference_id: str = ""
    events: list[event_pb2.Event] = field(default_factory=list[event_pb2.Event])
    response_bytes: list[int] = field(default_factory=list[int])
    start: int = 0
    position: int = 0
    log: str = ""
    end: int = 0
    _is_open: bool = False
    _is_resumed: bool = False

    def begin(self, after: int) -> None:
        """A stream begins after a sequence."""
        if not self._is_resumed:
            self.start = after
        self._is_resumed = True
        self.position = after
        self.end = 0
        self._is_open = False

    def take(self, response: inference_service_pb2.SubscribeEventsResponse) -> None:
        """Take one response, and check it against what came before."""
        assert not self.end, "Resumable: a response after the one with `end`"
        assert response.HasField("opened") != self._is_open, (
            "Resumable: `opened` is in the first response, and only there"
        )
        if not self._is_open:
            self._open(response)
        assert response.after_sequence == self.position, f"Gapless: {response.after_sequence} follows {self.position}"
        assert response.through_sequence >= response.after_sequence, "Ordered: a response that reaches back"
        assert response.ByteSize() <= RESPONSE_BYTES_MAX, f"Bounded: a response of {response.ByteSize()} bytes"
        sequences = [event.sequence for event in response.events]
        assert len(set(sequences)) == len(sequences), f"Unique: a response with {sequences}"
        assert sequences == sorted(sequences), f"Ordered: a response with {sequences}"
        for event in response.events:
            self._take_event(event, response)
        if not self.inference_id:
            last = response.events[-1].sequence if response.events else response.after_sequence
            assert last == response.through_sequence, f"Gapless: {last} is the last up to {response.through_sequence}"
        self.response_bytes.append(response.ByteSize())
        self.position = response.through_sequence
        if response.HasField("end"):
            self.end = response.end.reason
            assert self.end, "Resumable: an `end` without a reason"

    def _open(self, response: inference_service_pb2.SubscribeEventsResponse) -> None:
        opened = response.opened
        assert opened.log, "Resumable: `opened` without the token of the log"
        assert self.log in {"", opened.log}, "Resumable: the log changed under the watcher"
        assert opened.head_sequence >= response.after_sequence, "Resumable: the stream begins beyond the head"
        self.log = opened.log
        self._is_open = True

    def _take_event(self, event: event_pb2.Event, response: inference_service_pb2.SubscribeEventsResponse) -> None:
        assert event.session_id == self.session_id, f"Resumable: an event of session {event.session_id}"
        last = max(response.after_sequence, self.events[-1].sequence if self.events else 0)
        assert event.sequence > last, f"Unique: {event.sequence} follows {last}"
        if self.inference_id:
            assert event.inference_id == self.inference_id, (
                f"Resumable: the filter let inference {event.inference_id} through"
            )
            assert event.sequence <= response.through_sequence, f"Ordered: {event.sequence} is beyond through_sequence"
        else:
            assert event.sequence == last + 1, f"Gapless: event {event.sequence} follows {last}"
        assert event.WhichOneof("payload") or event.ignorable, "Gapless: an event of no known variant"
        assert event.ByteSize() <= EVENT_BYTES_MAX, f"Bounded: an event of {event.ByteSize()} bytes"
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
    assert names[0] == "inference_queued", f"Ordered: an inference that begins with {names[0]}"
    assert names.count("inference_finished") == 1, f"Terminal: {names.count('inference_finished')} ends in {names}"
    assert names[-1] == "inference_finished", f"Terminal: {names[-1]} follows the end"
    finished = events[-1].inference_finished
    assert finished.event_count == len(events), f"Gapless: event_count {finished.event_count} for {len(events)} events"
    assert finished.WhichOneof("outcome"), "Terminal: an end that does not say how"
    for place, name in enumerate(names):
        if name == "inference_attempt_lost":
            _check_entities(holding(events[:place]))  # what is void told a story, too, as long as it held
    told = _check_entities(holding(events))
    if finished.HasField("succeeded"):
        _check_whole(told, are_calls_pending=finished.succeeded.finish_class == FINISH_CLASS_TOOL_CALLS_PENDING)


def holding(events: Iterable[event_pb2.Event]) -> list[event_pb2.Event]:
    """Return the events of one inference that no lost attempt made void; check what each attempt_lost says.

    Of an attempt that was lost, the events after superseded_after_sequence are void: the next attempt tells them anew.
    """
    held: list[event_pb2.Event] = []
    is_lost = False
    for event in events:
        name = event.WhichOneof("payload") or ""
        assert not is_lost or name in _AFTER_A_LOSS, f"Ordered: {name} right after a loss"
        is_lost = name == "inference_attempt_lost"
        if is_lost:
            last = event.inference_attempt_lost.superseded_after_sequence
            assert last in {each.sequence for each in held}, (
                f"Gapless: a loss after {last}, which is no event that holds"
            )
            held = [each for each in held if each.sequence <= last]
        held.append(event)
    return held


@dataclass
class _Told:
    """What the entities of an inference have told so far.

    `text` is what each said, `ended` are those with their final. `calls` are the tool calls among them, `answered` are
    those with a result; to those that are `done` nothing more happens.
    """

    text: dict[str, bytes] = field(default_factory=dict[str, bytes])
    ended: set[str] = field(default_factory=set[str])
    calls: set[str] = field(default_factory=set[str])
    answered: set[str] = field(default_factory=set[str])
    done: set[str] = field(default_factory=set[str])


def _check_entities(events: Iterable[event_pb2.Event]) -> _Told:
    """Check the story of each entity; return what they told."""
    told = _Told()
    for event in events:
        name, entity = event.WhichOneof("payload") or "", event.entity
        assert entity not in told.done, f"Ordered: {name} of {entity} after its tool_done"
        if name in _STARTS:
            assert entity not in told.text, f"Unique: {entity} begins twice"
            told.text[entity] = b""
            told.calls |= {entity} if name == "tool_start" else set()
        elif name in _DELTAS | _FINALS:
            _check_piece(event, told)
        elif name in _OF_CALLS:
            _check_call(event, told)
    return told


def _check_whole(told: _Told, *, are_calls_pending: bool) -> None:
    """Check that the entities of a succeeded inference tell their stories to the end.

    A tool call that is done without its final was cut. `are_calls_pending`: there may be calls that nobody answers.
    """
    assert told.ended >= told.text.keys() - told.calls, (
        f"Gapless: no final for {told.text.keys() - told.calls - told.ended}"
    )
    assert told.done == told.calls, f"Gapless: no tool_done for {told.calls - told.done}"
    open_calls = told.calls & told.ended - told.answered
    assert are_calls_pending or not open_calls, f"Gapless: no tool_result for {open_calls}"


def _check_piece(event: event_pb2.Event, told: _Told) -> None:
    """Check a delta or a final against the story of its entity so far, and tell it on."""
    name, entity = event.WhichOneof("payload") or "", event.entity
    payload = getattr(event, name)
    assert entity in told.text, f"Ordered: {name} of {entity} before its start"
    assert entity not in told.ended, f"Ordered: {name} of {entity} after its final"
    if name in _DELTAS:
        assert payload.offset == len(told.text[entity]), f"Gapless: delta of {entity} at {payload.offset}"
        assert payload.delta, f"Gapless: empty delta of {entity}"
        told.text[entity] += payload.delta.encode()
        return
    told.ended.add(entity)
    if name == "tool_call":
        final, is_omitted = payload.call.args, payload.args_omitted
    else:
        final, is_omitted = payload.text, payload.text_omitted
        assert payload.text_bytes == len(told.text[entity]), f"Gapless: text_bytes {payload.text_bytes} of {entity}"
    expected = b"" if is_omitted else told.text[entity]
    assert final.encode() == expected, f"Gapless: the final of {entity} is not its deltas"


def _check_call(event: event_pb2.Event, told: _Told) -> None:
    """Check what comes of tool calls: a result is of a complete call, and a client is asked for what has none."""
    name, entity = event.WhichOneof("payload") or "", event.entity
    complete = told.calls & told.ended
    match name:
        case "tool_result":
            assert entity in complete, f"Ordered: tool_result of {entity}, which is no complete call"
            assert entity not in told.answered, f"Unique: a second tool_result of {entity}"
            assert event.tool_result.use.tool_call == entity, f"Gapless: tool_result of {entity} answers another call"
            told.answered.add(entity)
        case "tool_done":
            assert entity in told.calls, f"Ordered: tool_done of {entity} before its start"
            told.done.add(entity)
        case _:
            asked = {call.id for call in (*event.tools_required.calls, *event.tools_required.approvals)}
            assert asked, "Gapless: tools_required without a call"
            settled = asked - (complete - told.answered - told.done)
            assert not settled, f"Ordered: tools_required of {settled}, to which nothing is to be done"


def check_agreement(log: list[event_pb2.Event], watches: Iterable[Watch]) -> None:
    """Durable, Resumable: every watcher saw all that its filter lets through, nothing else, and the same bytes.

    `log` is the log up to its head. It may leave out a beginning that no watcher was to see.
    """
    stored = {event.sequence: event for event in log}
    head = log[-1].sequence if log else 0
    for watch in watches:
        assert watch.position <= head, f"Durable: a watcher got to {watch.position} of {head}"
        due = [
            event.sequence
            for event in log
            if watch.start < event.sequence <= watch.position
            and (not watch.inference_id or event.inference_id == watch.inference_id)
        ]
        seen = [event.sequence for event in watch.events]
        assert seen == due, f"Resumable: a watcher saw {seen}, not {due}"
        for event in watch.events:
            own = event.SerializeToString(deterministic=True)
            kept = stored[event.sequence].SerializeToString(deterministic=True)
            assert own == kept, f"Resumable: other bytes at {event.sequence}"
