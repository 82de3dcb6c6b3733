"""A middleware as an application would write it, which a profile names by its path."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult, PartDelta
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.tools.base import ServerTool


class Shouting:
    """Adds a mark to whatever is said."""

    name = "shouting"
    tools: Sequence[ServerTool] = ()

    def __init__(self, mark: str) -> None:
        if not mark:
            msg = "mark is empty"
            raise ValueError(msg)
        self._mark = mark

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """See Middleware."""

        async def hear(chunk: EngineChunk) -> None:
            await emit(replace(chunk, delta=chunk.delta + self._mark) if isinstance(chunk, PartDelta) else chunk)

        return await proceed(call, hear)

    async def aclose(self) -> None:
        """There is nothing to give back."""


def half() -> SimpleNamespace:
    """Return something that is no middleware."""
    return SimpleNamespace(name="half")
