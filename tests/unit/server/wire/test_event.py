from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.v1 import event_pb2
from turnwire.v1.inference_service_pb2 import ListEventsResponse, SubscribeEventsResponse
from turnwire_server.domain.errors import Code, Failure
from turnwire_server.domain.event import (
    EVENT_BYTES_MAX,
    Cancelled,
    Custom,
    ErrorRaised,
    Event,
    Failed,
    InferenceFinished,
    InferenceQueued,
    LlmDelta,
    LlmFinal,
    LlmThinkingFinal,
    Log,
    Payload,
    Succeeded,
    ToolCallCompleted,
    ToolResult,
)
from turnwire_server.domain.inference import FinishClass, Usage
from turnwire_server.domain.tool import ToolCall, ToolError, ToolUse
from turnwire_server.wire.event import (
    EventTooLarge,
    decode_frames,
    encode_event,
    encode_frame,
    event_from_proto,
    event_to_proto,
    stamp_frame,
)

NOW = datetime(2026, 11, 20, 12, 30, 15, 123456, tzinfo=UTC)
SEQUENCE_BYTES = 9


def event(payload: Payload) -> Event:
    return Event("session", "inference", NOW, payload, "entity", 2)


def official_frame(body: bytes, sequence: int) -> bytes:
    """A response with one event, as protobuf itself writes it."""
    message = event_pb2.Event.FromString(body)
    message.sequence = sequence
    return SubscribeEventsResponse(events=[message]).SerializeToString()


@pytest.mark.parametrize("sequence", [1, 127, 128, 2**32, 2**64 - 1])
@pytest.mark.parametrize("length", [0, 1, 60, 61, 62, 63, 64, 16_000, 16_300, 16_383, 16_384, 200_000])
def test_stamped_frame_is_what_protobuf_writes(length: int, sequence: int) -> None:
    body = encode_event(event(LlmDelta("x" * length, 5)))
    assert stamp_frame(body, sequence) == official_frame(body, sequence)


@pytest.mark.parametrize("length", [*range(100, 130), *range(16_360, 16_390)])
def test_frame_at_every_length_around_a_longer_varint(length: int) -> None:
    # Field 2, session_id, of any length: as good a body as any.
    head = len(event_pb2.Event(session_id="x" * length).SerializeToString()) - length
    body = event_pb2.Event(session_id="x" * (length - head)).SerializeToString()
    assert stamp_frame(body, 7) == official_frame(body, 7)


@given(st.text(max_size=300), st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
def test_any_frame_is_what_protobuf_writes_and_is_read_back(text: str, offset: int, sequence: int) -> None:
    made = event(LlmDelta(text, offset))
    frame = stamp_frame(encode_event(made), sequence)
    assert frame == official_frame(encode_event(made), sequence)
    [read] = decode_frames(frame)
    assert read == replace(made, sequence=sequence)
    assert encode_frame(read) == frame


def test_body_has_no_sequence() -> None:
    body = encode_event(replace(event(LlmDelta("x", 0)), sequence=9))
    assert event_pb2.Event.FromString(body).sequence == 0


def test_joined_frames_are_a_response() -> None:
    events = [event(LlmDelta(str(number), number)) for number in range(1, 6)]
    frames = b"".join(stamp_frame(encode_event(each), number) for number, each in enumerate(events, 1))
    rest = SubscribeEventsResponse(after_sequence=3, through_sequence=8).SerializeToString()
    response = SubscribeEventsResponse.FromString(frames + rest)
    assert [each.sequence for each in response.events] == [1, 2, 3, 4, 5]
    assert (response.after_sequence, response.through_sequence) == (3, 8)
    assert len(ListEventsResponse.FromString(frames).events) == 5
    assert decode_frames(frames) == [replace(each, sequence=number) for number, each in enumerate(events, 1)]
    assert decode_frames(b"") == []


def test_ignorable_follows_the_variant() -> None:
    assert event_to_proto(event(Log("info", "x"))).ignorable
    assert not event_to_proto(event(LlmDelta("x", 0))).ignorable


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="event 4 of session s has a variant"):
        event_from_proto(event_pb2.Event(sequence=4, session_id="s"))


