"""The proxy of client conformance: what it does below gRPC that a case cannot show."""

import asyncio
import socket
import sys

import pytest

from turnwire_conformance.client.proxy import Proxy


def port_of(proxy: Proxy) -> int:
    return int(proxy.target.rpartition(":")[2])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a second socket hold the port")
async def test_nobody_is_given_the_port_while_the_proxy_restarts() -> None:
    connected = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    restart = asyncio.ensure_future(proxy.restart(0.2))
    await asyncio.sleep(0.1)
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(("127.0.0.1", port_of(proxy)))
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port_of(proxy))
    await restart
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
    assert await reader.read() == b""
    assert connected.is_set()
    writer.close()
    await proxy.stop()
    server.close()
