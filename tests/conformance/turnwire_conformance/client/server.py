"""The reference server of a case: keeps the contract over its world, does what the faults say, records all calls."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from turnwire.testing.v1.client_conformance_pb2 import ClientCase, ClientCut, ClientFault, ClientStatus
from turnwire.v1 import debug_service_pb2, engine_service_pb2, inference_service_pb2, session_service_pb2
from turnwire.v1.inference_service_pb2 import SubscribeEventsRequest, SubscribeEventsResponse
from turnwire_conformance.client.answers import ANSWERS, Refusal
from turnwire_conformance.client.proxy import Proxy
from turnwire_conformance.client.subscription import responses
from turnwire_conformance.client.world import World, make_world

HEARTBEAT_SECONDS = 0.1
RESTART_SECONDS = 0.5

# What no case waits for: the end of the case comes first.
FOR_EVER = 3600.0

# What does not cut the whole connection, or cuts it within a response: the server goes on sending.
_CUTS_OF_STREAMS = frozenset(
    {ClientCut.CLIENT_CUT_STREAM, ClientCut.CLIENT_CUT_STREAM_RESET, ClientCut.CLIENT_CUT_INSIDE_RESPONSE}
)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that came: which, what it asked for, and when, in seconds of the monotonic clock."""

    rpc: str
    request: Message
    at: float


