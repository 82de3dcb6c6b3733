"""The network that does what it is told: each of its failures, seen from both ends of a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from fault.proxy import GARBAGE, TRICKLE_BYTES, Proxy

SECONDS_MAX = 10.0


class Echo:
    """A server that says everything back. `gone` is set when a client is gone."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
        except OSError:
            pass
        finally:
            self.gone.set()
            writer.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def line() -> AsyncIterator[tuple[Echo, Proxy, Streams]]:
    """An echo, a proxy, and a connection to the echo through it."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with asyncio.timeout(SECONDS_MAX), AsyncExitStack() as stack:
        stack.callback(server.close)
        proxy = await stack.enter_async_context(Proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        stack.callback(writer.close)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        yield echo, proxy, (reader, writer)


async def test_a_cut_resets_the_client_and_tells_the_server(line: tuple[Echo, Proxy, Streams]) -> None:
    echo, proxy, (reader, _) = line
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await echo.gone.wait()
    refused, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await refused.read(1)
    proxy.restore()
    again, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"again")
    assert await again.readexactly(5) == b"again"
    writer.close()


async def test_the_server_is_not_told_of_a_connection_that_is_half_open(line: tuple[Echo, Proxy, Streams]) -> None:
    echo, proxy, (reader, _) = line
    proxy.cut(is_half_open=True)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert not echo.gone.is_set()


async def test_what_is_swallowed_arrives_later(line: tuple[Echo, Proxy, Streams]) -> None:
    _, proxy, (reader, writer) = line
    proxy.swallow()
    writer.write(b"late")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read(1)
    proxy.restore()
    assert await reader.readexactly(4) == b"late"


async def test_a_trickle_brings_everything_in_small_pieces(line: tuple[Echo, Proxy, Streams]) -> None:
    _, proxy, (reader, writer) = line
    proxy.trickle_seconds = 0.001
    writer.write(b"x")  # what is being read already is not cut into pieces
    await reader.readexactly(1)
    writer.write(b"y" * TRICKLE_BYTES * 4)
    assert len(await reader.read(1 << 16)) <= TRICKLE_BYTES
    assert await reader.readexactly(TRICKLE_BYTES) == b"y" * TRICKLE_BYTES


async def test_only_what_comes_from_the_server_is_garbled(line: tuple[Echo, Proxy, Streams]) -> None:
    _, proxy, (reader, writer) = line
    proxy.is_garbling = True
    writer.write(b"hello")
    assert await reader.readexactly(5 + len(GARBAGE)) == b"hello" + GARBAGE
