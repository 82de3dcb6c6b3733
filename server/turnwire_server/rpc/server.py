"""The gRPC server: services, health, reflection, and the way down."""

import re
from collections.abc import Callable, Sequence

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from turnwire.v1 import debug_service_pb2, engine_service_pb2, inference_service_pb2, session_service_pb2
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.profile import EngineInfo
from turnwire_server.events.turnstile import Turnstile
from turnwire_server.rpc.call import TRANSPORT_BYTES_MAX, Stream, Unary, generic_handler
from turnwire_server.rpc.debug_service import DebugService
from turnwire_server.rpc.engine_service import EngineService, no_tools
from turnwire_server.rpc.inference_service import InferenceService
from turnwire_server.rpc.session_service import SessionService
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.telemetry.logs import logger

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (inference_service_pb2, "InferenceService"),
        (session_service_pb2, "SessionService"),
        (engine_service_pb2, "EngineService"),
        (debug_service_pb2, "DebugService"),
    )
)

# gRPC gives up connections whose pings come more often than this without any call; clients that keep idle streams ping.
_OPTIONS = (
    ("grpc.max_receive_message_length", TRANSPORT_BYTES_MAX),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

# How long rpcs that are under way get to return once everything else has stopped.
RPC_GRACE_SECONDS = 2.0

# How often is looked whether the server was stopped; that gRPC has ended it is noticed at once.
LOOK_SECONDS = 0.5

log = logger()


class RpcServer:
    """The contract on one address. Health is SERVING from start() until the server begins to drain, while it is fit.

    `engines` are those that are listed; `known_tools` names the tools of a profile, as far as they are known.
    """

    def __init__(
        self,
        runtime: Runtime,
        mint: Mint,
        turnstile: Turnstile,
        rpcs_max: int,
        *,
        engines: Sequence[EngineInfo] = (),
        known_tools: Callable[[str], Sequence[str]] = no_tools,
    ) -> None:
        self._rpcs_max = rpcs_max
        self._address = ""
        self._is_stopping = False
        self._health = health.aio.HealthServicer()
        services = {
            "InferenceService": InferenceService(runtime, mint, turnstile),
            "SessionService": SessionService(runtime),
            "DebugService": DebugService(runtime),
            "EngineService": EngineService(runtime.profiles, engines, known_tools),
        }
        self._handlers = tuple(
            generic_handler(service, served_rpcs(service, services.get(service.name))) for service in SERVICES
        )
        self._names = ("", *(service.full_name for service in SERVICES))
        self._server = self._build()

    def _build(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=self._rpcs_max)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers(self._handlers)
        reflection.enable_server_reflection((*self._names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    def bind(self, address: str) -> int:
        """Take `host:port`; return the port, which the system chooses for port 0.

        Errors: OSError when the address cannot be taken.
        """
        try:
            port = self._server.add_insecure_port(address)
            self._address = f"{address.rpartition(':')[0]}:{port}"
            return port
        except RuntimeError:
            msg = f"cannot listen on {address}: it is taken, or not of this machine; choose another --listen"
            raise OSError(msg) from None

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)

    async def run(self) -> None:
        """Return once the server was stopped. Until then, listen again whenever gRPC ends it by itself.

        It does so over a path that is no UTF-8 (grpcio 1.85), for which no client has to be known: every stream is cut,
        and clients resume. Errors: OSError when the address was taken meanwhile.
        """
        while not self._is_stopping:
            try:
                await self._server.wait_for_termination(LOOK_SECONDS)
            except Exception as error:  # whatever gRPC could not bear, those who call next are not to blame
                log.error("gRPC ended the server; listening again", exc_info=error)
                await self._server.stop(None)
                if self._is_stopping:
                    return
                self._server = self._build()
                self.bind(self._address)
                await self._server.start()
                if self._is_stopping:  # meanwhile; whoever stops it has stopped the one before
                    await self._server.stop(None)

    async def tell_fitness(self, *, is_fit: bool) -> None:
        """Tell health checkers whether the server can do its work."""
        status = health_pb2.HealthCheckResponse
        await self._set_health(status.SERVING if is_fit else status.NOT_SERVING)

    async def begin_drain(self) -> None:
        """Tell health checkers, for good, that nothing new is taken; rpcs go on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Take no more connections, and let rpcs that are under way return."""
        self._is_stopping = True
        await self._server.stop(RPC_GRACE_SECONDS)

    async def _set_health(self, status: int) -> None:
        for name in self._names:
            await self._health.set(name, status)


def served_rpcs(service: ServiceDescriptor, implementation: object) -> dict[str, Unary | Stream]:
    """Return what an implementation serves: the method `start_inference` serves the rpc StartInference."""
    found: dict[str, Unary | Stream] = {}
    for method in service.methods:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
        serve: Unary | Stream | None = getattr(implementation, name, None)
        if serve is not None:
            found[method.name] = serve
    return found
