"""The way to the server: a TCP proxy that knows the frames of HTTP/2, and cuts where it is told to."""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Awaitable, Callable

# RFC 9113: a frame is 9 bytes of header (length, type, flags, stream), then its payload.
_HEADER_LENGTH = 9
_DATA, _RST_STREAM, _PING, _GOAWAY = 0x0, 0x3, 0x6, 0x7
_ACK = 0x1
_PREFACE_LENGTH = 24
_INTERNAL_ERROR = 2
_STREAM_MAX = 2**31 - 1

# A reset may overtake what was not read yet. So before it, what the server has sent gets the time to come here; then
# the client is pinged, and once it has answered, it gets the time to take what it has read.
COMING_SECONDS, TAKING_SECONDS = 0.05, 0.1
ANSWER_SECONDS_MAX = 5.0
_PING_PAYLOAD = b"arrived?"


class Proxy:
    """Listens on a port of 127.0.0.1 and forwards to the server's, until it is told otherwise.

    Every fault is about all connections that are open then; new ones are forwarded as ever.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._port = 0
        self._holder: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def target(self) -> str:
        """Where a client finds it."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens; after a restart, on the same port."""
        if self._holder is None and sys.platform == "linux":
            self._holder = _hold_port()
            self._port = self._holder.getsockname()[1]
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self._port, reuse_address=True)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more, and resets what is open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_arrival(self) -> None:
        """Returns once the clients have what was sent to them."""
        await asyncio.sleep(COMING_SECONDS)
        for connection in list(self._connections):
            await connection.wait_arrival()
        await asyncio.sleep(TAKING_SECONDS)

    def reset(self) -> None:
        """Resets the connections."""
        for connection in list(self._connections):
            connection.reset()

    def reset_within(self, length: int) -> None:
        """Lets so many more bytes through to the client, then resets."""
        for connection in self._connections:
            connection.bytes_left = length

    def reset_stream(self) -> None:
        """Resets the stream that the server sends the next data on; the connection stays."""
        for connection in self._connections:
            connection.resets_stream = True

    def go_away(self) -> None:
        """Tells the clients to open no more streams, and closes soon after."""
        for connection in list(self._connections):
            connection.go_away()

    async def restart(self, seconds: float) -> None:
        """Resets the connections, and refuses new ones for so long."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.reset()
        await asyncio.sleep(seconds)
        await self.start()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served by a task")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection((reader, writer), upstream)
        self._connections.add(connection)
        try:
            await connection.forward()
        except asyncio.CancelledError:  # the end of the case; asyncio would print what its own task raises
            connection.reset()
        finally:
            self._connections.discard(connection)


class _Connection:
    """One connection of a client, and the one to the server that goes with it."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self.bytes_left: int | None = None
        self.resets_stream = False
        self._streams_reset: set[int] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._arrived = asyncio.Event()

    async def forward(self) -> None:
        """Forwards until one of the sides has closed."""
        ways: tuple[Callable[[], Awaitable[None]], ...] = (self._forward_up, self._forward_down)
        tasks = [asyncio.ensure_future(way()) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in (self._to_client, self._to_server):
                writer.close()

    def reset(self) -> None:
        """Closes with a RST instead of a FIN."""
        for writer in (self._to_client, self._to_server):
            with contextlib.suppress(OSError):
                sock: socket.socket | None = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def wait_arrival(self) -> None:
        """Returns once the client has read what was sent to it, or is gone."""
        self._arrived.clear()
        self._to_client.write(_frame(_PING, 0, _PING_PAYLOAD))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), ANSWER_SECONDS_MAX)

    def go_away(self) -> None:
        """Sends a GOAWAY that lets open streams go on, and closes soon after all the same."""
        payload = struct.pack(">II", _STREAM_MAX, 0)
        self._to_client.write(_frame(_GOAWAY, 0, payload))
        self._timers.append(asyncio.get_running_loop().call_later(TAKING_SECONDS, self._to_client.close))

    async def _forward_up(self) -> None:
        """All but the answers to our own pings."""
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                self._to_server.write(await self._from_client.readexactly(_PREFACE_LENGTH))
                while True:
                    frame = await _read_frame(self._from_client)
                    if frame[3] == _PING and frame[4] & _ACK and frame[_HEADER_LENGTH:] == _PING_PAYLOAD:
                        self._arrived.set()
                    else:
                        self._to_server.write(frame)
                        await self._to_server.drain()
        finally:
            self._arrived.set()  # whoever is gone has nothing to wait for

    async def _forward_down(self) -> None:
        """Whole frames only, so that what is put in between stands between two of them."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read_frame(self._from_server)
                if self.bytes_left is not None and len(frame) > self.bytes_left:
                    self._to_client.write(frame[: self.bytes_left])
                    await asyncio.sleep(TAKING_SECONDS)
                    self.reset()
                    return
                if self.bytes_left is not None:
                    self.bytes_left -= len(frame)
                if not self._is_dropped(frame):
                    self._to_client.write(frame)
                    await self._to_client.drain()

    def _is_dropped(self, frame: bytes) -> bool:
        """Data of a stream that was reset; headers pass, since they change what the headers after them mean."""
        stream = int.from_bytes(frame[5:9], "big")
        if frame[3] != _DATA:
            return False
        if self.resets_stream:
            self.resets_stream = False
            self._streams_reset.add(stream)
            self._to_client.write(_frame(_RST_STREAM, stream, struct.pack(">I", _INTERNAL_ERROR)))
        return stream in self._streams_reset


def _hold_port() -> socket.socket:
    """Binds a free port and never listens, so that nobody is given the port while the proxy does not listen on it.

    Two sockets with SO_REUSEADDR may be bound to one port on Linux, as long as neither listens when the other is bound.
    Elsewhere somebody may come in between, and the case fails.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(_HEADER_LENGTH)
    return header + await reader.readexactly(int.from_bytes(header[:3], "big"))


def _frame(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + stream.to_bytes(4, "big") + payload
