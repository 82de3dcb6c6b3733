"""All server tools of one profile, by name."""

import asyncio
from collections.abc import Mapping, Sequence

from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.base import ServerTool, ToolSource

# What errors call the tools that come from no source.
MIDDLEWARE = "middleware"

log = logger()


class ToolRegistry:
    """The tools of some sources, and some more, which middleware brings.

    Sources keep what they may keep; nothing is kept here, so that a tool that is gone is not offered.
    """

    def __init__(self, sources: Sequence[ToolSource], tools: Sequence[ServerTool] = ()) -> None:
        self._sources = tuple(sources)
        self._tools = tuple(tools)
        self.known: tuple[str, ...] = ()  # the names of the last listing, or what is known before the first one

    async def list_tools(self) -> Mapping[str, ServerTool]:
        """Return all tools by name, as they are now. Errors: ToolsUnavailableError."""
        named = await self._list_sources() if self._sources else []  # with each engine call, so not for nothing
        by_name: dict[str, ServerTool] = {}
        owners: dict[str, str] = {}
        for owner, tools in [*named, (MIDDLEWARE, self._tools)]:
            for tool in tools:
                name = tool.definition.tool.name
                if name in by_name:
                    both = f"{owners[name]} and {owner}"
                    msg = f"{both} both have a tool {name}; leave one out with `only`, or give one source a prefix"
                    raise ToolsUnavailableError(msg, source=both)
                by_name[name], owners[name] = tool, owner
        self.known = tuple(by_name)
        return by_name

    async def _list_sources(self) -> list[tuple[str, Sequence[ServerTool]]]:
        failure: BaseException | None = None
        listings: list[asyncio.Task[Sequence[ServerTool]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                listings = [group.create_task(_list(source)) for source in self._sources]
        except* ToolsUnavailableError as errors:
            failure = errors.exceptions[0]
        if failure:
            raise failure
        return [(source.name, listing.result()) for source, listing in zip(self._sources, listings, strict=True)]

    async def aclose(self) -> None:
        """Close all sources. One that fails to keeps no other one from it."""
        closed = await asyncio.gather(*(source.aclose() for source in self._sources), return_exceptions=True)
        for source, error in zip(self._sources, closed, strict=True):
            if error is not None:
                log.error("a source of tools could not be closed", source=source.name, exc_info=error)


async def _list(source: ToolSource) -> Sequence[ServerTool]:
    try:
        return await source.list_tools()
    except ToolsUnavailableError:
        raise
    except Exception as error:
        log.exception("a source of tools crashed", source=source.name)
        raise ToolsUnavailableError(source=source.name) from error
