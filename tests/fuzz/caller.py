"""Sends bytes to an rpc as a client would that has no generated code, and keeps what comes back, within bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from fuzz.rpcs import Rpc

# How long an rpc may take, in seconds, and how long once more if it took longer: on a machine that has other work the
# first bound says little, and what is never answered still misses the second.
PATIENCE = (5.0, 20.0)

# Wait holds on purpose, and ends half a second before its client's deadline; so it is asked with a short one first.
_WAIT_SECONDS = 0.7

# How many responses of a stream are read.
_RESPONSES_MAX = 4

Headers = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request as it was made, with stand-ins; the headers it goes with, and how long its client waits.

    0 seconds: as long as any rpc may take.
    """

    rpc: Rpc
    request: bytes
    headers: Headers = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: responses, or an error after some of them."""

    responses: Sequence[bytes]
    code: grpc.StatusCode
    message: str = ""
    trailers: Sequence[tuple[str, str | bytes]] = ()

    @property
    def details(self) -> bytes | None:
        """The google.rpc.Status, None if there is none."""
        found = [value for key, value in self.trailers if key == "grpc-status-details-bin"]
        return found[0] if found and isinstance(found[0], bytes) else None


def call(channel: grpc.Channel, attempt: Attempt, request: bytes, patience: Sequence[float] = PATIENCE) -> Answer:
    """Send a request, and return what came back.

    What is not answered in time is sent again for as long as there is patience left, unless its client is to give up.
    """
    *first, last = _seconds(attempt, patience)
    for seconds in first:
        answer = _call(channel, attempt, request, seconds)
        if answer.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return answer
    return _call(channel, attempt, request, last)


def _seconds(attempt: Attempt, patience: Sequence[float]) -> Sequence[float]:
    """Return how long the client waits for an answer, each time that it asks."""
    if attempt.seconds:
        return (attempt.seconds,)
    return (_WAIT_SECONDS, *patience) if attempt.rpc.name == "Wait" else patience


def _call(channel: grpc.Channel, attempt: Attempt, request: bytes, seconds: float) -> Answer:
    responses: list[bytes] = []
    try:
        if attempt.rpc.method.server_streaming:
            open_stream = cast("Any", channel.unary_stream(attempt.rpc.path))
            stream = open_stream(request, timeout=seconds, metadata=attempt.headers)
            responses += _read(stream, attempt.rpc.response_type)
            stream.cancel()
        else:
            unary = cast("Any", channel.unary_unary(attempt.rpc.path))
            responses.append(unary(request, timeout=seconds, metadata=attempt.headers))
    except grpc.RpcError as error:
        failed: Any = error
        trailers = tuple(failed.trailing_metadata() or ())
        return Answer(responses, failed.code(), failed.details() or "", trailers)
    return Answer(responses, grpc.StatusCode.OK)


def _read(stream: Iterator[bytes], response_type: type[Message]) -> Iterator[bytes]:
    """Yield responses until there is nothing more to tell: the end, a heartbeat, or as many as are read."""
    for count, response in enumerate(stream, 1):
        yield response
        if count == _RESPONSES_MAX:
            return
        told = response_type.FromString(response)
        if count > 1 and not any(field.is_repeated for field, _ in told.ListFields()):
            return
