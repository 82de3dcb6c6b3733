"""Bare grpc.aio: what one can get out of gRPC in Python without doing anything besides.

    python -m bench.peers.bare        prints `listening on HOST:PORT`

`/bench.Bare/Stream` takes an Order and sends its events, `batch` of them joined in a message, as our server does;
nothing is made for them when they are sent flat out: the bytes are there. Paced, each event is made when it is due,
with the time in it. `/bench.Bare/Echo` answers with its request.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc

from bench.events import Order, frame


async def stream(request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> AsyncGenerator[bytes]:
    """Send what is ordered."""
    order = Order.decode(request)
    await asyncio.sleep(order.seconds_left)
    if order.pace_seconds:
        for sequence in range(order.events):
            await asyncio.sleep(order.pace_seconds)
            yield frame(sequence, time.time_ns())
        return
    one = frame(1, time.time_ns())
    batch = one * order.batch
    for _ in range(order.events // order.batch):
        yield batch
    if rest := order.events % order.batch:
        yield one * rest


async def echo(request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """Answer with the request."""
    return request


async def main() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    methods = {
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
