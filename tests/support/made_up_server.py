"""A server that is made up: it answers every rpc as a test says, in the contract or out of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Answer = Callable[[str, bytes, Any], Awaitable[bytes]]


@asynccontextmanager
async def made_up(answer: Answer) -> AsyncGenerator[str, None]:
    """Serve what `answer(method, request, context)` returns, as bytes; yield the address. A stream gets that once."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method.rpartition("/")[2]

        async def answer(request: bytes, context: Any) -> bytes:
            return await self._answer(method, request, context)

        async def stream(request: bytes, context: Any) -> None:
            await context.write(await self._answer(method, request, context))

        grpc_any = cast("Any", grpc)
        if method == "SubscribeEvents":
            return grpc_any.unary_stream_rpc_method_handler(stream)
        return grpc_any.unary_unary_rpc_method_handler(answer)
