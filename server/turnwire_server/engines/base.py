"""The Engine port: what a model backend has to implement.

An engine makes one engine call: it takes the turn's blocks and the configuration, hands typed pieces of output to
`emit` as they come, and returns how the output ended. It knows nothing of events, sequences, stores or retries.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from turnwire_server.domain.inference import FinishClass, InferenceConfig, Usage
from turnwire_server.domain.tool import Tool
from turnwire_server.domain.turn import Block


class PartKind(Enum):
    """What a part of the output is."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part of the output begins. `part` numbers the parts of one engine call; parts may interleave.

    A tool call has the name of its tool, and the model's own id for the call, empty where the model gives none.
    """

    part: int
    kind: PartKind
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class PartDelta:
    """A piece of a part: text, reasoning, or JSON text of arguments. Empty pieces are skipped by the receiver."""

    part: int
    delta: str


@dataclass(frozen=True, slots=True)
class PartEnd:
    """A part is complete. The fields are what a provider needs to accept reasoning again."""

    part: int
    signature: str = ""
    encrypted_content: str = ""
    summary: str = ""
    item: str = ""


EngineChunk = PartStart | PartDelta | PartEnd

# Waits for room in a bounded buffer, not for durability. Raises asyncio.CancelledError once the call was given up.
Emit = Callable[[EngineChunk], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EngineCall:
    """What one engine call is asked for.

    `blocks` is the turn's view, oldest first: every tool_call in it is answered by a tool_use. `options` are the
    profile's and the request's engine options, merged. `iteration` counts the engine calls of the inference from 1.
    """

    session_id: str
    inference_id: str
    iteration: int
    blocks: tuple[Block, ...]
    config: InferenceConfig = InferenceConfig()
    tools: tuple[Tool, ...] = ()
    output_schema: str = ""
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class EngineResult:
    """How the output of one engine call ended. `stop_reason` and `model` are the provider's own words."""

    finish_class: FinishClass
    usage: Usage = Usage()
    stop_reason: str = ""
    model: str = ""


class Engine(Protocol):
    """Produces model output for one engine call."""

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        """Make one engine call.

        Cancelling the task closes the connection to the provider before the cancellation propagates. A part that was
        started and not ended when this returns counts as complete; when it raises, as incomplete.

        Errors: domain.errors.EngineError for what a provider or a model did; anything else is a defect of the engine
        and ends the inference with ENGINE_FAILED.
        """
        ...
