"""Events, to and from protobuf, and the frames in which they are stored and delivered.

An event is encoded once, without its sequence. The store then stamps the sequence on it and keeps the result as a
frame: the field `events` of a response. So a response is the join of frames, and no event is ever encoded again.
"""

import struct
from dataclasses import replace

from turnwire.v1 import event_pb2 as pb
from turnwire.v1.inference_service_pb2 import ListEventsResponse
from turnwire_server.domain.errors import Failure
from turnwire_server.domain.event import (
    EVENT_BYTES_MAX,
    Delta,
    ErrorRaised,
    Event,
    Failed,
    InferenceFinished,
    LlmFinal,
    LlmThinkingFinal,
    Payload,
    ToolCallCompleted,
    ToolResult,
)
from turnwire_server.wire import timestamp
from turnwire_server.wire.payload import BY_FIELD, BY_NOUN

# Field 1, length-delimited: `events` in SubscribeEventsResponse and in ListEventsResponse.
_FRAME_TAG = b"\x0a"

# Field 1 of Event, 64 bits: the tag, then the sequence.
_stamp = struct.Struct("<BQ").pack
_SEQUENCE_TAG = 0x09
_SEQUENCE_BYTES = 9

# What is left of an error's message and of each of its metadata when they would not fit in an event.
_MESSAGE_LENGTH_MAX = 4096


class EventTooLarge(ValueError):  # noqa: N818 - a defect of ours, never an error of the contract
    """An event passes 256 KiB and the contract has no flag for leaving something out: a defect of what made it."""


def encode_event(event: Event) -> bytes:
    """Return the encoded event without its sequence, small enough to have 256 KiB with it.

    What the contract allows to leave out of an event that would be larger is left out here, and only here.

    Errors: EventTooLarge.
    """
    body = _without_sequence(event).SerializeToString()
    if len(body) + _SEQUENCE_BYTES <= EVENT_BYTES_MAX:
        return body
    body = _without_sequence(replace(event, payload=_omit(event.payload))).SerializeToString()
    if len(body) + _SEQUENCE_BYTES > EVENT_BYTES_MAX:
        msg = f"{type(event.payload).__name__} of inference {event.inference_id} has {len(body)} bytes"
        raise EventTooLarge(msg)
    return body


def stamp_frame(body: bytes, sequence: int) -> bytes:
    """Return an encoded event as a frame that carries its sequence."""
    length = len(body) + _SEQUENCE_BYTES
    if length < 0x80:
        prefix = bytes((length,))
    elif length < 0x4000:
        prefix = bytes((length & 0x7F | 0x80, length >> 7))
    else:
        prefix = bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
    return b"".join((_FRAME_TAG, prefix, _stamp(_SEQUENCE_TAG, sequence), body))


def encode_frame(event: Event) -> bytes:
    """Return an event that has its sequence as a frame. Errors: EventTooLarge."""
    return stamp_frame(encode_event(event), event.sequence)


def decode_frames(data: bytes) -> list[Event]:
    """Return the events of joined frames."""
    return [event_from_proto(message) for message in ListEventsResponse.FromString(data).events]


def event_to_proto(event: Event) -> pb.Event:
    """Return an Event with its sequence. Nothing is left out, however large it is."""
    message = _without_sequence(event)
    message.sequence = event.sequence
    return message


def event_from_proto(message: pb.Event) -> Event:
    """Return an event. Raises ValueError for one whose variant this server does not know."""
    field = message.WhichOneof("payload")
    if field is None:
        msg = f"event {message.sequence} of session {message.session_id} has a variant that this server does not know"
        raise ValueError(msg)
    return Event(
        session_id=message.session_id,
        inference_id=message.inference_id,
        create_time=timestamp.from_proto(message.create_time),
        payload=BY_FIELD[field].from_proto(getattr(message, field)),
        entity=message.entity,
        attempt=message.attempt,
        sequence=message.sequence,
    )


def _without_sequence(event: Event) -> pb.Event:
    payload = event.payload
    message = pb.Event(
        session_id=event.session_id, inference_id=event.inference_id, entity=event.entity, attempt=event.attempt
    )
    timestamp.fill(message.create_time, event.create_time)
    arm = BY_NOUN[type(payload)]
    field = getattr(message, arm.field)
    if isinstance(payload, Delta):  # most events are: set in place, they take half the time
        field.delta = payload.delta
        field.offset = payload.offset
        return message
    field.CopyFrom(arm.to_proto(payload))
    if event.ignorable:
        message.ignorable = True
    return message


def _omit(payload: Payload) -> Payload:
    match payload:
        case LlmFinal():
            return replace(payload, text="", text_omitted=True)
        case LlmThinkingFinal():
            return replace(payload, text="", text_omitted=True, summary="", encrypted_content="")
        case ToolCallCompleted(call):
            return replace(payload, call=replace(call, args=""), args_omitted=True)
        case ToolResult(use):
            return replace(payload, use=replace(use, outcome=""), result_omitted=True)
        case ErrorRaised(error):
            return ErrorRaised(_cut(error))
        case InferenceFinished(Failed(error)):
            return replace(payload, outcome=Failed(_cut(error)))
        case _:
            return payload


def _cut(failure: Failure) -> Failure:
    metadata = {key: value[:_MESSAGE_LENGTH_MAX] for key, value in failure.metadata.items()}
    return replace(failure, message=failure.message[:_MESSAGE_LENGTH_MAX], metadata=metadata)