@pytest.mark.parametrize(
    "outcome", [Succeeded(FinishClass.UNSPECIFIED), Succeeded(FinishClass.COMPLETED), Cancelled(), Cancelled("why")]
)
def test_outcome_is_kept_when_it_has_nothing_to_say(outcome: Succeeded | Cancelled) -> None:
    made = event(InferenceFinished(outcome, Usage(), 1))
    assert decode_frames(stamp_frame(encode_event(made), 1)) == [replace(made, sequence=1)]


def with_size(make: type[LlmFinal] | type[LlmThinkingFinal], size: int) -> Event:
    """An event with a text that gives it that many bytes, its sequence included."""
    room = size - SEQUENCE_BYTES
    text = "x" * room
    while len(event_to_proto(event(make(text, len(text)))).SerializeToString()) > room:
        text = text[:-1]
    return event(make(text, len(text)))


@pytest.mark.parametrize("make", [LlmFinal, LlmThinkingFinal])
def test_event_at_the_limit_is_whole(make: type[LlmFinal] | type[LlmThinkingFinal]) -> None:
    made = with_size(make, EVENT_BYTES_MAX)
    body = encode_event(made)
    assert len(body) + SEQUENCE_BYTES == EVENT_BYTES_MAX
    assert decode_frames(stamp_frame(body, 1)) == [replace(made, sequence=1)]


@pytest.mark.parametrize("make", [LlmFinal, LlmThinkingFinal])
def test_event_one_byte_over_the_limit_loses_its_text(make: type[LlmFinal] | type[LlmThinkingFinal]) -> None:
    made = with_size(make, EVENT_BYTES_MAX + 1)
    (read,) = decode_frames(stamp_frame(encode_event(made), 1))
    assert isinstance(made.payload, LlmFinal | LlmThinkingFinal)
    assert read.payload == make("", made.payload.text_bytes, text_omitted=True)


def test_reasoning_too_large_loses_its_opaque_form_as_well() -> None:
    big = "x" * EVENT_BYTES_MAX
    made = event(LlmThinkingFinal("text", 4, signature="sig", summary="sum", encrypted_content=big, item="item"))
    (read,) = decode_frames(stamp_frame(encode_event(made), 1))
    assert read.payload == LlmThinkingFinal("", 4, text_omitted=True, signature="sig", item="item")


BIG = "x" * (EVENT_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("payload", "left"),
    [
        (ToolCallCompleted(ToolCall("c", "n", BIG)), ToolCallCompleted(ToolCall("c", "n"), args_omitted=True)),
        (ToolResult(ToolUse("c", BIG)), ToolResult(ToolUse("c", ""), result_omitted=True)),
        (ToolResult(ToolUse("c", ToolError(BIG))), ToolResult(ToolUse("c", ""), result_omitted=True)),
    ],
    ids=["args", "result", "failure"],
)
def test_what_is_too_large_is_left_out(payload: Payload, left: Payload) -> None:
    body = encode_event(event(payload))
    assert len(body) < 1000
    assert decode_frames(stamp_frame(body, 1))[0].payload == left


def test_omitted_result_is_not_there_at_all() -> None:
    body = encode_event(event(ToolResult(ToolUse("c", BIG))))
    assert event_pb2.Event.FromString(body).tool_result.use.WhichOneof("outcome") is None


def test_a_terminal_event_always_fits() -> None:
    failure = Failure("OUTPUT_INVALID", Code.FAILED_PRECONDITION, BIG, {"violation": BIG})
    cut = replace(failure, message=BIG[:4096], metadata={"violation": BIG[:4096]})
    for payload, left in (
        (InferenceFinished(Failed(failure), Usage(), 3), InferenceFinished(Failed(cut), Usage(), 3)),
        (ErrorRaised(failure), ErrorRaised(cut)),
    ):
        (read,) = decode_frames(stamp_frame(encode_event(event(payload)), 1))
        assert read.payload == left


@pytest.mark.parametrize(
    "payload", [LlmDelta(BIG, 0), Custom("t", BIG), Log("info", BIG)], ids=["delta", "custom", "log"]
)
def test_what_nobody_may_make_so_large_is_refused(payload: Payload) -> None:
    with pytest.raises(EventTooLarge, match=f"{type(payload).__name__} of inference inference"):
        encode_event(event(payload))


def test_a_queued_event_costs_little() -> None:
    assert len(encode_event(event(InferenceQueued(1)))) < 60
