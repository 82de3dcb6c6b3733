"""Somebody at the terminal, asked about tool calls and pauses, one thing after the other."""

from collections.abc import Callable

from turnwire.v1.debug_service_pb2 import Pause
from turnwire.v1.tool_pb2 import ToolApproval, ToolCall, ToolDenial, ToolError, ToolOutcome
from turnwire_client._debug import Release
from turnwire_client._tools import Required
from turnwire_client.cli import _output as out
from turnwire_client.cli._options import is_json

RELEASES: dict[str, Release] = {"c": "continue", "s": "step", "a": "abort"}


class Person:
    """Remembers which tools are approved for the rest of the chat.

    Every method raises EOFError and KeyboardInterrupt for Ctrl-D and Ctrl-C.
    """

    def __init__(self) -> None:
        self._approved: set[str] = set()

    def answer(self, required: Required) -> list[ToolOutcome]:
        """Answers everything that is required: approvals first."""
        return [self._decide(call) for call in required.approvals] + [_execute(call) for call in required.calls]

    def release(self, pause: Pause) -> Release:
        """Says how a pause ends."""
        out.print_line(f"\npaused {pause.summary}", "yellow")
        return RELEASES[_choose("[c]ontinue, [s]tep or [a]bort? ", "csa")]

    def _decide(self, call: ToolCall) -> ToolOutcome:
        out.print_line(f"\n{out.call_line(call)}", "yellow")
        if call.name in self._approved:
            out.print_line(f"{call.name} is approved for this chat", "dim")
            return ToolOutcome(tool_call=call.id, approved=ToolApproval())
        args, letter = "", _choose("approve? [y]es, [n]o, [e]dit the arguments, [a]ll calls of this tool: ", "ynea")
        if letter == "n":
            reason = _read("why not? the model is told (Enter: nothing) ")
            return ToolOutcome(tool_call=call.id, denied=ToolDenial(reason=reason))
        if letter == "a":
            self._approved.add(call.name)
        if letter == "e":
            args = _read_json("arguments, one JSON object (Enter: as they are): ", is_args)
        return ToolOutcome(tool_call=call.id, approved=ToolApproval(args=args))


def _execute(call: ToolCall) -> ToolOutcome:
    out.print_line(f"\n{out.call_line(call)} is yours to execute", "yellow")
    text = _read_json("its result as JSON, or ! and what went wrong: ", is_result)
    if text.startswith("!"):
        message = text.removeprefix("!").strip() or "it failed"
        return ToolOutcome(tool_call=call.id, error=ToolError(message=message, code="failed"))
    return ToolOutcome(tool_call=call.id, result=text)


def is_args(text: str) -> bool:
    """Whether these can be arguments: nothing, or a JSON object."""
    return not text or (is_json(text) and text.startswith("{"))


def is_result(text: str) -> bool:
    """Whether this is a result, as JSON, or an error."""
    return text.startswith("!") or is_json(text)


def _read_json(prompt: str, fits: Callable[[str], bool]) -> str:
    while not fits(text := _read(prompt)):  # asked until it fits; Ctrl-C and Ctrl-D end it
        out.print_line("that is not the JSON it has to be", "red")
    return text


def _choose(prompt: str, letters: str) -> str:
    while (letter := _read(prompt).lower()[:1]) not in {*letters}:  # asked until it is one of them; likewise
        pass
    return letter


def _read(prompt: str) -> str:
    return input(prompt).strip()
