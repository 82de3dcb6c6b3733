"""The Middleware port: what may be put around an engine call.

A middleware sees one engine call: it may change what the engine is asked (`call`) and what of its output is told
(`emit`), tell events of its own, and keep state in the data of the turn, which the next turn inherits. It is called
once per engine call of the tool loop, so what it does to the blocks has to be the same the second time: blocks that it
adds are seen by the engine only, and are not stored. The first middleware of a profile is the outermost; chain.py puts
them around an engine.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from turnwire_server.domain.event import Payload
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.tools.base import ServerTool

# What is inside a middleware: the next one, or at last the engine.
Proceed = Callable[[EngineCall, Emit], Awaitable[EngineResult]]


class Scope(Protocol):
    """What a middleware has besides the call itself, for the time of that call."""

    @property
    def data(self) -> Mapping[str, str]:
        """The data of the turn (contract: Turn.data), with what was set in this call; the values are JSON texts."""
        ...

    def set_data(self, key: str, text: str | None) -> None:
        """Set a key of the turn's data, or remove it with None. It is committed with the step, or not at all."""
        ...

    async def tell(self, payload: Payload, entity: str = "") -> None:
        """Append an event to the log: agent.mode, thinking.mode.*, log or custom. It waits for room."""
        ...

    def mint(self) -> str:
        """Return a new id, for an entity."""
        ...


class Middleware(Protocol):
    """One middleware of one profile. Any number of calls may be under way at once; it keeps no state between them."""

    @property
    def name(self) -> str:
        """What profiles call it."""
        ...

    @property
    def tools(self) -> Sequence[ServerTool]:
        """The tools that it brings; they are offered like those of the profile."""
        ...

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Make one engine call, or refuse it.

        What `proceed` raises has to pass; it may be raised again as the cause of something else. Anything else that it
        raises ends the inference with MIDDLEWARE_FAILED. To refuse a call, and say why, it raises MiddlewareFailedError
        itself. What it hands to `proceed` as `emit` keeps the same rules: it passes pieces on as they come.
        """
        ...

    async def aclose(self) -> None:
        """Give back what it holds."""
        ...
