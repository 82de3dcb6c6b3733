"""An MCP server behind a URL, as far as the client library leaves something to be done.

It ends the whole connection when one request finds nobody; and a request that was cancelled it keeps open for as long
as the server does, which with some servers is for ever. So requests go through a client that answers in both cases.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client

from turnwire_server.tools.mcp_settings import HttpSettings

# How much of one answer is read: more than a result may have, so that too large a one is told from one that broke.
ANSWER_BYTES_MAX = 8 * 1_048_576

# Servers commonly close a connection that was idle for 5 s. We are earlier, so that no request runs into that.
IDLE_SECONDS_MAX = 2.0

# What the answers say that are made here, where there was none; JSON-RPC and MCP give away no codes of this range.
UNREACHED = -31_001  # the request was not sent, or refused
SESSION_LOST = -31_002  # the request was refused, since the server knows nothing of us any more
BROKEN = -31_003  # the request was sent

# What is said of the body on its way, and does not hold once it was read.
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})

T = TypeVar("T")


@asynccontextmanager
async def open_http(settings: HttpSettings) -> AsyncGenerator[tuple[Any, Any]]:
    """Make ready to send requests to a URL. Nothing is sent yet."""
    timeout = httpx2.Timeout(settings.connect_seconds_max, read=None)  # a call has a timeout of its own
    limits = httpx2.Limits(max_connections=None, keepalive_expiry=IDLE_SECONDS_MAX)  # as many as there are calls
    async with (
        HttpClient(headers=settings.headers, timeout=timeout, limits=limits) as client,
        streamable_http_client(settings.url, http_client=client, max_sse_event_size=ANSWER_BYTES_MAX) as streams,
    ):
        yield streams


class _Cancellation:
    """Cancels what is awaited under it, now or later."""

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        if self._scope:
            self._scope.cancel()

    async def guard(self, awaitable: Awaitable[T]) -> T | None:
        """Return what comes of it; None if it was cancelled."""
        with anyio.CancelScope() as self._scope:
            return await awaitable
        return None


class HttpClient(httpx2.AsyncClient):
    """Answers by itself where there is no answer, with an error that says whether the request was sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._open: dict[object, _Cancellation] = {}  # what has an answer to come, by the id of the request

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request. A notification that another one is cancelled cancels that one here, too."""
        message = _message(request)
        # An answer of ours to a request of the server has an id, too: one of the server's, which may be equal to ours.
        cancellation, number = _Cancellation(), message.get("id") if "method" in message else None
        if message.get("method") == "notifications/cancelled":
            if cancelled := self._open.get(message["params"]["requestId"]):
                cancelled.cancel()
        elif number is not None:
            self._open[number] = cancellation
        response: httpx2.Response | None = None
        try:
            response = await cancellation.guard(self._send(request, **options))
        finally:
            if response is None or not _is_stream(response):
                self._open.pop(number, None)
        if response is None:
            return _answer(request, BROKEN, "cancelled")
        if number in self._open:
            inner = cast("httpx2.AsyncByteStream", response.stream)
            response.stream = _Answers(inner, cancellation, number, lambda: self._open.pop(number, None))
        return response

    async def _send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
            if not _is_stream(response) and not response.has_redirect_location:
                response = await _read(response, request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _answer(request, UNREACHED, f"it cannot be reached: {str(error) or type(error).__name__}")
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            return _answer(request, BROKEN, f"the connection broke: {str(error) or type(error).__name__}")
        status = response.status_code
        if status in (401, 403):
            await response.aclose()
            return _answer(request, UNREACHED, f"it does not accept the credentials (HTTP status {status})")
        if status in (400, 404) and request.method == "POST" and "mcp-session-id" in request.headers:
            await response.aclose()  # 404 by the specification; there are servers that say 400
            return _answer(request, SESSION_LOST, f"it has lost the session (HTTP status {status})")
        return response


class _Answers(httpx2.AsyncByteStream):
    """The stream that an answer comes by; once it is cancelled, it ends with one."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        cancellation: _Cancellation,
        number: object,
        on_close: Callable[[], object],
    ) -> None:
        self._stream = stream
        self._cancellation = cancellation
        self._number = number
        self._on_close = on_close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while not self._cancellation.is_cancelled:
            chunk = await self._cancellation.guard(anext(chunks, b""))
            if chunk:
                yield chunk
            elif chunk is not None:
                return
        body = json.dumps(_error(self._number, BROKEN, "cancelled"))
        yield f"\n\nevent: message\ndata: {body}\n\n".encode()

    async def aclose(self) -> None:
        self._on_close()
        await self._stream.aclose()


def _message(request: httpx2.Request) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(request.content)) if request.method == "POST" else {}


async def _read(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """Return an answer with all that it says, or one that says that this is too much."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > ANSWER_BYTES_MAX:
                return _answer(request, BROKEN, f"its answer has more than {ANSWER_BYTES_MAX} bytes")
    finally:
        await response.aclose()
    headers = {name: value for name, value in response.headers.items() if name not in _OF_THE_BODY}
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


def _is_stream(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/event-stream")


def _answer(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    return httpx2.Response(503, json=_error(None, code, message), request=request)


def _error(number: object, code: int, message: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
