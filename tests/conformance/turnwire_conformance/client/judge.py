"""Whether what an adapter answered, and what the server has seen, is what a case expects; a complaint is one line."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from turnwire.testing.v1.client_conformance_pb2 import ClientAnswer, ClientErrorKind, ClientExpected, ClientSeen
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import InferenceState
from turnwire_conformance.client.case_file import sequences
from turnwire_conformance.client.server import Call


def answer_complaints(
    expected: ClientExpected, answer: ClientAnswer, seconds: float, log: Sequence[Event]
) -> Iterator[str]:
    """Yields what is wrong with an answer that took so long; `log` has the events that are delivered."""
    yield from _error_complaints(expected, answer)
    if expected.sequences:
        delivered = [event.sequence for event in answer.events]
        if delivered != sequences(expected.sequences):
            yield f"delivered the events {_told(delivered)}, not {expected.sequences}"
        for event in answer.events:
            if event.sequence <= len(log) and event != log[event.sequence - 1]:
                yield f"event {event.sequence} is not what the server sent"
    if expected.HasField("text") and answer.text != expected.text:
        yield f"the text is {answer.text!r}, not {expected.text!r}"
    if expected.state and answer.inference.state != expected.state:
        yield f"the inference is {_state(answer.inference.state)}, not {_state(expected.state)}"
    for name in ("listed", "pending"):
        wanted, got = list(getattr(expected, name)), list(getattr(answer, name))
        if wanted and got != wanted:
            yield f"{name}: {got}, not {wanted}"
    if expected.HasField("cursor") and answer.cursor != expected.cursor:
        yield f"the cursor is {MessageToDict(answer.cursor)}, not {MessageToDict(expected.cursor)}"
    least = expected.at_least.ToTimedelta().total_seconds()
    if seconds < least:
        yield f"answered after {seconds:.2f} s, and has to wait for {least:g} s"


def _error_complaints(expected: ClientExpected, answer: ClientAnswer) -> Iterator[str]:
    error, wanted = answer.error, expected.error
    told = f"{ClientErrorKind.Name(error.kind)} {error.reason} {error.code} ({error.message})"
    if not expected.HasField("error"):
        if answer.HasField("error"):
            yield f"failed: {told}"
        return
    if not answer.HasField("error"):
        yield f"did not fail, and has to: {ClientErrorKind.Name(wanted.kind)} {wanted.reason}"
        return
    if error.kind != wanted.kind:
        yield f"failed with {told}, not with {ClientErrorKind.Name(wanted.kind)}"
    if wanted.HasField("reason") and error.reason != wanted.reason:
        yield f"failed with the reason {error.reason!r}, not {wanted.reason!r}"
    if wanted.code and error.code != wanted.code:
        yield f"failed with the code {error.code!r}, not {wanted.code!r}"
    if wanted.HasField("retryable") and error.retryable != wanted.retryable:
        yield f"says that {error.reason or error.code} is {'' if error.retryable else 'not '}retryable"


def seen_complaints(seen: ClientSeen, calls: Sequence[Call]) -> Iterator[str]:
    """Yields what is wrong with the calls of one rpc that the server has seen."""
    window = seen.window.ToTimedelta().total_seconds()
    counted = [call for call in calls if not window or call.at - calls[0].at <= window]
    when = f" in {window:g} s" if window else ""
    if seen.HasField("calls_min") and len(calls) < seen.calls_min:
        yield f"{seen.rpc} was called {len(calls)} times, and has to be at least {seen.calls_min} times"
    if seen.HasField("calls_max") and len(counted) > seen.calls_max:
        yield f"{seen.rpc} was called {len(counted)} times{when}, and may be {seen.calls_max} times"
    for number, (wanted, call) in enumerate(zip(seen.requests, calls, strict=False), start=1):
        for complaint in _request_complaints(MessageToDict(wanted), MessageToDict(call.request)):
            yield f"{seen.rpc}, call {number}: {complaint}"
    if len(calls) < len(seen.requests):
        yield f"{seen.rpc} was called {len(calls)} times, and has to be {len(seen.requests)} times"
    if seen.same:
        for number, call in enumerate(calls[1:], start=2):
            if _without(call.request, seen.apart_from) != _without(calls[0].request, seen.apart_from):
                yield f"{seen.rpc}, call {number}: the request is not the same as in call 1"
    for number, call in enumerate(calls, start=1):
        told = MessageToDict(call.request, preserving_proto_field_name=True)
        yield from (f"{seen.rpc}, call {number}: {name} is not set" for name in seen.has if name not in told)
    for name in seen.distinct:
        values = [str(getattr(call.request, name)) for call in calls]
        if len(set(values)) < len(values):
            yield f"{seen.rpc}: {name} is the same in several calls"
    least = seen.pause.ToTimedelta().total_seconds()
    for number, (before, call) in enumerate(itertools.pairwise(calls), start=2):
        if call.at - before.at < least:
            yield f"{seen.rpc}, call {number}: comes {call.at - before.at:.3f} s after the one before, not {least:g} s"


def _request_complaints(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[str]:
    """What a request lacks of what it has to have. A number of 64 bits is a string in ProtoJSON."""
    for name, value in wanted.items():
        there = got.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            yield from _request_complaints(value, there)  # pyright: ignore[reportUnknownArgumentType]
        elif there != value:
            yield f"{name} is {there!r}, not {value!r}"


def _without(request: Message, names: Sequence[str]) -> Message:
    told = type(request)()
    told.CopyFrom(request)
    for name in names:
        told.ClearField(name)
    return told


def _told(sequences: Sequence[int]) -> str:
    return ", ".join(str(sequence) for sequence in sequences) or "none"


def _state(state: int) -> str:
    return InferenceState.Name(InferenceState.ValueType(state)) if state in InferenceState.values() else str(state)
