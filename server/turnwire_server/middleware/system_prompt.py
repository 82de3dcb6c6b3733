"""The middleware system_prompt: the profile's instruction to the model.

What the client put into the turn stays: the prompt is a block of its own before it. It is left out where the turn
has a system block of the same text, so that nothing is said twice. The first middleware's prompt comes first.
"""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from turnwire_server.domain.turn import System
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.middleware.instruction import put_first
from turnwire_server.tools.base import ServerTool


class SystemPromptSettings(BaseModel):
    """The settings of system_prompt. An empty text adds nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str


class SystemPrompt:
    """See Middleware."""

    name = "system_prompt"
    tools: Sequence[ServerTool] = ()

    def __init__(self, settings: SystemPromptSettings) -> None:
        self._text = settings.text

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Show the engine the prompt before everything else."""
        is_there = any(isinstance(block.kind, System) and block.kind.text == self._text for block in call.blocks)
        if self._text and not is_there:
            call = replace(call, blocks=put_first(call.blocks, self._text))
        return await proceed(call, emit)

    async def aclose(self) -> None:
        """There is nothing to give back."""
