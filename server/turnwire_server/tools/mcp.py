"""Tools of MCP servers: https://modelcontextprotocol.io.

This and the other mcp_* modules need the client library, which is an extra: sources.py imports it where it is used.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import mcp_types

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.tool import Tool, ToolPlacement
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.base import Invocation, ServerTool, ToolDefinition, ToolFailure
from turnwire_server.tools.mcp_connection import McpConnection, SessionLost, Unreachable
from turnwire_server.tools.mcp_outcome import to_failure, to_text
from turnwire_server.tools.mcp_settings import read_settings
from turnwire_server.tools.schema import compile_schema

# How long a server that could not be reached is left alone: the first time, and at most, since it doubles. Who needs
# its tools meanwhile is told at once.
BACK_OFF_SECONDS = 0.5
BACK_OFF_SECONDS_MAX = 30.0

# Contract: Tool.name, Tool.description.
NAME_LENGTH_MAX = 64
DESCRIPTION_BYTES_MAX = 16_384

log = logger()


class McpToolSource:
    """The tools of one MCP server, over one connection, which is made when it is needed first, and again when it broke.

    Settings: McpSettings, and those of StdioSettings or HttpSettings. `${VARIABLE}` in the values of `env` and
    `headers` is taken from `environment`.

    A tool is called what the server calls it, after the prefix, with `_` for what the contract does not allow in names;
    of a name that is too long the end is replaced by a hash. A tool that cannot be offered is left out and logged; if
    `only` names it, the tools are unavailable.

    Errors: ValueError when the settings are not valid; the message says what to do.
    """

    def __init__(self, settings: Mapping[str, object], environment: Mapping[str, str], clock: Clock) -> None:
        self._settings, self._secrets = read_settings(settings, environment)
        self._clock = clock
        self._connection: McpConnection | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._failure_count = 0
        self._failure = ""
        self._retry_time = float("-inf")
        self._change_count = 0
        self._refused: dict[str, str] = {}
        self._kept: tuple[McpConnection, int, tuple[ServerTool, ...]] | None = None

    @property
    def name(self) -> str:
        """See ToolSource."""
        return self._settings.name

    async def list_tools(self) -> Sequence[ServerTool]:
        """See ToolSource. The server is asked each time, unless it says by itself when its tools change."""
        try:
            return await self._list_tools()
        except Unreachable as error:
            raise self._unavailable(str(error)) from None

    async def aclose(self) -> None:
        """See ToolSource. A program that was started is ended."""
        self._is_closed = True
        if self._connection:
            await self._connection.aclose()
        if self._closing:
            await asyncio.wait(self._closing)  # each is bounded itself

    async def call(self, name: str, args: str) -> str:
        """Call a tool as the server calls it. Errors: ToolFailure."""
        arguments = _arguments(args)
        try:
            try:
                connection = await self._connected()
                result = await connection.call_tool(name, arguments)
            except SessionLost:  # the call was refused, and the next connection has another session
                connection = await self._connected()
                result = await connection.call_tool(name, arguments)
            return to_text(result)
        except Exception as error:  # noqa: BLE001 - the library raises what it likes
            failure = to_failure(error, self.name, self._secrets)
            if failure.code == "crashed":
                log.error("an MCP server broke its word", server=self.name, tool=name, error=type(error).__name__)
            raise failure from None

    async def _connected(self) -> McpConnection:
        """Return the connection, made anew if there is none any more. Errors: mcp_connection.Unreachable."""
        if self._connection is None or self._connection.is_over:
            if self._is_closed:
                msg = "the server is shutting down"
                raise Unreachable(msg)
            if self._clock.monotonic() < self._retry_time:
                raise Unreachable(self._failure)
            self._drop()
            self._connection = McpConnection(self._settings, self._secrets, self._hear_change)
        connection = self._connection
        try:
            await connection.wait_ready()
        except Unreachable as error:
            self._back_off(connection, str(error))
            raise
        if connection is self._connection:
            self._failure_count = 0
        return connection

    def _back_off(self, connection: McpConnection, reason: str) -> None:
        if connection is self._connection:  # else another one who waited for it has seen to it
            seconds = min(BACK_OFF_SECONDS * 2.0 ** min(self._failure_count, 16), BACK_OFF_SECONDS_MAX)
            self._failure, self._failure_count = reason, self._failure_count + 1
            self._retry_time = self._clock.monotonic() + seconds
            self._drop()

    def _drop(self) -> None:
        """Have no connection; what there was ends, in a task that aclose() waits for."""
        if self._connection:
            task = asyncio.create_task(self._connection.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._connection = None

    def _hear_change(self) -> None:
        self._change_count += 1

    async def _list_tools(self) -> tuple[ServerTool, ...]:
        connection = await self._connected()
        try:
            return await self._list_by(connection)
        except Unreachable:
            if not connection.is_over:
                raise
            return await self._list_by(await self._connected())  # it was lost since it was used last

    async def _list_by(self, connection: McpConnection) -> tuple[ServerTool, ...]:
        is_told = await connection.wait_ready()
        changes = self._change_count  # read first: what changes while it is listed is listed again
        if self._kept and self._kept[:2] == (connection, changes):
            return self._kept[2]
        tools = self._take(await connection.list_tools())
        self._kept = (connection, changes, tools) if is_told else None
        return tools

    def _take(self, listed: Sequence[mcp_types.Tool]) -> tuple[ServerTool, ...]:
        only = self._settings.only
        if missing := set(only or ()) - {tool.name for tool in listed}:
            raise self._unavailable(f"it has no tool {', '.join(sorted(missing))}, which `only` names")
        taken: dict[str, McpTool] = {}
        refused: dict[str, str] = {}
        for tool in listed:
            if only is not None and tool.name not in only:
                continue
            try:
                made = McpTool(self, tool.name, self._define(tool))
            except ValueError as error:
                if only is not None:
                    raise self._unavailable(f"{tool.name} cannot be offered: {error}") from None
                if self._refused.get(tool.name) != (reason := str(error)):  # said once, not at each listing
                    log.warning("a tool cannot be offered", server=self.name, tool=tool.name, reason=reason)
                refused[tool.name] = reason
                continue
            name = made.definition.tool.name
            if name in taken:
                raise self._unavailable(f"{taken[name].remote_name} and {tool.name} would both be called {name}")
            taken[name] = made
        self._refused = refused
        return tuple(taken.values())

    def _define(self, tool: "mcp_types.Tool") -> ToolDefinition:
        if tool.execution and tool.execution.task_support == "required":
            msg = "it can only be called as a task of the server"
            raise ValueError(msg)
        schema = json.dumps(tool.input_schema, ensure_ascii=False, separators=(",", ":"))
        compile_schema(schema)
        hints = tool.annotations
        is_idempotent = bool(hints and (hints.idempotent_hint or hints.read_only_hint))
        said = (tool.description or tool.title or "").encode("utf-8", "replace")[:DESCRIPTION_BYTES_MAX]
        name = offered_name(self._settings.prefix + tool.name)
        offered = Tool(name, said.decode("utf-8", "ignore"), schema, ToolPlacement.SERVER)
        return ToolDefinition(offered, is_idempotent, self._settings.call_seconds_max)

    def _unavailable(self, reason: str) -> ToolsUnavailableError:
        return ToolsUnavailableError(f"the tools of {self.name} cannot be had: {reason}", source=self.name)


class McpTool:
    """One tool of an MCP server. It outlives connections."""

    def __init__(self, source: McpToolSource, remote_name: str, definition: ToolDefinition) -> None:
        self._source = source
        self._definition = definition
        self.remote_name = remote_name

    @property
    def definition(self) -> ToolDefinition:
        """See ServerTool."""
        return self._definition

    async def run(self, invocation: Invocation) -> str:
        """See ServerTool. Cancelling tells the server."""
        return await self._source.call(self.remote_name, invocation.call.args)


def offered_name(name: str) -> str:
    """Return what a tool is called here: a name of the contract, the same one each time."""
    allowed = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if len(allowed) <= NAME_LENGTH_MAX:
        return allowed
    return f"{allowed[: NAME_LENGTH_MAX - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _arguments(args: str) -> dict[str, Any]:
    try:
        arguments: object = json.loads(args or "{}")
    except (ValueError, RecursionError) as error:
        msg = f"the arguments cannot be read: {error}"
        raise ToolFailure(msg, "invalid_args") from None
    if not isinstance(arguments, dict):
        msg = "the arguments have to be one JSON object"
        raise ToolFailure(msg, "invalid_args")
    return cast("dict[str, Any]", arguments)
