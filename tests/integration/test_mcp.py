"""Tools of real MCP servers: two that nobody here wrote, over stdio and HTTP, and a scripted one for what is rare."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from support.aimock import Aimock, relay_to
from support.mcp import SCRIPTED, TIME, HttpServer, everything, everything_over_http
from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.profile import ToolPolicy
from turnwire_server.domain.tool import ToolCall, ToolError
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.tools.base import Invocation, ServerTool
from turnwire_server.tools.executor import ToolExecutor
from turnwire_server.tools.mcp import BACK_OFF_SECONDS, McpToolSource

LONG = json.dumps({"duration": 600, "steps": 6000})
SECRET = "hunter2-hunter2"


class SteppedClock(SystemClock):
    """A monotonic clock that stands still unless it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


class Rig:
    """A source, and an executor that nobody may be abandoned to."""

    def __init__(self, settings: Mapping[str, object], environment: Mapping[str, str] | None = None) -> None:
        self.clock = SteppedClock()
        self.source = McpToolSource(settings, environment or {}, self.clock)
        self.abandoned: list[asyncio.Task[Any]] = []
        self.executor = ToolExecutor(ToolPolicy(), SystemClock(), self.abandoned.append)
        self.tools: dict[str, ServerTool] = {}

    async def list_names(self) -> list[str]:
        self.tools = {tool.definition.tool.name: tool for tool in await self.source.list_tools()}
        return list(self.tools)

    async def call(self, name: str, args: str = "{}") -> str | ToolError:
        return await self.executor.execute(self.tools[name], Invocation("s", "i", ToolCall("c", name, args)))


@asynccontextmanager
async def rig_on(settings: Mapping[str, object], environment: Mapping[str, str] | None = None) -> AsyncGenerator[Rig]:
    """A rig; when it is over, no task and nobody abandoned is left."""
    before = asyncio.all_tasks()
    rig = Rig(settings, environment)
    try:
        yield rig
    finally:
        await rig.source.aclose()
    assert rig.abandoned == []
    left = asyncio.all_tasks() - before
    assert [task for task in left if "Relay" not in repr(task)] == []  # those belong to a test's own relay


def stdio(command: Sequence[str], **more: object) -> dict[str, object]:
    return {"name": "subject", "command": list(command), **more}


@pytest.fixture
async def http() -> AsyncGenerator[HttpServer]:
    """server-everything over HTTP, of its own for each test: some kill it."""
    with everything_over_http() as server:
        yield server


async def test_a_server_over_stdio() -> None:
    async with rig_on(stdio(TIME, prefix="clock_")) as rig:
        assert await rig.list_names() == ["clock_get_current_time", "clock_convert_time"]
        definition = rig.tools["clock_convert_time"].definition
        assert "target_timezone" in json.loads(definition.tool.input_schema)["properties"]
        assert definition.tool.description
        assert definition.is_idempotent
        args = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        result = await rig.call("clock_convert_time", json.dumps(args))
        assert isinstance(result, str)
        assert "21:00:00+09:00" in result
        missing = await rig.call("clock_convert_time", "{}")
        assert isinstance(missing, ToolError)
        assert missing.code == "invalid_args"
        wrong = await rig.call("clock_get_current_time", '{"timezone": "Nowhere"}')
        assert isinstance(wrong, ToolError)
        assert (wrong.code, "Nowhere" in wrong.message) == ("failed", True)


async def assert_serves_everything(rig: Rig) -> None:
    names = await rig.list_names()
    assert {"echo", "get-structured-content", "trigger-long-running-operation"} <= set(names)
    assert "simulate-research-query" not in names  # it can only be called as a task
    assert await rig.call("echo", '{"message": "Grüße 🦊"}') == '"Echo: Grüße 🦊"'
    weather = await rig.call("get-structured-content", '{"location": "Chicago"}')
    assert json.loads(str(weather)) == {"temperature": 36, "conditions": "Light rain / drizzle", "humidity": 82}
    image = await rig.call("get-tiny-image")
    assert {content["type"] for content in json.loads(str(image))} == {"text", "image"}
    assert rig.tools["echo"].definition.is_idempotent
    assert not rig.tools["toggle-simulated-logging"].definition.is_idempotent
    echoes = (rig.call("echo", json.dumps({"message": str(n)})) for n in range(50))
    assert await asyncio.gather(*echoes) == [f'"Echo: {n}"' for n in range(50)]


async def test_another_server_over_stdio() -> None:
    async with rig_on(stdio(everything("stdio"))) as rig:
        await assert_serves_everything(rig)


async def test_a_server_over_http(http: HttpServer) -> None:
    async with rig_on({"name": "web", "url": http.url}) as rig:
        await assert_serves_everything(rig)


