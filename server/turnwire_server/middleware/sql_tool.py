"""The middleware sql_tool: one tool with which the model reads a SQLite file.

That it only reads is enforced by SQLite, and its limits by the operating system: each query is a process of its own
(sql_process.py says why). So nothing is left of a query, and one that is cancelled is gone. Before each engine call it
is checked whether what the model is told of the tables is still so.
"""

import asyncio
import json
import signal
import sqlite3
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnwire_server.domain.tool import Tool, ToolPlacement
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.middleware import sql_process
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.middleware.sql_schema import ReadSchema, Schema, read_schema, uri_of
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.base import Invocation, ServerTool, ToolDefinition, ToolFailure

# Queries of one profile at a time; further ones wait for their turn.
_QUERIES_MAX = 4

# What a query may wait for its turn, and for its process to start, before the runtime calls it a timeout.
_WAIT_SECONDS_MAX = 10.0

log = logger()


class SqlToolSettings(BaseModel):
    """The settings of sql_tool. `bytes_max` bounds a whole result, `cell_bytes_max` one value in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    name: str = Field(default="sql_query", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str = Field(default="", max_length=2048)
    rows_max: int = Field(default=200, ge=1, le=100_000)
    bytes_max: int = Field(default=64 * 1024, ge=1024, le=1024 * 1024)
    cell_bytes_max: int = Field(default=1024, ge=16, le=1024 * 1024)
    seconds_max: float = Field(default=20.0, gt=0, le=600)


class SqlTool:
    """See Middleware."""

    name = "sql_tool"

    def __init__(self, settings: SqlToolSettings, read: ReadSchema = read_schema) -> None:
        """Look at the file; blocks as long as `read` does. Errors: ValueError, if it is not there or no SQLite file."""
        if not settings.path.is_file():
            msg = f"path: there is no file {settings.path}"
            raise ValueError(msg)
        self._schema = Schema(settings.path, read)
        try:
            self._described = self._schema.text()
        except (sqlite3.Error, OSError) as error:
            msg = f"path: {settings.path} cannot be read: {error}"
            raise ValueError(msg) from error
        self._settings = settings
        self._query = SqlQuery(settings, self._described)
        self.tools: Sequence[ServerTool] = (self._query,)

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Describe the tables as they are now, if the tool is offered."""
        if any(tool.name == self._settings.name for tool in call.tools):
            description = _describe(self._settings, await self._describe_tables())
            tools = (replace(t, description=description) if t.name == self._settings.name else t for t in call.tools)
            call = replace(call, tools=tuple(tools))
        return await proceed(call, emit)

    async def aclose(self) -> None:
        """End the queries that are under way, and refuse further ones; they fail."""
        self._query.close()

    async def _describe_tables(self) -> str:
        try:
            self._described = await asyncio.to_thread(self._schema.text)
        except (sqlite3.Error, OSError) as error:
            log.warning("the tables cannot be read; they are described as they were last", error=str(error))
        return self._described


class _Arguments(BaseModel):
    """What the model has to say."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(max_length=64 * 1024, description="one SELECT statement, in the dialect of SQLite")
    params: list[Annotated[str, Field(max_length=64 * 1024)] | int | float | bool | None] = Field(
        default=[], max_length=1000, description="the values of the ? in it, in order"
    )


class SqlQuery:
    """See ServerTool."""

    def __init__(self, settings: SqlToolSettings, schema: str) -> None:
        tool = Tool(
            settings.name,
            _describe(settings, schema),
            json.dumps(_Arguments.model_json_schema()),
            ToolPlacement.SERVER,
        )
        self.definition = ToolDefinition(
            tool, is_idempotent=True, timeout_seconds=settings.seconds_max + _WAIT_SECONDS_MAX
        )
        self._settings = settings
        self._turns = asyncio.Semaphore(_QUERIES_MAX)
        self._processes: set[Process] = set()
        self._is_closed = False

    async def run(self, invocation: Invocation) -> str:
        """Make a query; return its result as JSON: columns, rows, row_count, and truncated if something was cut."""
        try:
            asked = _Arguments.model_validate_json(invocation.call.args or "{}")
        except ValidationError as error:
            raise ToolFailure(_explain(error), "invalid_args") from None
        limits = self._settings.model_dump(include={"rows_max", "bytes_max", "cell_bytes_max", "seconds_max"})
        request = {"uri": uri_of(self._settings.path), "sql": asked.sql, "params": asked.params, **limits}
        async with self._turns:
            return await self._ask(json.dumps(request).encode())

    def close(self) -> None:
        """End the queries that are under way, and refuse further ones; they fail."""
        self._is_closed = True
        for process in tuple(self._processes):
            process.kill()

    async def _ask(self, request: bytes) -> str:
        if self._is_closed:
            msg = "the tool is closed"
            raise ToolFailure(msg, may_repeat=True)
        try:
            # In a session of its own: a Ctrl-C in the terminal is for the server, which drains then.
            process = await asyncio.create_subprocess_exec(
                *sql_process.COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            msg = f"no process can be started for the query: {error.strerror}"
            raise ToolFailure(msg, may_repeat=True) from error
        self._processes.add(process)
        if self._is_closed:  # meanwhile
            process.kill()
        try:
            output, errors = await process.communicate(request)
        finally:
            self._processes.discard(process)
            if process.returncode is None:
                process.kill()
                await process.communicate()  # it is gone when the cancellation goes on
        return self._answer(process.returncode or 0, output.decode(), errors.decode("utf-8", "replace"))

    def _answer(self, status: int, output: str, errors: str) -> str:
        if status == 0:
            return output
        if status in {sql_process.REFUSED, sql_process.EXHAUSTED}:
            raise ToolFailure(output)
        if status == -signal.SIGALRM:
            msg = f"the query took longer than {self._settings.seconds_max:g} s"
            raise ToolFailure(msg, "timeout")
        if status < 0:
            msg = f"the process of the query was ended by {signal.Signals(-status).name}"
            raise ToolFailure(msg)
        msg = f"the process of the query failed: {errors[-4096:]}"
        raise RuntimeError(msg)


def _describe(settings: SqlToolSettings, schema: str) -> str:
    about = settings.description or "Reads a SQLite database with one SELECT statement."
    limits = f"A result has at most {settings.rows_max} rows and {settings.bytes_max} bytes; select what you need."
    return f"{about} Nothing can be changed. {limits} The tables are:\n{schema}" if schema else f"{about} {limits}"


def _explain(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'args'}: {each['msg']}" for each in error.errors())
