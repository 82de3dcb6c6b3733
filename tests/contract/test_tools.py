"""Every server tool, through the one suite."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Literal

import pytest

pytest.register_assert_rewrite("contract.tool_suite")

from contract.tool_suite import Subject, ToolSuite  # noqa: E402
from support.mcp import SCRIPTED  # noqa: E402
from turnwire_server.runtime.clock import SystemClock  # noqa: E402
from turnwire_server.tools.function import ToolFailure, tool  # noqa: E402
from turnwire_server.tools.mcp import McpToolSource  # noqa: E402

Deed = Literal["return", "hang", "fail"]
ARGS = {"args": '{"deed": "return"}', "hanging": '{"deed": "hang"}', "failing": '{"deed": "fail"}'}


class TestAsyncFunction(ToolSuite):
    @pytest.fixture
    def subject(self) -> Subject:
        began = asyncio.Event()

        @tool(is_idempotent=True, timeout_seconds=5)
        async def act(deed: Deed) -> list[str]:
            """Do a deed."""
            if deed == "hang":
                began.set()
                await asyncio.Event().wait()
            if deed == "fail":
                raise ToolFailure("as told")
            return [deed]

        return Subject(act, **ARGS, began=began)


class TestFunction(ToolSuite):
    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        release = threading.Event()

        @tool
        def act(deed: Deed) -> list[str]:
            """Do a deed."""
            if deed == "hang":
                release.wait(60)
            if deed == "fail":
                raise ToolFailure("as told")
            return [deed]

        yield Subject(act, **ARGS)
        release.set()


class TestMcp(ToolSuite):
    @pytest.fixture
    async def subject(self) -> AsyncGenerator[Subject]:
        source = McpToolSource({"name": "scripted", "command": list(SCRIPTED)}, {}, SystemClock())
        tools = {each.definition.tool.name: each for each in await source.list_tools()}
        yield Subject(tools["act"], **ARGS)
        await source.aclose()