async def test_cancelling_a_call_cancels_the_request_over_http(http: HttpServer) -> None:
    async with (
        relay_to(Aimock(http.port)) as (relay, port),
        rig_on({"name": "web", "url": f"http://127.0.0.1:{port}/mcp"}) as rig,
    ):
        await rig.list_names()
        long = asyncio.create_task(rig.call("trigger-long-running-operation", LONG))
        while not (carriers := [each for each in relay.connections if b"trigger-long-running" in each.sent]):  # noqa: ASYNC110
            await asyncio.sleep(0)
        long.cancel()
        await asyncio.wait({long})
        assert long.cancelled()
        await carriers[0].closed.wait()  # this server never ends what was cancelled
        assert await rig.call("echo", '{"message": "there"}') == '"Echo: there"'
        assert any(b'"notifications/cancelled"' in each.sent for each in relay.connections)


async def test_cancelling_a_call_cancels_the_request_over_stdio() -> None:
    async with rig_on(stdio(SCRIPTED)) as rig:
        await rig.list_names()
        silent = asyncio.create_task(rig.call("silent"))
        while "tools/call" not in str(heard := await rig.call("heard")).replace("tools/call", "", 1):
            pass
        assert "notifications/cancelled" not in str(heard)
        silent.cancel()
        await asyncio.wait({silent})
        assert silent.cancelled()
        assert "notifications/cancelled" in str(await rig.call("heard"))


async def test_a_server_that_dies_during_a_call_is_started_again() -> None:
    with capture_logs() as logs:
        async with rig_on(stdio(SCRIPTED)) as rig:
            await rig.list_names()
            silent = asyncio.create_task(rig.call("silent"))
            await rig.call("echo")
            for error in (await rig.call("die"), await silent):
                assert isinstance(error, ToolError)
                assert error.code == "unknown_outcome"
                assert "what the tool did is not known" in error.message
            assert await rig.call("echo", '{"a": 1}') == '"{\\"a\\": 1}"'
            assert "echo" in await rig.list_names()
    assert sum(line["event"] == "an MCP server ended by itself" for line in logs) == 1


async def test_a_real_server_that_is_killed_is_started_again() -> None:
    write_pid = "import os, sys; print(os.getpid(), file=sys.stderr, flush=True); os.execv(sys.argv[1], sys.argv[1:])"
    with capture_logs() as logs:
        async with rig_on(stdio([TIME[0], "-c", write_pid, *everything("stdio")])) as rig:
            await rig.list_names()
            long = asyncio.create_task(rig.call("trigger-long-running-operation", LONG))
            await rig.call("echo", '{"message": "sent after it, on the same pipe"}')
            pid = next(int(line["line"]) for line in logs if line.get("line", "").isdecimal())
            os.kill(pid, signal.SIGKILL)
            error = await long
            assert isinstance(error, ToolError)
            assert error.code == "unknown_outcome"
            assert await rig.call("echo", '{"message": "again"}') == '"Echo: again"'


async def test_a_server_over_http_may_be_started_again(http: HttpServer) -> None:
    async with rig_on({"name": "web", "url": http.url}) as rig:
        await rig.list_names()
        long = asyncio.create_task(rig.call("trigger-long-running-operation", LONG))
        await rig.call("echo", '{"message": "hello"}')
        http.kill()
        lost, down = await long, await rig.call("echo", '{"message": "nobody"}')
        assert isinstance(lost, ToolError)
        assert isinstance(down, ToolError)
        assert (lost.code, down.code) == ("unknown_outcome", "unavailable")
        with pytest.raises(ToolsUnavailableError, match="the tools of web cannot be had: it cannot be reached"):
            await rig.list_names()
        assert http.start()
        assert await rig.call("echo", '{"message": "again"}') == '"Echo: again"'
        assert "echo" in await rig.list_names()


async def test_a_failure_of_the_server_is_data() -> None:
    async with rig_on(stdio(SCRIPTED, env={"SECRET": "${TOKEN}"}), {"TOKEN": SECRET}) as rig:
        await rig.list_names()
        assert await rig.call("fail") == ToolError("it does not work", "failed")
        assert await rig.call("refuse") == ToolError("not today, ***", "failed")
        with capture_logs() as logs:
            lie = await rig.call("lie")
        assert isinstance(lie, ToolError)
        assert lie.code == "crashed"
        assert [line["event"] for line in logs] == ["an MCP server broke its word"]


async def test_tools_are_listed_anew_when_the_server_says_that_they_changed() -> None:
    async with rig_on(stdio(SCRIPTED)) as rig:
        names = await rig.list_names()
        await rig.list_names()
        assert str(await rig.call("heard")).count("tools/list") == 1
        await rig.call("grow")
        assert len(await rig.list_names()) == len(names) + 1
        assert str(await rig.call("heard")).count("tools/list") == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/server"], "it cannot be reached: No such file or directory"),
        ([*TIME, "--bogus"], "(it said: usage:"),
        ([TIME[0], "-c", f"import sys; sys.exit('no key {SECRET}')"], "Connection closed (it said: no key ***)"),
        ([TIME[0], "-c", "print('this is not JSON')"], "Connection closed"),
    ],
)
async def test_a_server_that_does_not_start_is_said(command: Sequence[str], said: str) -> None:
    with capture_logs() as logs:
        async with rig_on(stdio(command, env={"KEY": "${TOKEN}"}), {"TOKEN": SECRET}) as rig:
            with pytest.raises(ToolsUnavailableError) as failed:
                await rig.list_names()
    assert failed.value.metadata == {"source": "subject"}
    assert said in failed.value.message
    assert SECRET not in failed.value.message + str(logs)


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    mute = [TIME[0], "-c", "import sys; sys.stdin.read()"]
    async with rig_on(stdio(mute, connect_seconds_max=0.2)) as rig:
        with pytest.raises(ToolsUnavailableError, match=r"no answer within 0\.2 s"):
            await rig.list_names()


