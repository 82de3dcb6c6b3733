"""What happens around every rpc: bytes in, parsed, checked against the rules of the contract, served, bytes out.

Requests are parsed here and not by gRPC, so that malformed bytes are INVALID_ARGUMENT with a reason and not INTERNAL;
and responses leave as bytes, so that stored events are never encoded again.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from turnwire_server.domain.errors import (
    FeatureNotImplementedError,
    InternalError,
    MalformedMessageError,
    RequestTooLargeError,
    TurnwireError,
)
from turnwire_server.domain.ids import LOCAL
from turnwire_server.rpc.status import to_status
from turnwire_server.telemetry.logs import bind, bound_to, logger
from turnwire_server.wire.rules import check_rules

# Contract: inference_service.proto. The transport itself refuses what passes TRANSPORT_BYTES_MAX, without details.
REQUEST_BYTES_MAX = 4 * 1024 * 1024
TRANSPORT_BYTES_MAX = 16 * 1024 * 1024

# What a log line has of a message that a client's request is quoted in.
MESSAGE_LENGTH_MAX = 512

IDENTITIES = ("session_id", "inference_id")

Context = grpc.aio.ServicerContext[bytes, bytes]
Method: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"  # generic in its stubs only

log = logger()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and how many seconds the client still waits; None when it set no deadline."""

    principal: str
    seconds_left: float | None


Reply = Message | bytes
Unary = Callable[[Any, Caller], Awaitable[Reply]]
Stream = Callable[[Any, Caller], AsyncGenerator[Reply]]


def generic_handler(service: ServiceDescriptor, served: Mapping[str, Unary | Stream]) -> grpc.GenericRpcHandler:
    """Return the gRPC handler of a service. An rpc of the contract that is not in `served` answers UNIMPLEMENTED."""
    if unknown := served.keys() - {method.name for method in service.methods}:
        msg = f"{service.full_name} has no {', '.join(sorted(unknown))}"
        raise ValueError(msg)
    methods = {method.name: _method(method, served.get(method.name) or _missing(method)) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _missing(method: MethodDescriptor) -> Unary:
    async def refuse(_request: Message, _caller: Caller) -> Reply:
        raise FeatureNotImplementedError(feature=method.full_name)

    return refuse


def _method(method: MethodDescriptor, serve: Any) -> Method:
    request_type = GetMessageClass(method.input_type)

    async def unary(data: bytes, context: Context) -> bytes:
        with bound_to(rpc=method.name):
            try:
                request = _parse(request_type, data)
                bind(**_identities(request))
                return _encode(await serve(request, _caller(context)))
            except Exception as error:  # the boundary: whatever it is, the client gets a reason
                await _abort(context, error)
                raise

    async def stream(data: bytes, context: Context) -> AsyncIterator[bytes]:
        with bound_to(rpc=method.name):
            try:
                request = _parse(request_type, data)
                bind(**_identities(request))
                # Closed here and now when the client leaves, not when the garbage is collected.
                async with aclosing(serve(request, _caller(context))) as replies:
                    async for reply in replies:
                        yield _encode(reply)
            except Exception as error:  # as above
                await _abort(context, error)
                raise

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)


def _parse(request_type: type[Message], data: bytes) -> Message:
    if len(data) > REQUEST_BYTES_MAX:
        raise RequestTooLargeError(request_bytes=len(data), request_bytes_max=REQUEST_BYTES_MAX)
    try:
        request = request_type.FromString(data)
    except DecodeError:
        raise MalformedMessageError(message=request_type.DESCRIPTOR.full_name) from None
    check_rules(request)
    return request


def _encode(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _caller(context: Context) -> Caller:
    return Caller(LOCAL, context.time_remaining())


def _identities(request: Message) -> dict[str, str]:
    """Return the session_id and the inference_id that a request names, in itself or in one of its parts."""
    found: dict[str, str] = {}
    for field, value in request.ListFields():
        if field.name in IDENTITIES:
            found[field.name] = value
        elif field.message_type and not field.is_repeated:
            found |= {name: text for name in IDENTITIES if (text := getattr(value, name, ""))}
    return found


async def _abort(context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        return
    if not isinstance(error, TurnwireError):
        log.error("rpc crashed", exc_info=error)
        error = InternalError()
    elif error.__cause__:
        log.error("rpc failed", reason=error.reason, exc_info=error.__cause__)
    else:
        bind(**{name: error.metadata[name] for name in IDENTITIES if name in error.metadata})
        log.info("rpc refused", reason=error.reason, message=error.message[:MESSAGE_LENGTH_MAX])
    status = rpc_status.to_status(to_status(error))  # pyright: ignore[reportUnknownMemberType] - half typed
    await context.abort_with_status(status)
