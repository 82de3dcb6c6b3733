"""Where an inference goes on: what the runtime commits with each step, and what answers of the client make of it.

It is small: what was said and what came of tools is in the turn, and in the effects of the step under way.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from pydantic import TypeAdapter

from turnwire_server.domain.inference import FinishClass
from turnwire_server.domain.session import PauseAction
from turnwire_server.domain.tool import ToolError


class Next(Enum):
    """What comes next."""

    ENGINE = "engine"
    TOOLS = "tools"
    END = "end"


class CallState(Enum):
    """What a tool call of the batch under way waits for."""

    APPROVAL = "approval"  # of a person
    CLIENT = "client"  # its result, from the client
    SERVER = "server"  # being executed here
    REFUSED = "refused"  # nothing: it is answered with an error
    SETTLED = "settled"  # nothing: its outcome is in the turn


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One tool call of the batch under way. `args` replaces the model's arguments unless it is None.

    `by` is who executes it once it is approved. `code` is why it is refused.
    """

    id: str
    name: str
    state: CallState
    by: CallState = CallState.SERVER
    is_idempotent: bool = False
    args: str | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of step mode."""

    id: str
    phase: str
    summary: str
    create_time: datetime
    deadline_time: datetime
    deadline_action: PauseAction


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where an inference goes on.

    `iteration` counts its engine calls, `repair_count` those of them that sent invalid output back. `finish_class` goes
    with END. `is_stepping_over`: step mode does not pause this inference any more. `answer_time` is when a wait for the
    client has lasted long enough.
    """

    next: Next = Next.ENGINE
    iteration: int = 0
    calls: tuple[PlannedCall, ...] = ()
    finish_class: FinishClass = FinishClass.UNSPECIFIED
    repair_count: int = 0
    pause: Pause | None = None
    is_stepping_over: bool = False
    answer_time: datetime | None = None

    def pending(self, *states: CallState) -> list[PlannedCall]:
        """Return the calls in one of these states."""
        return [call for call in self.calls if call.state in states]


_CHECKPOINT = TypeAdapter(Checkpoint)
_OUTCOME: TypeAdapter[str | ToolError] = TypeAdapter(str | ToolError)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return what a store keeps of a checkpoint."""
    return _CHECKPOINT.dump_json(checkpoint, exclude_defaults=True)


def decode_checkpoint(data: bytes) -> Checkpoint:
    """Return the checkpoint that was kept; that of an inference without steps where nothing was.

    Errors: ValueError for one that this version cannot read.
    """
    return _CHECKPOINT.validate_json(data) if data else Checkpoint()


def encode_outcome(outcome: str | ToolError) -> bytes:
    """Return what a store keeps of the outcome of a tool call."""
    return _OUTCOME.dump_json(outcome)


def decode_outcome(data: bytes) -> str | ToolError:
    """Return the outcome that was kept."""
    return _OUTCOME.validate_json(data)
