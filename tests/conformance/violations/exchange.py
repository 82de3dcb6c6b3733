"""One call as the proxy sees it: what the client asked for, and the server behind, to ask for that or for more."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from turnwire_conformance.catalogue import REASONS
from turnwire_conformance.rpcs import Rpc, refused, rpcs

DETAILS_KEY = "grpc-status-details-bin"


@dataclass(eq=False)
class RefusalError(Exception):
    """How the server refuses a call, or how a violation does: raise it. Every field MAY be changed before.

    `reason` is without ERROR_REASON_; without one there are no details.
    """

    code: str
    message: str = "planted"
    reason: str = ""
    domain: str = "turnwire"
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    fields: list[str] = field(default_factory=list[str])
    retry_seconds: float | None = None

    @classmethod
    def of(cls, reason: str, **metadata: str) -> "RefusalError":
        """Return a refusal as the catalogue says it; what is not told of its metadata is made up."""
        due = REASONS[reason]
        told = {key: metadata.get(key, "1") for key in due.metadata}
        fields = ["planted"] if reason == "INVALID_FIELD" else []
        retry_seconds = 1.0 if due.has_retry_info else None
        return cls(due.code, reason=reason, metadata=told, fields=fields, retry_seconds=retry_seconds)

    @classmethod
    def from_error(cls, error: grpc.aio.AioRpcError) -> "RefusalError":
        """Return how a call of the server failed."""
        told = refused(error)
        return cls(
            told.code,
            told.message,
            told.reason,
            told.domain,
            dict(told.metadata),
            list(told.fields),
            told.retry_seconds,
        )

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the details as they are sent."""
        if not self.reason:
            return ()
        status = status_pb2.Status(code=code_pb2.Code.Value(self.code), message=self.message)
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata)
        status.details.add().Pack(info)
        if self.fields:
            bad = error_details_pb2.BadRequest()
            for name in self.fields:
                bad.field_violations.add(field=name, description="planted")
            status.details.add().Pack(bad)
        if self.retry_seconds is not None:
            delay = Duration(nanos=int(self.retry_seconds * 1e9) % 10**9, seconds=int(self.retry_seconds))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return ((DETAILS_KEY, status.SerializeToString()),)


class Server(Protocol):
    """The server behind the proxy. What it refuses is a RefusalError."""

    async def ask(self, rpc: Rpc, request: bytes, seconds: float | None) -> bytes:
        """Make a call."""
        ...

    def follow(self, rpc: Rpc, request: bytes) -> AsyncGenerator[bytes, None]:
        """Open a stream. It is left when the iteration is."""
        ...

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside the call, for as long as the violation is planted."""
        ...


@dataclass(eq=False)
class Exchange:
    """One call.

    `raw` are the bytes of the request, `seconds` what is left of the client's deadline. `state` belongs to the
    violation and lives as long as it is planted; every call has the same.
    """

    rpc: Rpc
    raw: bytes
    seconds: float | None
    state: dict[Any, Any]
    server: Server
    plants: "Sequence[Plant]" = ()
    _request: Any = None

    @property
    def request(self) -> Any:
        """The request. It MAY be changed before it is forwarded. Errors: DecodeError for bytes that are none."""
        if self._request is None:
            self._request = self.rpc.request_class.FromString(self.raw)
        return self._request

    def _sent(self) -> bytes:
        return self.raw if self._request is None else self._request.SerializeToString()

    async def forward(self) -> Any:
        """Let the server answer, or the plant after this one. Errors: RefusalError."""
        return self.rpc.response_class.FromString(await self.forward_raw())

    async def forward_raw(self) -> bytes:
        """As forward(), with the bytes of the response."""
        if not self.plants:
            return await self.server.ask(self.rpc, self._sent(), self.seconds)
        answer = await self.plants[0].take(self._next())
        return answer.SerializeToString() if isinstance(answer, Message) else answer

    def _next(self) -> "Exchange":
        return Exchange(self.rpc, self._sent(), self.seconds, self.state, self.server, self.plants[1:])

    async def follow(self) -> AsyncGenerator[Any, None]:
        """Yield the responses of the stream. Errors: RefusalError."""
        async with aclosing(self.follow_raw()) as responses:
            async for response in responses:
                yield self.rpc.response_class.FromString(response)

    async def follow_raw(self) -> AsyncGenerator[bytes, None]:
        """As follow(), with the bytes of the responses."""
        if not self.plants:
            async with aclosing(self.server.follow(self.rpc, self._sent())) as raw:
                async for response in raw:
                    yield response
            return
        async with aclosing(self.plants[0].follow(self._next())) as changed:
            async for response in changed:
                yield response.SerializeToString() if isinstance(response, Message) else response

    async def ask(self, method: str, **fields: Any) -> Any:
        """Ask the server something else: `ask("GetInference", inference_id=...)`. Errors: RefusalError."""
        rpc = rpc_of(method)
        request = rpc.request_class(**fields)
        return rpc.response_class.FromString(await self.server.ask(rpc, request.SerializeToString(), 20.0))

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something beside the call, which MAY go on after it. What the server refuses then is not told."""
        self.server.begin(work)


async def _forward(exchange: Exchange) -> Any:
    return await exchange.forward_raw()


async def _follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
    async for response in exchange.follow_raw():
        yield response


Take = Callable[[Exchange], Awaitable[Any]]
Follow = Callable[[Exchange], AsyncGenerator[Any, None]]


@dataclass(frozen=True, slots=True)
class Plant:
    """What is done to the calls of some rpcs, named by their methods. `take` answers calls, `follow` makes streams."""

    methods: frozenset[str]
    take: Take = _forward
    follow: Follow = _follow


def method_of(rpc: Rpc) -> str:
    """Return the name of an rpc without its service."""
    return rpc.name.partition(".")[2]


def rpc_of(method: str) -> Rpc:
    """Return the rpc of a method; no two services have one of the same name."""
    return _BY_METHOD[method]


_BY_METHOD: Mapping[str, Rpc] = {method_of(rpc): rpc for rpc in rpcs().values()}

STREAMED = "SubscribeEvents"
UNARY = tuple(method for method in _BY_METHOD if method != STREAMED)
METHODS = tuple(_BY_METHOD)

UNKNOWN = "?"
"""Every rpc that the contract does not have."""