async def test_nobody_listens_at_the_url() -> None:
    async with rig_on({"name": "web", "url": "http://127.0.0.1:1/mcp?key=" + SECRET}) as rig:
        with pytest.raises(ToolsUnavailableError, match="it cannot be reached") as failed:
            await rig.list_names()
        assert SECRET not in failed.value.message


async def test_a_server_that_cannot_be_reached_is_left_alone_for_a_while() -> None:
    with capture_logs() as logs:
        async with rig_on(stdio(["/nowhere/server"])) as rig:
            tries: list[int] = []
            for moment in (0.0, 0.0, BACK_OFF_SECONDS, BACK_OFF_SECONDS * 2, BACK_OFF_SECONDS * 3, 1000.0):
                rig.clock.time = moment
                with pytest.raises(ToolsUnavailableError):
                    await rig.list_names()
                tries.append(sum(line["event"] == "no connection to an MCP server" for line in logs))
    assert tries == [1, 1, 2, 2, 3, 4]


async def test_secrets_reach_the_server_and_nobody_else() -> None:
    with capture_logs() as logs:
        async with rig_on(stdio(SCRIPTED, env={"SECRET": "${TOKEN}"}), {"TOKEN": SECRET, "OTHER": "x"}) as rig:
            await rig.list_names()
            result = await rig.call("env")
            environment = json.loads(json.loads(str(result)))
            assert environment["SECRET"] == SECRET
            assert "OTHER" not in environment
            await rig.call("die")
    assert any("dying with ***" in str(line.get("line")) for line in logs)
    assert SECRET not in str(logs) + repr(rig.source)


async def test_headers_are_sent(http: HttpServer) -> None:
    async with (
        relay_to(Aimock(http.port)) as (relay, port),
        rig_on(
            {"name": "web", "url": f"http://127.0.0.1:{port}/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
            {"TOKEN": SECRET},
        ) as rig,
    ):
        await rig.list_names()
        assert all(f"Bearer {SECRET}".encode() in each.sent for each in relay.connections)


async def test_a_name_is_made_to_fit_and_what_cannot_be_offered_is_left_out_and_logged_once() -> None:
    bad = {"name": "bad", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://host.invalid/"}}}}
    tools = [{"name": "files.read"}, bad]
    with capture_logs() as logs:
        async with rig_on(stdio([*SCRIPTED, json.dumps(tools)])) as rig:
            names = await rig.list_names()
            await rig.call("grow")
            await rig.list_names()
            assert await rig.call("files_read", '{"a": 1}') == '"{\\"a\\": 1}"'
    assert "files_read" in names
    assert "bad" not in names
    assert [line["tool"] for line in logs if line["event"] == "a tool cannot be offered"] == ["bad"]


@pytest.mark.parametrize(
    ("tools", "only", "said"),
    [
        ([{"name": "a.b"}, {"name": "a/b"}], None, "a.b and a/b would both be called a_b"),
        ([], ["echo", "nothing"], "it has no tool nothing, which `only` names"),
        ([{"name": "bad", "inputSchema": {"type": "object", "$ref": "#/no"}}], ["bad"], "bad cannot be offered"),
        ([{"name": f"t{n}"} for n in range(1000)], None, "it has more than 1000 tools"),
    ],
)
async def test_a_listing_that_cannot_be_used_is_said(tools: list[Any], only: list[str] | None, said: str) -> None:
    async with rig_on(stdio([*SCRIPTED, json.dumps(tools)], only=only)) as rig:
        with pytest.raises(ToolsUnavailableError, match=said):
            await rig.list_names()


async def test_only_some_tools_are_taken_with_a_timeout_of_their_own() -> None:
    async with rig_on(stdio(SCRIPTED, only=["echo"], prefix="p-", call_seconds_max=5)) as rig:
        assert await rig.list_names() == ["p-echo"]
        assert rig.tools["p-echo"].definition.timeout_seconds == 5


async def test_closing_ends_calls_and_what_is_being_started() -> None:
    async with rig_on(stdio(SCRIPTED)) as rig:
        await rig.list_names()
        silent = asyncio.create_task(rig.call("silent"))
        await rig.call("echo")
        await rig.source.aclose()
        error = await silent
        assert isinstance(error, ToolError)
        assert error.code == "unknown_outcome"
        closed = await rig.call("echo")
        assert isinstance(closed, ToolError)
        assert closed.code == "unavailable"
    mute = [TIME[0], "-c", "import sys; sys.stdin.read()"]
    async with rig_on(stdio(mute)) as rig:
        listing = asyncio.create_task(rig.list_names())
        await asyncio.sleep(0)
        await rig.source.aclose()
        with pytest.raises(ToolsUnavailableError, match="the connection was closed"):
            await listing
