"""A profile is put together: what is known of its tools before a server of tools was asked."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.profile import Profile, ToolPolicy, ToolSourceUse
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.runtime.assembly import Assembly, assemble
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.tools.base import ServerTool

GADGETS = ToolSourceUse("python", {"module": "support.gadgets"})
ANOTHER = ToolSourceUse("python", {"module": "support.gadgets:get_weather"})
MCP = ToolSourceUse("mcp", {"name": "remote", "command": ["nothing-that-is-installed"]})


async def put_together(*tools: ToolSourceUse, **more: Any) -> Assembly:
    abandoned: list[asyncio.Task[Any]] = []
    profile = Profile("p", "scripted", tools=tools, **more)
    return await assemble(profile, ScriptedEngine(), {}, SystemClock(), abandoned.append)


async def test_tools_of_modules_are_known_before_servers_of_tools_were_asked() -> None:
    alone = (await put_together(GADGETS)).known_tools
    assert "get_weather" in alone
    assert (await put_together(MCP, GADGETS)).known_tools == alone
    assert (await put_together(MCP)).known_tools == ()


async def test_what_may_not_be_offered_is_not_told() -> None:
    policy = ToolPolicy(allow=frozenset({"get_time"}))
    assert (await put_together(GADGETS, MCP, tool_policy=policy)).known_tools == ("get_time",)


async def test_two_tools_of_one_name_are_refused_beside_a_server_of_tools() -> None:
    with pytest.raises(ValueError, match="both have a tool get_weather; leave one out"):
        await put_together(GADGETS, ANOTHER, MCP)


async def test_a_tool_that_needs_approval_and_is_not_there_is_a_typo() -> None:
    policy = ToolPolicy(approve=frozenset({"get_wether", "get_time"}))
    with pytest.raises(ValueError, match=r"names tools that the profile does not have: get_wether$"):
        await put_together(GADGETS, tool_policy=policy)
    await put_together(GADGETS, MCP, tool_policy=policy)  # the server of tools may have it


class Closing:
    """A middleware that only is closed, or fails to be."""

    tools: Sequence[ServerTool] = ()

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name, self._error, self.is_closed = name, error, False

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        return await proceed(call, emit)

    async def aclose(self) -> None:
        self.is_closed = True
        if self._error:
            raise self._error


async def test_a_middleware_that_cannot_be_closed_keeps_no_other_one_from_it() -> None:
    every = Closing("a", ValueError("broken")), Closing("b")
    with capture_logs() as logs:
        await replace(await put_together(), middleware=every).aclose()
    assert [each.is_closed for each in every] == [True, True]
    assert [(line["event"], line["middleware"]) for line in logs] == [("a middleware could not be closed", "a")]
