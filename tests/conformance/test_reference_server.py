"""The proxy of the reference server passes on all that a call has, and leaves nothing behind."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from support.rpc import connect
from turnwire.v1.session_service_pb2 import CreateSessionRequest, GetSessionRequest
from turnwire_conformance.rpcs import SLOW_OPTIONS, rpcs
from violations.exchange import Exchange
from violations.kinds import takes
from violations.proxy import Proxy

WAIT = rpcs()["InferenceService.Wait"].path
SUBSCRIBE = rpcs()["InferenceService.SubscribeEvents"].path

SECONDS = 20.0

RESPONSE_BYTES = 64 * 1024

# What the buffers of two connections hold of such responses, generously.
AHEAD_MAX = 400


class AnyRpc(grpc.GenericRpcHandler):
    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


@asynccontextmanager
async def behind_a_proxy(handler: Any, *plants: Any) -> AsyncGenerator[tuple[Proxy, grpc.aio.Channel], None]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((AnyRpc(handler),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Proxy(f"127.0.0.1:{port}", plants) as proxy, connected(proxy.address) as channel:
            yield proxy, channel
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(address: str) -> AsyncGenerator[grpc.aio.Channel, None]:
    async with grpc.aio.insecure_channel(address, options=SLOW_OPTIONS) as channel:
        yield channel


def unary(channel: Any, path: str) -> Callable[..., Any]:
    method: Callable[..., Any] = channel.unary_unary(path, None, None)
    return method


async def test_all_that_a_call_has_is_passed_on() -> None:
    seen: dict[str, Any] = {}

    async def answer(request: bytes, context: Any) -> bytes:
        seen.update(request=request, metadata=dict(context.invocation_metadata()), seconds=context.time_remaining())
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone", (("more", "about it"), ("raw-bin", b"\x00\xff")))
        raise AssertionError

    async with behind_a_proxy(grpc.unary_unary_rpc_method_handler(answer)) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await unary(channel, WAIT)(b"\x08\x96\x01\xff", timeout=SECONDS, metadata=(("who", "me"),))
    assert (seen["request"], seen["metadata"]["who"]) == (b"\x08\x96\x01\xff", "me")
    assert SECONDS - 5 < seen["seconds"] <= SECONDS
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.DATA_LOSS, "gone")
    trailers = dict(failed.value.trailing_metadata() or ())
    assert (trailers["more"], trailers["raw-bin"]) == ("about it", b"\x00\xff")


async def test_whoever_walks_away_walks_away_from_the_server() -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def answer(_: bytes, __: Any) -> bytes:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    async with behind_a_proxy(grpc.unary_unary_rpc_method_handler(answer)) as (_, channel):
        call = unary(channel, WAIT)(b"")
        async with asyncio.timeout(SECONDS):
            await began.wait()
            call.cancel()
            await left.wait()


async def test_a_stream_is_read_as_fast_as_its_client_reads() -> None:
    count = 0

    async def answer(_: bytes, context: Any) -> None:
        nonlocal count
        while True:
            await context.write(count.to_bytes(4) + bytes(RESPONSE_BYTES))
            count += 1

    handler = cast("Any", grpc.unary_stream_rpc_method_handler(answer))
    async with behind_a_proxy(handler) as (_, channel):
        stream: Any = cast("Any", channel).unary_stream(SUBSCRIBE, None, None)(b"")
        assert int.from_bytes((await stream.read())[:4]) == 0
        before = -1
        while before != count:
            before = count
            await asyncio.sleep(0.3)
        assert count < AHEAD_MAX
        assert [int.from_bytes((await stream.read())[:4]) for _ in range(3)] == [1, 2, 3]
        stream.cancel()


async def test_a_plant_that_is_broken_is_told() -> None:
    async def answer(_: bytes, __: Any) -> bytes:
        return b""

    async def fail(exchange: Exchange) -> Any:
        raise KeyError(exchange.rpc.name)

    handler = cast("Any", grpc.unary_unary_rpc_method_handler(answer))
    async with behind_a_proxy(handler, takes("Wait", fail)) as (proxy, channel):
        with pytest.raises(grpc.aio.AioRpcError):
            await unary(channel, WAIT)(b"")
        assert proxy.defects == ["InferenceService.Wait: KeyError('InferenceService.Wait')"]


async def test_what_was_made_through_it_is_deleted_at_the_end(server_address: str) -> None:
    async with Proxy(server_address) as proxy, connect(proxy.address) as stubs:
        session_id = (await stubs.session.CreateSession(CreateSessionRequest())).session.session_id
    async with connect(server_address) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stubs.session.GetSession(GetSessionRequest(session_id=session_id))
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
