"""Tools: what a model may ask for, what it asked for, and what came back."""

from dataclasses import dataclass
from enum import IntEnum


class ToolPlacement(IntEnum):
    """Who executes a tool. Numbers are those of the contract."""

    UNSPECIFIED = 0
    SERVER = 1
    CLIENT = 2


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that is offered to the model; `input_schema` is JSON text."""

    name: str
    description: str = ""
    input_schema: str = ""
    placement: ToolPlacement = ToolPlacement.UNSPECIFIED
    approval_required: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's request to execute a tool; `args` is JSON text."""

    id: str
    name: str
    args: str = ""


@dataclass(frozen=True, slots=True)
class ToolError:
    """The failure of a tool call."""

    message: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The outcome of a tool call: a result as JSON text, or a ToolError."""

    tool_call: str
    outcome: str | ToolError


@dataclass(frozen=True, slots=True)
class ToolApproval:
    """Approval of a tool call; `args` replaces the model's arguments unless it is empty."""

    args: str = ""


@dataclass(frozen=True, slots=True)
class ToolDenial:
    """Denial of a tool call."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A client's answer to one pending tool call: a result as JSON text, a failure, an approval or a denial."""

    tool_call: str
    outcome: str | ToolError | ToolApproval | ToolDenial
