"""All tools of a profile, by name."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.tools.base import ServerTool
from turnwire_server.tools.function import tool
from turnwire_server.tools.registry import ToolRegistry


@tool
def one() -> int:
    """Return 1."""
    return 1


@tool
def two() -> int:
    """Return 2."""
    return 2


class Source:
    """A source of tools, or of an error."""

    def __init__(self, name: str, *tools: ServerTool, error: Exception | None = None) -> None:
        self.name = name
        self.tools = tools
        self.error = error
        self.is_closed = False

    async def list_tools(self) -> Sequence[ServerTool]:
        if self.error:
            raise self.error
        return self.tools

    async def aclose(self) -> None:
        self.is_closed = True
        if self.error:
            raise self.error


async def test_all_tools_are_listed_by_name_as_they_are_now() -> None:
    source = Source("a", one)
    registry = ToolRegistry([source], [two])
    assert await registry.list_tools() == {"one": one, "two": two}
    source.tools = ()
    assert await registry.list_tools() == {"two": two}
    assert await ToolRegistry([]).list_tools() == {}


async def test_sources_are_asked_at_once() -> None:
    both = asyncio.Barrier(2)

    class Meeting(Source):
        async def list_tools(self) -> Sequence[ServerTool]:
            await both.wait()
            return self.tools

    assert set(await ToolRegistry([Meeting("a", one), Meeting("b", two)]).list_tools()) == {"one", "two"}


@pytest.mark.parametrize(
    ("sources", "tools", "both"),
    [
        ([Source("a", one), Source("b", two, one)], [], "a and b"),
        ([Source("a", one)], [one], "a and middleware"),
        ([Source("a", one, one)], [], "a and a"),
    ],
)
async def test_a_name_that_two_have_is_an_error_that_names_both(
    sources: list[Source], tools: list[ServerTool], both: str
) -> None:
    with pytest.raises(ToolsUnavailableError, match=f"{both} both have a tool one") as failed:
        await ToolRegistry(sources, tools).list_tools()
    assert failed.value.metadata == {"source": both}


async def test_tools_that_cannot_be_had_are_an_error() -> None:
    unavailable = ToolsUnavailableError("b is down", source="b")
    with pytest.raises(ToolsUnavailableError, match="b is down"):
        await ToolRegistry([Source("a", one), Source("b", error=unavailable)]).list_tools()


async def test_a_source_that_crashes_is_one_whose_tools_cannot_be_had() -> None:
    registry = ToolRegistry([Source("a", error=ValueError("hunter2"))])
    with capture_logs() as logs, pytest.raises(ToolsUnavailableError) as failed:
        await registry.list_tools()
    assert (failed.value.message, failed.value.metadata) == ("the tools of a cannot be had", {"source": "a"})
    assert [line["event"] for line in logs] == ["a source of tools crashed"]


async def test_all_sources_are_closed_whatever_one_of_them_does() -> None:
    sources = [Source("a"), Source("b", error=ValueError()), Source("c")]
    with capture_logs() as logs:
        await ToolRegistry(sources).aclose()
    assert [source.is_closed for source in sources] == [True] * 3
    assert [(line["event"], line["source"]) for line in logs] == [("a source of tools could not be closed", "b")]
