"""An MCP server that is a program, as far as the client library leaves something to be done."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TextIO

import anyio
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.message import SessionMessage

from turnwire_server.tools.mcp_settings import StdioSettings

# How long the line of a program's own log may be; the rest of it is lost. How long its last ones are waited for.
LINE_BYTES_MAX = 4096
LINES_SECONDS_MAX = 1.0

Item = SessionMessage | Exception


@asynccontextmanager
async def open_stdio(
    settings: StdioSettings, on_line: Callable[[str], None], on_end: Callable[[], None]
) -> AsyncGenerator[tuple["_EndingStream", Any]]:
    """Start a program; `on_line` hears what it writes to its standard error, `on_end` that it ended."""
    command, *args = settings.command
    parameters = StdioServerParameters(command=command, args=args, env=settings.env, cwd=settings.cwd)
    async with _lines(on_line) as errors, stdio_client(parameters, errlog=errors) as (read, write):
        yield _EndingStream(read, on_end), write


class _EndingStream:
    """What a program says, as a stream of the library that tells when it has ended."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def receive(self) -> Item:
        try:
            item: Item = await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.__aexit__(kind, error, trace)


@asynccontextmanager
async def _lines(on_line: Callable[[str], None]) -> AsyncGenerator[TextIO]:
    """Give a file to write to, and pass its lines on. What is still in it at the end is passed on, too."""
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    passing = asyncio.create_task(_pass_on(reader, on_line))
    try:
        with os.fdopen(write_end, "w", encoding="utf-8") as file:
            yield file
    finally:
        await asyncio.wait({passing}, timeout=LINES_SECONDS_MAX)  # children of the program may keep it open
        passing.cancel()
        with suppress(asyncio.CancelledError):
            await passing
        transport.close()


async def _pass_on(reader: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    rest = b""
    while data := await reader.read(LINE_BYTES_MAX):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            on_line(line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip())
        rest = rest[:LINE_BYTES_MAX]
    if rest:
        on_line(rest.decode("utf-8", "replace"))
