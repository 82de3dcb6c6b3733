"""What no gRPC client sends: the server goes on all the same."""

import asyncio
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from support.rpc import connect
from support.server import server_on
from turnwire.v1.session_service_pb2 import CreateSessionRequest

_HEADERS, _SETTINGS, _END = 1, 4, 5


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _call(path: bytes) -> bytes:
    """Return what calls a path in HTTP/2, without a body."""
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
    }
    headers[b"content-type"] = b"application/grpc"
    block = b"".join(b"\x00" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in headers.items())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END, 1, block)


def _send(address: str, data: bytes) -> None:
    """Send it, and return once the server has hung up."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(data)
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass


async def test_a_path_that_is_no_text_does_not_end_the_server(tmp_path: Path, servers: ExitStack) -> None:
    """gRPC itself gives up serving over it; who calls next has to find a server all the same."""
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--drain-grace-seconds", "0"))
    for _ in range(3):
        await asyncio.to_thread(_send, server.address, _call(b"/turnwire.v1.InferenceService/\xff"))
        async with connect(server.address, ("grpc.initial_reconnect_backoff_ms", 100)) as stubs:
            created = await stubs.session.CreateSession(CreateSessionRequest(), wait_for_ready=True, timeout=10)
            session_id = created.session.session_id
            ended = await stubs.finish((await stubs.start(session_id)).inference_id)
            assert ended.turn.blocks
    assert server.stop() == 0
    assert sum("listening again" in line for line in server.log) == 3
