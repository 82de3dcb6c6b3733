"""The channel: how it is opened, and how one rpc is called over it, with its deadline, its retries and its errors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from turnwire.v1.debug_service_pb2_grpc import DebugServiceStub
from turnwire.v1.engine_service_pb2_grpc import EngineServiceStub
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub
from turnwire_client._backoff import Backoff, Clock, Patience
from turnwire_client._errors import RequestError
from turnwire_client._status import from_rpc_error, is_transient

if TYPE_CHECKING:  # the generator writes these names into the .pyi only
    from turnwire.v1.debug_service_pb2_grpc import DebugServiceAsyncStub
    from turnwire.v1.engine_service_pb2_grpc import EngineServiceAsyncStub
    from turnwire.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from turnwire.v1.session_service_pb2_grpc import SessionServiceAsyncStub

# The contract's own bound: no response is larger.
RECEIVE_BYTES_MAX: Final = 4 * 1024 * 1024

A = TypeVar("A", bound=Message)


def channel_options() -> list[tuple[str, Any]]:
    """The options of the channel.

    Reads retry by themselves, as the contract's service config says. Pings find a dead connection within 80 s and only
    while something is in flight, which every server permits as long as its heartbeats come every 15 s. A lost server
    is dialled again after at most 2 s instead of gRPC's 120 s.
    """
    config = files("turnwire_client").joinpath("grpc_service_config.json").read_text(encoding="utf-8")
    return [
        ("grpc.service_config", config),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]


@dataclass(frozen=True, slots=True)
class Policy:
    """Every bound a client keeps to; seconds.

    `retry` is for rpcs that are sent again. `resume` is for streams and for `result()`, which outlive a restart of the
    server; `opening` is for them as long as the server has never answered. `silence_seconds` is three heartbeats: a
    stream that says nothing for so long counts as cut.
    """

    retry: Backoff = Backoff()
    resume: Backoff = Backoff(give_up_seconds=120.0)
    opening: Backoff = Backoff(give_up_seconds=4.0)
    rpc_timeout_seconds: float = 20.0
    silence_seconds: float = 45.0


class Transport:
    """A channel, its stubs and the policy they are used under."""

    def __init__(self, channel: grpc.aio.Channel, policy: Policy, clock: Clock) -> None:
        self.channel = channel
        self.policy = policy
        self.clock = clock
        self.inferences: InferenceServiceAsyncStub = InferenceServiceStub(channel)
        self.sessions: SessionServiceAsyncStub = SessionServiceStub(channel)
        self.engines: EngineServiceAsyncStub = EngineServiceStub(channel)
        self.debug: DebugServiceAsyncStub = DebugServiceStub(channel)

    async def call(
        self, rpc: Callable[..., Awaitable[A]], request: Message, *, timeout_seconds: float | None = None
    ) -> A:
        """Calls an rpc once; a read may be retried by the channel.

        Raises RequestError.
        """
        timeout = self.policy.rpc_timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await rpc(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def call_repeatable(self, rpc: Callable[..., Awaitable[A]], request: Message) -> A:
        """Calls an rpc that has the same effect however often it arrives, again and again while it fails on the way.

        The request is sent unchanged, with the same idempotency key. Raises RequestError, the last one when it gave up.
        """
        patience = Patience(self.policy.retry, self.clock)
        while True:
            try:
                return await self.call(rpc, request)
            except RequestError as failure:
                if not is_transient(failure) or not await patience.wait(failure):
                    raise
