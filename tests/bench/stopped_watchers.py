"""Watchers that stop reading: each has a connection of its own, and takes nothing after the first bytes of its stream.

They speak just enough HTTP/2 for one call, so that thousands of them are nothing but sockets. The window is the
protocol's own: 64 KiB for a stream, and for its connection.
"""

import socket
import struct
from types import TracebackType

from bench.events import grpc_message

SECONDS_MAX = 30.0

# What the kernel may keep on this side; it is asked for before anything comes.
RECEIVE_BUFFER_BYTES = 16 * 1024

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4


class StoppedWatchers:
    """Watchers of one rpc. They are gone when the block ends."""

    def __init__(self, address: str, path: str, request: bytes) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._call = _call(path, request)
        self._sockets: list[socket.socket] = []

    def add(self, count: int) -> None:
        """Open streams, one after the other, and wait until each has begun. Errors: OSError, also if it does not."""
        for _ in range(count):
            connection = socket.socket()
            self._sockets.append(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            connection.settimeout(SECONDS_MAX)
            connection.connect(self._address)
            connection.sendall(self._call)
            _wait_for_data(connection)

    def __enter__(self) -> "StoppedWatchers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._sockets:
            connection.close()


def _call(path: str, request: bytes) -> bytes:
    """Return all that a client sends for a call; the server's settings are acknowledged before they are known."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, b""),
            _frame(_SETTINGS, _ACK, 0, b""),
            _frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*field) for field in fields)),
            _frame(_DATA, _END_STREAM, 1, grpc_message(request)),
        )
    )


def _wait_for_data(connection: socket.socket) -> None:
    """Read up to the head of the first DATA frame, and no further."""
    while True:
        head = _exactly(connection, 9)
        if head[3] == _DATA:
            return
        _exactly(connection, int.from_bytes(head[:3], "big"))


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            msg = "the server hung up before the stream began"
            raise OSError(msg)
        received += part
    return received


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """Encode a short header that nobody is to remember (RFC 7541, section 6.2.2), without Huffman coding."""
    return b"".join((b"\x00", bytes((len(name),)), name.encode(), bytes((len(value),)), value.encode()))
