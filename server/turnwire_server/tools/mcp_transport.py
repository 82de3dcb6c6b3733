"""The two ways to an MCP server, as far as the client library leaves something to be done."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TextIO

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from turnwire_server.tools.mcp_settings import HttpSettings, StdioSettings

# How much of one answer is read from a stream: more than a result may have, so that one that is too large is told from
# a broken stream.
ANSWER_BYTES_MAX = 8 * 1_048_576

# How long the line of a program's own log may be; the rest of it is lost. How long its last ones are waited for.
LINE_BYTES_MAX = 4096
LINES_SECONDS_MAX = 1.0

# Servers commonly close a connection that was idle for 5 s. We are earlier, so that no request runs into that.
IDLE_SECONDS_MAX = 2.0

# What the answers say that are made here, where there was none; JSON-RPC and MCP give away no codes of this range.
UNREACHED = -31_001  # the request was not sent, or refused
SESSION_LOST = -31_002  # the request was refused, since the server knows nothing of us any more
BROKEN = -31_003  # the request was sent

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


@asynccontextmanager
async def open_http(settings: HttpSettings) -> AsyncGenerator[tuple[Any, Any]]:
    """Make ready to send requests to a URL. Nothing is sent yet."""
    timeout = httpx2.Timeout(settings.connect_seconds_max, read=None)  # a call has a timeout of its own
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS_MAX)  # as many as there are calls
    async with (
        _HttpClient(headers=settings.headers, timeout=timeout, limits=limits) as client,
        streamable_http_client(settings.url, http_client=client, max_sse_event_size=ANSWER_BYTES_MAX) as streams,
    ):
        yield streams


class _HttpClient(httpx2.AsyncClient):
    """Answers by itself where there is no answer, with an error that says whether the request was sent.

    Otherwise the library ends the whole connection, and with it every call that has nothing to do with the request.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request."""
        try:
            response = await super().send(request, **options)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _answer(request, UNREACHED, f"it cannot be reached: {str(error) or type(error).__name__}")
        except httpx2.TransportError as error:
            return _answer(request, BROKEN, f"the connection broke: {str(error) or type(error).__name__}")
        status = response.status_code
        if status in (401, 403):
            await response.aclose()
            return _answer(request, UNREACHED, f"it does not accept the credentials (HTTP status {status})")
        if status in (400, 404) and request.method == "POST" and "mcp-session-id" in request.headers:
            await response.aclose()  # 404 by the specification; there are servers that say 400
            return _answer(request, SESSION_LOST, f"it has lost the session (HTTP status {status})")
        return response


def _answer(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(503, json=body, request=request)


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
