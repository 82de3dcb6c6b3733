"""One connection to one MCP server, by the official client library.

The library's scopes have to be left by the task that entered them: so each connection has a task of its own. Calls are
made by whoever makes them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from importlib.metadata import version
from typing import Any, cast

import mcp_types
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp_types import CONNECTION_CLOSED

from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.mcp_http import BROKEN, SESSION_LOST, UNREACHED, open_http
from turnwire_server.tools.mcp_settings import HttpSettings, Secrets, StdioSettings
from turnwire_server.tools.mcp_stdio import open_stdio

# How long closing may take: the library gives a program 2 s to end by itself, 2 s after SIGTERM, and then kills it.
CLOSE_SECONDS_MAX = 8.0

# How long what does not close in time may take to be cancelled. Then it is left alone.
CANCEL_SECONDS_MAX = 1.0

# How many pages of a listing are read, and how many tools taken. A server with more cannot be used: it may never end.
PAGES_MAX = 100
TOOLS_MAX = 1000

# How many of the lines that a program wrote last are shown when it cannot be reached.
LAST_LINES_MAX = 3

_OURSELVES = mcp_types.Implementation(name="turnwire", version=version("turnwire"))

log = logger()


class Unreachable(Exception):  # noqa: N818 - a fact about the server
    """A server cannot be had. The message says why, and has no secrets."""


class SessionLost(Unreachable):
    """A server that knows nothing of us any more refused a request. The next connection has another session."""


class CallLost(Exception):  # noqa: N818 - a fact about the call
    """The connection broke during a call. What became of it is not known."""


class McpConnection:
    """A connection, from the attempt to make it to its end. It is not made again: have another one.

    It ends when the server does, when it is told to, or at once when it cannot be made.
    """

    def __init__(self, settings: StdioSettings | HttpSettings, secrets: Secrets, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._secrets = secrets
        self._on_change = on_change
        self._over = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=LAST_LINES_MAX)
        self._reason = ""
        self._ready: asyncio.Future[Client | None] = asyncio.get_running_loop().create_future()
        # In a context of its own: the lines that it logs do not belong to the inference that needed it first.
        self._task = asyncio.create_task(self._own(), context=Context())
        self._task.add_done_callback(self._end)  # also if it is cancelled before it begins

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to be had from it."""
        return self._over.is_set()

    async def aclose(self) -> None:
        """End it, and the program at its other end. Calls under way fail."""
        self._over.set()
        if not self._ready.done():
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=CLOSE_SECONDS_MAX)
        if not self._task.done():
            log.error("the connection to an MCP server did not end in time", server=self._settings.name)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CANCEL_SECONDS_MAX)

    async def wait_ready(self) -> bool:
        """Return once it is made; whether the server says by itself, and reliably, when its tools change.

        Errors: Unreachable.
        """
        client = await self._client()
        tools = client.server_capabilities.tools
        is_told = client.session.initialize_result is not None and tools is not None and bool(tools.list_changed)
        return is_told and isinstance(self._settings, StdioSettings)  # the stream of HTTP may break unnoticed

    async def list_tools(self) -> Sequence[mcp_types.Tool]:
        """Return the server's tools. Errors: Unreachable."""
        client = await self._client()
        tools: list[mcp_types.Tool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(self._settings.connect_seconds_max):
                for _ in range(PAGES_MAX):
                    page = await client.list_tools(cursor=cursor)
                    tools.extend(page.tools)
                    cursor = page.next_cursor
                    if cursor is None or len(tools) > TOOLS_MAX:
                        break
        except Exception as error:  # noqa: BLE001 - the library raises what it likes
            raise self._unreachable("it does not list its tools", error) from None
        if cursor is not None or len(tools) > TOOLS_MAX:
            msg = f"it has more than {TOOLS_MAX} tools"
            raise Unreachable(msg)
        return tools

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call a tool; cancelling cancels the request, too.

        Errors: Unreachable, CallLost; else whatever the library raises.
        """
        client = await self._client()
        try:
            return await client.call_tool(name, arguments)
        except MCPError as error:
            if error.code in (UNREACHED, SESSION_LOST):
                raise self._unreachable("", error) from None
            if error.code == BROKEN or (error.code == CONNECTION_CLOSED and self._is_own(error)):
                raise CallLost from None
            raise

    def _is_own(self, error: MCPError) -> bool:
        """Whether an error is the library's own: servers use its number, too."""
        return self.is_over or error.message.startswith("SSE stream")

    async def _client(self) -> Client:
        await asyncio.wait({self._ready})  # bounded by connect_seconds_max, in _own()
        client = self._ready.result()
        if client is None:
            raise Unreachable(self._reason)
        return client

    async def _own(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                # Not a scope of anyio: it could not be left before what is entered inside it.
                async with asyncio.timeout(self._settings.connect_seconds_max):
                    client = Client(self._open(), message_handler=self._hear, client_info=_OURSELVES)
                    await stack.enter_async_context(client)
                self._ready.set_result(client)
                log.info("connected to an MCP server", server=self._settings.name)
                await self._over.wait()
        except Exception as error:  # noqa: BLE001 - however it ends, it is over
            self._reason = self._say("it cannot be reached", error)
            log.warning("no connection to an MCP server", server=self._settings.name, reason=self._reason)

    def _end(self, _task: asyncio.Task[None]) -> None:
        self._over.set()
        if not self._ready.done():
            self._reason = self._reason or "the connection was closed"
            self._ready.set_result(None)

    def _open(self) -> Any:
        if isinstance(self._settings, HttpSettings):
            return open_http(self._settings)
        return open_stdio(self._settings, self._hear_line, self._hear_end)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._on_change()

    def _hear_line(self, line: str) -> None:
        if line := self._secrets.mask(line).strip():
            self._lines.append(line)
            log.debug("an MCP server says", server=self._settings.name, line=line)

    def _hear_end(self) -> None:
        if self._ready.done() and not self.is_over:
            log.warning("an MCP server ended by itself", server=self._settings.name)
        self._over.set()

    def _unreachable(self, what: str, error: Exception) -> Unreachable:
        code = error.code if isinstance(error, MCPError) else None
        said = self._say("" if code in (UNREACHED, SESSION_LOST) else what, error)
        if code == SESSION_LOST:
            self._over.set()
            return SessionLost(said)
        return Unreachable(said)

    def _say(self, what: str, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        said = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            said = f"no answer within {self._settings.connect_seconds_max:g} s"
        elif isinstance(error, OSError) and error.strerror:
            said = error.strerror  # without the name of the file
        lines = f" (it said: {' / '.join(self._lines)})" if self._lines else ""
        return f"{what}: {self._secrets.mask(said)}{lines}".removeprefix(": ")
