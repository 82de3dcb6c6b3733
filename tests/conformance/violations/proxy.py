"""A proxy before a real server: it passes everything on as it is, aside from what a plant does.

Requests and responses are bytes to it, and stay the same bytes; metadata, details and deadlines are passed on, a client
that walks away walks away from the server, and a stream is read only as fast as its client reads. Each stream has a
connection of its own, so that a slow one is slow alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from turnwire.v1 import session_service_pb2
from turnwire_conformance.rpcs import OPTIONS, SLOW_OPTIONS, Rpc, rpcs, unknown_rpc
from turnwire_conformance.stage import MAKERS
from turnwire_conformance.values import pick
from violations.exchange import STREAMED, UNKNOWN, Exchange, Plant, RefusalError, method_of, rpc_of

# Larger requests are refused by the transport itself, says the contract.
REQUEST_BYTES_MAX = 16 * 1024 * 1024

CALL_SECONDS = 20.0

_LISTENING = (("grpc.max_receive_message_length", REQUEST_BYTES_MAX), ("grpc.so_reuseport", 0))
_CALLING = (*OPTIONS, ("grpc.max_receive_message_length", -1))
_FOLLOWING = (*SLOW_OPTIONS, ("grpc.max_receive_message_length", -1))

_BY_PATH = {rpc.path: rpc for rpc in rpcs().values()}


class Proxy:
    """`async with Proxy(address, plants) as proxy`: listens on `proxy.address` for the server at an address.

    What calls through it have made is deleted at the end. `defects` are what plants raised and are not meant to: they
    fail themselves then, and not the contract.
    """

    def __init__(self, server: str, plants: Sequence[Plant] = ()) -> None:
        self._behind = server
        self._plants = plants
        self._state: dict[Any, Any] = {}
        self._sessions: set[str] = set()
        self._beside: set[asyncio.Task[Any]] = set()
        self._server = grpc.aio.server(options=_LISTENING)
        self._server.add_generic_rpc_handlers((_AnyRpc(self._answer),))
        self.defects: list[str] = []
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> Proxy:
        self._channel = grpc.aio.insecure_channel(self._behind, options=_CALLING)
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(None)
        for task in self._beside:
            task.cancel()
        for outcome in await asyncio.gather(*self._beside, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, RefusalError):
                self.defects.append(f"beside a call: {outcome!r}")
        delete = rpc_of("DeleteSession")
        for session_id in self._sessions:
            request = session_service_pb2.DeleteSessionRequest(session_id=session_id, force=True)
            with suppress(grpc.aio.AioRpcError):
                await delete.call(self._channel, request.SerializeToString(), CALL_SECONDS)
        await self._channel.close()

    def _answer(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return what answers an rpc. One that the contract does not have is passed on as well."""
        rpc = _BY_PATH.get(path)
        if rpc and method_of(rpc) == STREAMED:
            return grpc.unary_stream_rpc_method_handler(cast("Any", self._stream_of(rpc)))
        return grpc.unary_unary_rpc_method_handler(cast("Any", self._unary_of(rpc, path)))

    def _unary_of(self, known: Rpc | None, path: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            server = _Server(self._channel, self._behind, context, self._sessions, self._beside)
            seconds = context.time_remaining()
            plants = self._plants_of(known)
            rpc = known or replace(unknown_rpc(""), path=path)
            try:
                if not plants:
                    return await server.pass_on(path, request, seconds)
                return await self._planted(rpc, request, seconds, server, plants)
            except RefusalError as refusal:
                await _refuse(context, refusal)
            except grpc.aio.AioRpcError as error:
                await _refuse_alike(context, error)
            raise AssertionError

        return answer

    async def _planted(
        self, rpc: Rpc, request: bytes, seconds: float | None, server: _Server, plants: Sequence[Plant]
    ) -> bytes:
        try:
            return await Exchange(rpc, request, seconds, self._state, server, plants).forward_raw()
        except DecodeError:  # a plant that looks at requests has nothing to say about what is none
            return await server.pass_on(rpc.path, request, seconds)
        except (RefusalError, grpc.aio.AioRpcError, grpc.aio.BaseError):
            raise
        except Exception as error:
            self.defects.append(f"{rpc.name}: {error!r}")
            raise

    def _stream_of(self, rpc: Rpc) -> Callable[[bytes, Any], Awaitable[None]]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            server = _Server(self._channel, self._behind, context, self._sessions, self._beside)
            plants = self._plants_of(rpc)
            exchange = Exchange(rpc, request, None, self._state, server, plants)
            responses = exchange.follow_raw() if plants else server.pass_on_stream(rpc.path, request)
            try:
                async with aclosing(responses) as each:
                    async for response in each:
                        await context.write(response)
            except RefusalError as refusal:
                await _refuse(context, refusal)
            except grpc.aio.AioRpcError as error:
                await _refuse_alike(context, error)
            except grpc.aio.BaseError:
                raise
            except Exception as error:
                self.defects.append(f"{rpc.name}: {error!r}")
                raise

        return answer

    def _plants_of(self, rpc: Rpc | None) -> Sequence[Plant]:
        method = method_of(rpc) if rpc else UNKNOWN
        return [plant for plant in self._plants if method in plant.methods]


class _AnyRpc(grpc.GenericRpcHandler):
    """Hands every rpc, whatever its name, to one function."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._answer(handler_call_details.method)


class _Server:
    """The server behind, as one call of a client reaches it: with that client's metadata."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        context: grpc.aio.ServicerContext[bytes, bytes],
        sessions: set[str],
        beside: set[asyncio.Task[Any]],
    ) -> None:
        self._channel = channel
        self._address = address
        self._sessions = sessions
        self._beside = beside
        told = context.invocation_metadata() or ()
        self._metadata = tuple((key, value) for key, value in told if not key.startswith((":", "grpc-", "user-agent")))

    async def pass_on(self, path: str, request: bytes, seconds: float | None) -> bytes:
        """Return the response to a request. Errors: AioRpcError."""
        call = cast("Any", self._channel.unary_unary)(path, None, None)(
            request, timeout=seconds, metadata=self._metadata
        )
        try:
            response: bytes = await call
        finally:
            call.cancel()
        self._note(path, request, response)
        return response

    def _note(self, path: str, request: bytes, response: bytes) -> None:
        rpc = _BY_PATH.get(path)
        if rpc and (place := MAKERS.get(rpc.name)):
            self._sessions.add(pick(rpc.response_class.FromString(response), place))
        elif rpc and method_of(rpc) == "DeleteSession":
            self._sessions.discard(pick(rpc.request_class.FromString(request), "session_id"))

    async def pass_on_stream(self, path: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """Yield the responses to a request. Errors: AioRpcError."""
        async with grpc.aio.insecure_channel(self._address, options=_FOLLOWING) as channel:
            call = cast("Any", channel.unary_stream)(path, None, None)(request, metadata=self._metadata)
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    yield response
            finally:
                call.cancel()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        self._beside.add(asyncio.create_task(work))

    async def ask(self, rpc: Rpc, request: bytes, seconds: float | None) -> bytes:
        try:
            return await self.pass_on(rpc.path, request, seconds)
        except grpc.aio.AioRpcError as error:
            raise RefusalError.from_error(error) from None

    async def follow(self, rpc: Rpc, request: bytes) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self.pass_on_stream(rpc.path, request)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AioRpcError as error:
            raise RefusalError.from_error(error) from None


async def _refuse(context: grpc.aio.ServicerContext[bytes, bytes], refusal: RefusalError) -> None:
    await context.abort(grpc.StatusCode[refusal.code], refusal.message, refusal.trailers())


async def _refuse_alike(context: grpc.aio.ServicerContext[bytes, bytes], error: grpc.aio.AioRpcError) -> None:
    """Fail as the server did."""
    trailers = cast("Any", tuple(error.trailing_metadata() or ()))
    await context.abort(error.code(), error.details() or "", trailers)
