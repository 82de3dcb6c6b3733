"""What a profile is made of at work: its engine, its middleware, its tools."""

from dataclasses import dataclass

from turnwire_server.domain.profile import Profile
from turnwire_server.engines.base import Engine
from turnwire_server.middleware.base import Middleware
from turnwire_server.tools.executor import ToolExecutor
from turnwire_server.tools.registry import ToolRegistry


@dataclass(frozen=True, slots=True)
class Assembly:
    """One profile, put together. The registry has the tools of its sources and of its middleware."""

    profile: Profile
    engine: Engine
    middleware: tuple[Middleware, ...]
    registry: ToolRegistry
    executor: ToolExecutor
