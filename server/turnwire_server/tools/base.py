"""The ServerTool port: what a tool that the server executes has to implement; and ToolSource, where tools come from.

A failure is data: a tool raises ToolFailure to say what went wrong, and the model gets it as a ToolError. Anything else
that it raises is a defect of the tool, which the model gets as a ToolError as well, with the code `crashed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from turnwire_server.domain.tool import Tool, ToolCall


class ToolFailure(Exception):  # noqa: N818 - what a tool says of itself, not an error of the contract
    """A tool failed. The message is for the model and for people; `code` is a short word for programs.

    `may_repeat`: nothing was done, so that it may be tried again even if the tool is not idempotent.
    """

    def __init__(self, message: str, code: str = "failed", *, may_repeat: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.may_repeat = may_repeat


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool of the server. `tool` is what the model is offered; its placement is SERVER.

    `is_idempotent`: executing it twice does what executing it once does, so that it may be executed again when it
    failed, or when it is not known whether it was executed. `timeout_seconds` goes before that of the policy.
    `can_stop`: once cancelled it does nothing more. One that cannot is not repeated after a timeout: it may still run.
    """

    tool: Tool
    is_idempotent: bool = False
    timeout_seconds: float | None = None
    can_stop: bool = True


@dataclass(frozen=True, slots=True)
class Invocation:
    """One execution of a tool. `call.args` is the JSON text of one object that satisfies the tool's schema."""

    session_id: str
    inference_id: str
    call: ToolCall


class ServerTool(Protocol):
    """One tool that the server executes."""

    @property
    def definition(self) -> ToolDefinition:
        """What it is. It does not change."""
        ...

    async def run(self, invocation: Invocation) -> str:
        """Execute a call; return the result as JSON text. Any number of calls may run at once.

        Cancelling the task stops what can be stopped before the cancellation propagates.

        Errors: ToolFailure.
        """
        ...


class ToolSource(Protocol):
    """Where tools come from."""

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    async def list_tools(self) -> Sequence[ServerTool]:
        """Return its tools, as they are now. Errors: domain.errors.ToolsUnavailableError."""
        ...

    async def aclose(self) -> None:
        """Give back what it holds. Executions under way fail."""
        ...
