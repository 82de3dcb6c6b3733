"""Tools of real MCP servers through a whole server: a profile names them, a model calls them, and they may die."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.agent_world import call, say, script
from support.aimock import Aimock, Relay, relay_to
from support.live import CANCELLED, FAILED, SUCCEEDED, LiveServer
from support.mcp import TIME, HttpServer, everything_over_http
from support.workshop import Workshop, workshop
from turnwire.v1 import engine_service_pb2
from turnwire.v1.engine_service_pb2_grpc import EngineServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS_UNAVAILABLE = 116
SECRET = "hunter2-hunter2"
CONVERT = call("convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo")
WRITE_PID = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"


class Stage:
    """A server with tools of MCP servers over stdio and HTTP; a relay sees what goes to the one over HTTP."""

    def __init__(self, server: LiveServer, shop: Workshop, web: HttpServer, relay: Relay, pid_file: Path) -> None:
        self.server = server
        self.shop = shop
        self.web = web
        self.relay = relay
        self._pid_file = pid_file

    def kill_time_server(self) -> None:
        """Kill the program that tells the time."""
        os.kill(int(self._pid_file.read_text()), signal.SIGKILL)


def _profiles(pid_file: Path, port: int) -> dict[str, dict[str, object]]:
    command = [sys.executable, "-c", WRITE_PID, str(pid_file), *TIME]
    time = {"mcp": {"name": "time", "command": command}}
    url = f"http://127.0.0.1:{port}/mcp?key={SECRET}"
    web = {"mcp": {"name": "web", "url": url, "headers": {"Authorization": "Bearer ${TOKEN}"}, "prefix": "web_"}}
    gone = {"mcp": {"name": "gone", "url": f"http://127.0.0.1:1/mcp?key={SECRET}", "headers": {"x-key": "${TOKEN}"}}}
    broken = "import os, sys; sys.exit('no ' + os.environ['KEY'])"
    mute = {"mcp": {"name": "mute", "command": [sys.executable, "-c", broken], "env": {"KEY": "${TOKEN}"}}}
    return {
        "time": {"engine": "scripted", "tools": [time, {"python": "support.gadgets:look_up"}]},
        "web": {"engine": "scripted", "tools": [web], "tool_policy": {"timeout_seconds": 600}},
        "both": {"engine": "scripted", "tools": [time, web]},
        "gone": {"engine": "scripted", "tools": [gone]},
        "mute": {"engine": "scripted", "tools": [mute]},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("mcp")
    with everything_over_http() as web:
        async with relay_to(Aimock(web.port)) as (relay, port), workshop() as shop:
            environment = {**shop.environment, "TOKEN": SECRET}
            async with LiveServer(folder, _profiles(folder / "pid", port), environment=environment) as server:
                yield Stage(server, shop, web, relay, folder / "pid")
                await server.end(signal.SIGTERM)
                assert SECRET not in "".join(server.process.log)


async def test_a_tool_of_a_program(stage: Stage) -> None:
    session = await stage.server.session("time")
    wrong = call("get_current_time", timezone="Nowhere/Land")
    incomplete = call("convert_time", time="12:00")
    ended = await session.say(script=script([CONVERT, wrong, incomplete], [say("nine in the evening")]))
    assert (ended.inference.state, ended.text) == (SUCCEEDED, "nine in the evening")
    assert "21:00:00+09:00" in ended.outcomes["call_1"]
    assert (ended.outcomes["call_2"], ended.outcomes["call_3"]) == ("failed", "invalid_args")
    [error] = [block.tool_use.error for block in ended.produced if block.tool_use.tool_call == "call_2"]
    assert "Nowhere/Land" in error.message
    assert [start.placement for start in ended.told("tool_start")] == [1, 1, 1]


async def test_tools_of_two_servers_side_by_side(stage: Stage) -> None:
    session = await stage.server.session("both")
    echo = call("web_echo", message="Grüße 🦊")
    ended = await session.say(script=script([CONVERT, echo], [say("done")]))
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert "21:00:00+09:00" in ended.outcomes["call_1"]
    assert ended.outcomes["call_2"] == '"Echo: Grüße 🦊"'
    assert any(f"Bearer {SECRET}".encode() in each.sent for each in stage.relay.connections)


async def test_a_tool_server_that_is_killed_between_two_calls_is_started_again(stage: Stage) -> None:
    session = await stage.server.session("time")
    started = await session.start(script=script([CONVERT], [call("look_up", key="wait")], [CONVERT], [say("done")]))
    job = await stage.shop.take("look_up")
    stage.kill_time_server()
    job.answer("go on")
    ended = await session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert [("21:00:00+09:00" in ended.outcomes[name]) for name in ("call_1", "call_3")] == [True, True]


async def test_a_tool_server_over_http_that_is_killed_and_comes_back(stage: Stage) -> None:
    session = await stage.server.session("web")
    echo = script([call("web_echo", message="hello")], [say("done")])
    assert (await session.say(script=echo)).outcomes == {"call_1": '"Echo: hello"'}
    stage.web.kill()
    failed = await session.say(script=echo)
    assert (failed.inference.state, failed.inference.error.reason) == (FAILED, TOOLS_UNAVAILABLE)
    assert failed.inference.error.metadata == {"source": "web"}
    assert SECRET not in str(failed.inference) + str(failed.events)
    assert stage.web.start()
    again = await session.say(script=echo)
    assert again.inference.state == SUCCEEDED, again.inference.error
    assert again.outcomes == {"call_1": '"Echo: hello"'}


@pytest.mark.parametrize("profile", ["gone", "mute"])
async def test_a_tool_server_that_cannot_be_reached(stage: Stage, profile: str) -> None:
    session = await stage.server.session(profile)
    ended = await session.say(script=script([say("never said")]))
    error = ended.inference.error
    assert (ended.inference.state, error.reason, error.metadata) == (FAILED, TOOLS_UNAVAILABLE, {"source": profile})
    assert profile in error.message
    assert SECRET not in str(ended.inference) + str(ended.events)
    assert ended.produced == []


async def test_cancel_stops_a_long_call_and_tells_the_tool_server(stage: Stage) -> None:
    session = await stage.server.session("web")
    long = call("web_trigger-long-running-operation", duration=600, steps=6000)
    started = await session.start(script=script([long], [say("never said")]))
    carrier = await stage.relay.wait_carrier("trigger-long-running")
    await session.cancel(started)
    ended = await session.finish(started)
    assert ended.inference.state == CANCELLED
    inference = ended.inference
    assert inference.end_time.ToNanoseconds() - inference.cancel_requested_time.ToNanoseconds() < 2e9
    assert ended.outcomes == {"call_1": "unknown_outcome"}
    async with asyncio.timeout(5):
        await carrier.closed.wait()
        await stage.relay.wait_carrier("notifications/cancelled")
    again = await session.say(script=script([call("web_echo", message="there")], [say("done")]))
    assert again.outcomes == {"call_1": '"Echo: there"'}


async def test_the_tools_of_servers_that_were_asked_are_shown_with_the_profile(stage: Stage) -> None:
    await (await stage.server.session("both")).say(script=script([say("so they are listed")]))
    engines = EngineServiceStub(stage.server.stubs.channel)
    profile = (await engines.GetProfile(engine_service_pb2.GetProfileRequest(profile="both"))).profile
    assert {"convert_time", "web_echo"} <= set(profile.tools)
    assert json.loads(profile.settings)["tools"][1]["settings"]["name"] == "web"
    assert SECRET not in str(profile)
