"""What a profile is made of at work: its engine, its middleware, its tools."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.profile import Profile
from turnwire_server.engines.base import Engine
from turnwire_server.middleware.base import Middleware
from turnwire_server.middleware.catalogue import build_middleware
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.executor import ToolExecutor
from turnwire_server.tools.registry import ToolRegistry
from turnwire_server.tools.sources import open_sources

log = logger()


@dataclass(frozen=True, slots=True)
class Assembly:
    """One profile, put together. The registry has the tools of its sources and of its middleware."""

    profile: Profile
    engine: Engine
    middleware: tuple[Middleware, ...]
    registry: ToolRegistry
    executor: ToolExecutor

    @property
    def known_tools(self) -> Sequence[str]:
        """The names of the tools of the server that may be offered, as far as they are known."""
        allow = self.profile.tool_policy.allow
        return tuple(name for name in self.registry.known if allow is None or name in allow)

    async def aclose(self) -> None:
        """Give back what its tools and its middleware hold."""
        await self.registry.aclose()
        closed = await asyncio.gather(*(each.aclose() for each in self.middleware), return_exceptions=True)
        for each, error in zip(self.middleware, closed, strict=True):
            if error is not None:
                log.error("a middleware could not be closed", middleware=each.name, exc_info=error)


async def assemble(
    profile: Profile,
    engine: Engine,
    environment: Mapping[str, str],
    clock: Clock,
    abandon: Callable[[asyncio.Task[Any]], None],
) -> Assembly:
    """Put a profile together. Servers of tools are not asked yet.

    Errors: ValueError for settings that are not valid; the message shows no values of settings.
    """
    middleware = build_middleware(profile.middleware, clock)
    sources = open_sources(profile.tools, environment, clock)
    brought = [tool for each in middleware for tool in each.tools]
    registry = ToolRegistry(sources, brought)
    here = [source for source, use in zip(sources, profile.tools, strict=True) if use.kind == "python"]
    try:
        registry.known = tuple(await ToolRegistry(here, brought).list_tools())
    except ToolsUnavailableError as error:  # two tools of one name, which is the profile's fault
        raise ValueError(error.message) from None
    strangers = profile.tool_policy.approve.difference(registry.known)
    if strangers and len(here) == len(sources):  # else a server of tools may have them
        msg = f"tool_policy.approve names tools that the profile does not have: {', '.join(sorted(strangers))}"
        raise ValueError(msg)
    return Assembly(profile, engine, middleware, registry, ToolExecutor(profile.tool_policy, clock, abandon))
