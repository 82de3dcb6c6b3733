"""What the server of a case knows: one session, one inference and its log, and what follows from it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message

from turnwire.testing.v1.client_conformance_pb2 import ClientCase, ClientLogEntry
from turnwire.v1.event_pb2 import (
    Event,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    InferenceSucceeded,
    LlmDelta,
    LlmFinal,
    LlmStart,
    TurnClosed,
    TurnOpened,
)
from turnwire.v1.inference_pb2 import FinishClass, Inference, InferenceState
from turnwire.v1.tool_pb2 import ToolCall
from turnwire.v1.turn_pb2 import Block, LlmTextBlock, Turn, TurnState, UserBlock

SESSION, INFERENCE, LOG = "session", "inference", "log"

# How many entries a listing has, and a page of it: three pages, the last one shorter.
LISTED, PAGE_LENGTH = 5, 2

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class BadTokenError(Exception):
    """A page token that was not made for this request."""


@dataclass(slots=True)
class World:
    """What is there, and what was asked of it so far."""

    events: list[Event]
    starts: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def head(self) -> int:
        """The sequence of the newest event."""
        return len(self.events)

    def is_finished(self) -> bool:
        """Whether the log has the terminal event of the inference."""
        return any(event.HasField("inference_finished") and event.inference_id == INFERENCE for event in self.events)

    def inference(self, number: int = 1) -> Inference:
        """The inference; with a number above 1, another one of the session, for listings."""
        told = Inference(
            session_id=SESSION,
            inference_id=INFERENCE if number == 1 else f"{INFERENCE}-{number}",
            state=self._state(),
            first_sequence=1,
            last_sequence=self.head,
            turn_index=number - 1,
            attempts_max=1,
        )
        last = self.events[-1].inference_finished
        if last.HasField("failed"):
            told.error.CopyFrom(last.failed.error)
        if last.HasField("cancelled"):
            told.cancel_reason = last.cancelled.reason
        return told

    def turn(self) -> Turn:
        """The turn of the inference, with what its events tell."""
        blocks = [Block(id="block-1", user=UserBlock(text="hello")), *_produced(self.events)]
        return Turn(
            session_id=SESSION,
            inference_id=INFERENCE,
            id="turn-1",
            state=TurnState.TURN_STATE_CLOSED if self.is_finished() else TurnState.TURN_STATE_OPEN,
            blocks=blocks,
            block_count=len(blocks),
            given_block_count=1,
        )

    def pending(self) -> list[str]:
        """The ids of the tool calls that the newest tools.required names and nothing has answered."""
        waiting: list[str] = []
        for event in self.events:
            if event.HasField("tools_required"):
                waiting = [call.id for call in (*event.tools_required.calls, *event.tools_required.approvals)]
            elif event.HasField("tool_result") and event.tool_result.use.tool_call in waiting:
                waiting.remove(event.tool_result.use.tool_call)
        return waiting

    def _state(self) -> InferenceState.ValueType:
        last = self.events[-1]
        outcome = last.inference_finished.WhichOneof("outcome")
        if outcome is not None:
            return InferenceState.Value(f"INFERENCE_STATE_{outcome.upper()}")
        if last.HasField("tools_required"):
            return InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS
        return InferenceState.INFERENCE_STATE_RUNNING


def make_world(case: ClientCase) -> World:
    """Returns the world of a case, with its log, or the usual one."""
    entries = case.log or [ClientLogEntry(event=event) for event in _usual_log()]
    return World([_logged(sequence, entry) for sequence, entry in enumerate(entries, start=1)])


def page(items: Sequence[T], request: Message, length: int) -> tuple[list[T], str]:
    """Returns the items of the page that a request asks for, and the token for the next one.

    A token is bound to the request: raises BadTokenError when the other fields are not what they were.
    """
    bound = type(request)()
    bound.CopyFrom(request)
    for name in ("page_size", "page_token"):
        bound.ClearField(name)
    content = bound.SerializeToString(deterministic=True).hex()
    token = str(getattr(request, "page_token", ""))
    first = 0
    if token:
        first, told = json.loads(token)
        if told != content:
            raise BadTokenError
    after = first + length
    return list(items[first:after]), json.dumps([after, content]) if after < len(items) else ""


def _logged(sequence: int, entry: ClientLogEntry) -> Event:
    event = Event()
    event.CopyFrom(entry.event)
    event.sequence = sequence
    event.session_id = event.session_id or SESSION
    event.inference_id = event.inference_id or INFERENCE
    if entry.unknown_variant:  # as it arrives at a client of an older contract: a field that it has no name for
        event.MergeFromString(_varint(entry.unknown_variant << 3 | 2) + b"\x00")
    return event


def _varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])


def _usual_log() -> Iterable[Event]:
    yield Event(inference_queued=InferenceQueued(queue_position=1))
    yield Event(inference_started=InferenceStarted(engine="scripted"))
    yield Event(turn_opened=TurnOpened(block_count=1))
    yield Event(entity="block-2", llm_start=LlmStart(role="assistant"))
    offset = 0
    for piece in ("one ", "two ", "three"):
        yield Event(entity="block-2", llm_delta=LlmDelta(delta=piece, offset=offset))
        offset += len(piece)
    yield Event(entity="block-2", llm_final=LlmFinal(text="one two three", text_bytes=offset))
    yield Event(turn_closed=TurnClosed(block_count=2))
    succeeded = InferenceSucceeded(finish_class=FinishClass.FINISH_CLASS_COMPLETED)
    yield Event(inference_finished=InferenceFinished(succeeded=succeeded, event_count=10))


def _produced(events: Sequence[Event]) -> Iterable[Block]:
    """The blocks that the events of an inference tell of; nothing that was lost is among them."""
    lost = [event for event in events if event.HasField("inference_attempt_lost")]
    for event in events:
        if any(each.inference_attempt_lost.superseded_after_sequence < event.sequence < each.sequence for each in lost):
            continue
        if event.HasField("llm_final"):
            pieces = (each.llm_delta.delta for each in events if each.entity == event.entity)
            yield Block(id=event.entity, llm_text=LlmTextBlock(text=event.llm_final.text or "".join(pieces)))
        elif event.HasField("tool_call"):
            call = ToolCall()
            call.CopyFrom(event.tool_call.call)
            yield Block(id=event.entity, tool_call=call)