class ReferenceServer:
    """The server of one case, behind its proxy. `calls` is everything that came, in order."""

    def __init__(self, case: ClientCase) -> None:
        self.world: World = make_world(case)
        self.calls: list[Call] = []
        self._faults = list(case.faults)
        self._per_response = case.events_per_response or 1
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(tuple(self._handlers()))
        self._proxy: Proxy | None = None
        self._restart: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Serves; returns the address for the client."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._proxy = Proxy(port)
        await self._proxy.start()
        return self._proxy.target

    async def stop(self) -> None:
        """Ends everything that is open."""
        try:
            if self._restart is not None:
                await self._restart
        finally:
            if self._proxy is not None:
                await self._proxy.stop()
            await self._server.stop(None)

    def calls_of(self, rpc: str) -> list[Call]:
        """The calls of one rpc, in order."""
        return [call for call in self.calls if call.rpc == rpc]

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        for module in (inference_service_pb2, session_service_pb2, engine_service_pb2, debug_service_pb2):
            for service in module.DESCRIPTOR.services_by_name.values():
                methods = {method.name: self._handler(method) for method in service.methods}
                yield grpc.method_handlers_generic_handler(service.full_name, methods)

    def _handler(self, method: MethodDescriptor) -> Handler:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        make: Callable[..., Handler] = grpc.unary_unary_rpc_method_handler
        behaviour: Callable[..., object] = self._unary(method.name, response)
        if method.server_streaming:
            make, behaviour = grpc.unary_stream_rpc_method_handler, self._stream
        return make(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )

    def _record(self, rpc: str, request: Message) -> ClientFault | None:
        """Records a call; returns what happens to it, None when nothing does."""
        self.calls.append(Call(rpc, request, time.monotonic()))
        number = len(self.calls_of(rpc))
        for fault in self._faults:
            first = fault.call or 1
            if fault.rpc == rpc and first <= number < first + (fault.calls or 1):
                return fault
        return None

    def _unary(self, rpc: str, response_type: type[Message]) -> Callable[[Message, Context], Awaitable[Message]]:
        async def answer(request: Message, context: Context) -> Message:
            fault = self._record(rpc, request)
            if fault is None:
                return await self._answer(rpc, request, context)
            await asyncio.sleep(fault.delay.ToTimedelta().total_seconds())
            kind = fault.WhichOneof("kind")
            if kind == "respond":
                return json_format.ParseDict(json_format.MessageToDict(fault.respond), response_type())
            response: Message | None = None
            if kind is None or fault.takes_effect:
                response = await self._answer(rpc, request, context)
            if kind == "cut" and fault.cut in _CUTS_OF_STREAMS:
                response = response or response_type()
                self._cut_next(fault.cut, response)
            elif kind is not None:
                await self._happen(fault, context)
            if response is None:
                raise RuntimeError(f"{kind} of {rpc} gives no answer")
            return response

        return answer

    async def _answer(self, rpc: str, request: Message, context: Context) -> Message:
        if rpc not in ANSWERS:
            await abort(
                context,
                ClientStatus(code="UNIMPLEMENTED", reason="FEATURE_NOT_IMPLEMENTED", metadata={"feature": rpc}),
            )
        try:
            return ANSWERS[rpc](self.world, request)
        except Refusal as refusal:
            await abort(context, refusal.status)
            raise

    async def _stream(
        self, request: SubscribeEventsRequest, context: Context
    ) -> AsyncIterator[SubscribeEventsResponse]:
        fault = self._record("SubscribeEvents", request)
        told = await self._plan(request, fault, context)
        if fault is not None:
            async for response in self._before(fault, told):
                yield response
            if fault.WhichOneof("kind") is not None:
                async for response in self._during(fault, told, context):
                    yield response
                return
        last = SubscribeEventsResponse()
        while told:
            last = told.popleft()
            yield last
        while not last.HasField("end"):  # nothing more happens in this world
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if last.through_sequence:
                yield _heartbeat(last)

    async def _plan(
        self, request: SubscribeEventsRequest, fault: ClientFault | None, context: Context
    ) -> deque[SubscribeEventsResponse]:
        """What the stream would send, or what the fault has in its place."""
        if fault is not None and fault.responses:
            told = (json_format.MessageToDict(each) for each in fault.responses)
            return deque(json_format.ParseDict(each, SubscribeEventsResponse()) for each in told)
        try:
            return deque(responses(self.world, request, self._per_response))
        except Refusal as refusal:
            if fault is None:
                await abort(context, refusal.status)
            return deque()

    async def _before(
        self, fault: ClientFault, told: deque[SubscribeEventsResponse]
    ) -> AsyncIterator[SubscribeEventsResponse]:
        """What is sent before a fault happens: what it has itself, or the events that come first; then heartbeats."""
        last, sent = SubscribeEventsResponse(), 0
        seconds = fault.delay.ToTimedelta().total_seconds()
        opens = fault.after_events or seconds or fault.WhichOneof("kind") == "end"
        if told and opens and not fault.responses:
            last = told.popleft()
            yield last
        while told and (fault.responses or sent < fault.after_events):
            last = told.popleft()
            sent += len(last.events) + len(last.snapshot.events)
            yield last
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            yield _heartbeat(last)
        if fault.WhichOneof("kind") == "end":
            ending = _heartbeat(last)
            ending.end.reason = fault.end
            told.clear()
            told.append(ending)

    async def _during(
        self, fault: ClientFault, told: deque[SubscribeEventsResponse], context: Context
    ) -> AsyncIterator[SubscribeEventsResponse]:
        """What is sent while a fault happens: the response that it cuts, if it needs one, or the end."""
        if fault.WhichOneof("kind") == "end":
            yield told.popleft()
            return
        if fault.after_events or fault.responses:
            await self._to_proxy().wait_arrival()
        if fault.WhichOneof("kind") == "cut" and fault.cut in _CUTS_OF_STREAMS:
            if fault.cut == ClientCut.CLIENT_CUT_STREAM:
                return
            following = told[0] if told else SubscribeEventsResponse(through_sequence=self.world.head)
            self._cut_next(fault.cut, following)
            yield following
        else:
            await self._happen(fault, context)
        await asyncio.sleep(FOR_EVER)

    def _cut_next(self, cut: ClientCut.ValueType, response: Message) -> None:
        """Has the response that is sent next cut on its way."""
        if cut == ClientCut.CLIENT_CUT_INSIDE_RESPONSE:
            self._to_proxy().reset_within(response.ByteSize() // 2)
        else:
            self._to_proxy().reset_stream()

    async def _happen(self, fault: ClientFault, context: Context) -> None:
        """Lets a fault happen after which no answer comes. It does not return."""
        proxy = self._to_proxy()
        if fault.WhichOneof("kind") == "status":
            await abort(context, fault.status)
        elif fault.WhichOneof("kind") == "cut":
            if fault.cut == ClientCut.CLIENT_CUT_CONNECTION:
                proxy.reset()
            elif fault.cut == ClientCut.CLIENT_CUT_GOAWAY:
                proxy.go_away()
            elif fault.cut == ClientCut.CLIENT_CUT_RESTART:
                # The reset cancels this very call.
                self._restart = asyncio.ensure_future(proxy.restart(RESTART_SECONDS))
        await asyncio.sleep(FOR_EVER)

    def _to_proxy(self) -> Proxy:
        if self._proxy is None:
            raise RuntimeError("the server was not started")
        return self._proxy


async def abort(context: Context, status: ClientStatus) -> None:
    """Ends a call with a status, and with the details that the catalogue gives it. It does not return."""
    code = grpc.StatusCode[status.code]
    told = Status(code=code.value[0], message=status.message or status.reason)
    if status.reason:
        told.details.append(_packed(ErrorInfo(reason=status.reason, domain="turnwire", metadata=status.metadata)))
    if status.HasField("retry_delay"):
        delay = Duration()
        delay.CopyFrom(status.retry_delay)
        told.details.append(_packed(RetryInfo(retry_delay=delay)))
    details = (("grpc-status-details-bin", told.SerializeToString()),) if told.details else ()
    await context.abort(code, told.message, details)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _heartbeat(last: SubscribeEventsResponse) -> SubscribeEventsResponse:
    return SubscribeEventsResponse(after_sequence=last.through_sequence, through_sequence=last.through_sequence)
