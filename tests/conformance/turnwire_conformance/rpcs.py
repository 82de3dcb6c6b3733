"""The rpcs of the contract by name, on one channel; bytes in and out, so that a case can send what no stub would."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf import message_factory, symbol_database
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from turnwire.v1 import (
    debug_service_pb2,
    engine_service_pb2,
    error_reason_pb2,
    inference_service_pb2,
    session_service_pb2,
)
from turnwire_conformance.catalogue import REASONS

PACKAGE = "turnwire.v1"
FILES = (
    inference_service_pb2.DESCRIPTOR,
    session_service_pb2.DESCRIPTOR,
    engine_service_pb2.DESCRIPTOR,
    debug_service_pb2.DESCRIPTOR,
)

# Requests larger than the contract allows are sent on purpose.
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
)
# A receive window that does not grow, else gRPC reads megabytes ahead for a client that does not read.
SLOW_OPTIONS = (*OPTIONS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


# How much is shown of bytes that are no message.
SHOWN_BYTES_MAX = 40

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One rpc: `InferenceService.Wait`."""

    name: str
    path: str
    request_class: type[Message]
    response_class: type[Message]

    async def call(self, channel: grpc.aio.Channel, request: bytes, seconds: float) -> Message:
        """Return the response. Errors: grpc.aio.AioRpcError; AssertionError for what is none."""
        method = cast("Any", channel.unary_unary)(self.path, None, None)
        reply: bytes = await method(request, timeout=seconds)
        return self.response(reply)

    def response(self, raw: bytes) -> Message:
        """Return what a server has sent as the response that it is. Errors: AssertionError for what is none."""
        return _read(self.response_class, raw, "the response")

    def open(self, channel: grpc.aio.Channel, request: bytes, seconds: float | None = None) -> "Stream":
        """Open a stream of responses, as bytes; with a deadline, if there is one."""
        return cast("Stream", cast("Any", channel.unary_stream)(self.path, None, None)(request, timeout=seconds))


def _read(kind: type[M], raw: bytes, what: str) -> M:
    try:
        return kind.FromString(raw)
    except DecodeError:
        msg = f"{what} is no {kind.DESCRIPTOR.name}: {raw[:SHOWN_BYTES_MAX].hex() or 'empty'}"
        raise AssertionError(msg) from None


class Stream(Protocol):
    """A stream of responses, each as bytes."""

    async def read(self) -> Any:
        """Return the next response; grpc.aio.EOF at the end. Errors: grpc.aio.AioRpcError."""
        ...

    def cancel(self) -> bool:
        """Walk away."""
        ...


@cache
def rpcs() -> Mapping[str, Rpc]:
    """Return every rpc by its name."""
    return MappingProxyType({rpc.name: rpc for rpc in _all_rpcs()})


def _all_rpcs() -> Iterator[Rpc]:
    for file in FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                yield _rpc(method)


def _rpc(method: MethodDescriptor) -> Rpc:
    service = method.containing_service
    classes = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
    request_class, response_class = classes
    return Rpc(f"{service.name}.{method.name}", f"/{service.full_name}/{method.name}", request_class, response_class)


def unknown_rpc(name: str) -> Rpc:
    """Return an rpc that the contract does not have."""
    service, _, method = name.partition(".")
    empty = symbol_database.Default().GetSymbol("turnwire.v1.GetProfileRequest")
    return Rpc(name, f"/{PACKAGE}.{service}/{method}", empty, empty)


@dataclass(frozen=True, slots=True)
class Refused:
    """How an rpc failed: its status code, and what the details say; `reason` is empty where they say nothing."""

    code: str
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: tuple[str, ...] = ()
    has_bad_request: bool = False
    retry_seconds: float | None = None

    def __str__(self) -> str:
        """Everything that a person needs."""
        more = "".join(f", {name} {value}" for name, value in self.metadata.items())
        named = f", fields {', '.join(self.fields)}" if self.has_bad_request else ""
        return f"{self.code} {self.reason or '(no reason)'}{more}{named}: {self.message}"


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """Return how an rpc failed. Errors: AssertionError for details that are none."""
    status = _status(error)
    info = _detail(status, error_details_pb2.ErrorInfo)
    bad = _detail(status, error_details_pb2.BadRequest)
    retry = _detail(status, error_details_pb2.RetryInfo)
    return Refused(
        code=error.code().name,
        message=error.details() or "",
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        fields=tuple(each.field for each in bad.field_violations),
        has_bad_request=bool(bad.field_violations),
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _read(status_pb2.Status, value, f"{key} of {error.code().name}")
    return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[M]) -> M:
    name = str(kind.DESCRIPTOR.full_name)
    packed = next((each for each in status.details if each.TypeName() == name), None)
    return _read(kind, packed.value, f"a detail with code {status.code}") if packed else kind()


def check_catalogued(found: Refused) -> None:
    """Check a refusal against the catalogue. Errors: AssertionError."""
    assert found.reason, f"refused without a reason: {found}"
    assert found.domain == "turnwire", f"the domain is {found.domain!r}: {found}"
    due = REASONS.get(found.reason)
    assert due, f"{found.reason} is no reason that refuses a request: {found}"
    assert found.code == due.code, f"the code of {found.reason} is {due.code}: {found}"
    missing = set(due.metadata) - set(found.metadata)
    assert not missing, f"the metadata of {found.reason} lacks {', '.join(sorted(missing))}: {found}"
    has_retry = found.retry_seconds is not None
    assert has_retry or not due.has_retry_info, f"{found.reason} comes with RetryInfo: {found}"
    assert not has_retry or due.has_retry_info, f"{found.reason} comes without RetryInfo: {found}"
    is_field = found.reason == "INVALID_FIELD"
    assert is_field == found.has_bad_request, f"BadRequest belongs to INVALID_FIELD, and to it alone: {found}"
    assert len(found.fields) <= 8, f"more than 8 violations: {found}"


def reason_name(number: int) -> str:
    """Return a reason of an Error, without ERROR_REASON_; its number, if nobody knows it."""
    known = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("ERROR_REASON_") if known else str(number)
