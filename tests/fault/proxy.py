"""A TCP proxy on 127.0.0.1 that does to connections what networks do: it cuts, swallows, delays and trickles."""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

PIECE_BYTES = 64 * 1024

# In a trickle, so much goes at a time.
TRICKLE_BYTES = 512

# No HTTP, no UTF-8, no JSON.
GARBAGE = b"\xff\x00\xfe{]garbage\r\n"

# How long the other end may take to accept a connection.
CONNECT_SECONDS = 5.0

# SO_LINGER on, for no time: closing then sends an RST.
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True, eq=False)
class _Connection:
    task: "asyncio.Task[None] | None"
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_half_open: bool = False


class Proxy:
    """One port in front of one address. What it does, it does to all connections, there and to come, until `restore`.

    `delay_seconds` holds up each piece, `trickle_seconds` every few bytes; `is_garbling` adds to what the clients get.
    `count` is how many connections there were.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.delay_seconds = 0.0
        self.trickle_seconds = 0.0
        self.is_garbling = False
        self.count = 0
        self._is_refusing = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[_Connection] = set()
        self._half_open: list[asyncio.StreamWriter] = []  # as many as were cut; a life has few cuts
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    def swallow(self) -> None:
        """Let nothing through, in either direction, and tell nobody. What is on its way arrives after `restore`."""
        self._flows.clear()

    def cut(self, *, is_half_open: bool = False) -> None:
        """Reset the clients' connections, and refuse new ones. `is_half_open`: the other end is not told."""
        self._is_refusing = True
        for connection in tuple(self._connections):
            connection.is_half_open = is_half_open
            if connection.task:
                connection.task.cancel()

    def restore(self) -> None:
        """Be a network that works."""
        self.delay_seconds = self.trickle_seconds = 0.0
        self.is_garbling = False
        self._is_refusing = False
        self._flows.set()

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [each.task for each in self._connections if each.task]
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._half_open:
            _reset(writer)
        await asyncio.sleep(0)  # what was reset is closed in the loop's next round

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        if self._is_refusing:
            _reset(writer)
            return
        connection = _Connection(asyncio.current_task(), writer)
        self._connections.add(connection)
        # That a connection ends, in whatever way, is what a proxy is for: nobody is to hear of its task.
        with suppress(asyncio.CancelledError, OSError, TimeoutError):
            try:
                await self._relay(connection, reader)
                writer.close()
            finally:
                self._connections.discard(connection)
                self._release(connection)

    async def _relay(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        host, _, port = self.target.rpartition(":")
        async with asyncio.timeout(CONNECT_SECONDS):
            answers, connection.server = await asyncio.open_connection(host, int(port))
        pumps = {
            asyncio.create_task(self._pump(reader, connection.server)),
            asyncio.create_task(self._pump(answers, connection.client, is_answer=True)),
        }
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        """Pass on what comes, until nothing more does."""
        await self._flows.wait()
        while data := await reader.read(TRICKLE_BYTES if self.trickle_seconds else PIECE_BYTES):
            if seconds := self.delay_seconds or self.trickle_seconds:
                await asyncio.sleep(seconds)
            await self._flows.wait()
            writer.write(data + GARBAGE if is_answer and self.is_garbling else data)
            await writer.drain()

    def _release(self, connection: _Connection) -> None:
        if not connection.client.is_closing():
            _reset(connection.client)
        if connection.server and connection.is_half_open:
            self._half_open.append(connection.server)
        elif connection.server:
            connection.server.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, with an RST."""
    own: socket.socket | None = writer.get_extra_info("socket")
    if own is not None:
        with suppress(OSError):
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
