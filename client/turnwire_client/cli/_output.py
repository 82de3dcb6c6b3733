"""What a command says: JSON for programs, tables and streams for people."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

from turnwire.v1 import event_pb2
from turnwire.v1.debug_service_pb2 import PauseAction, SnapshotPhase
from turnwire.v1.event_pb2 import Event, ToolResult
from turnwire.v1.inference_pb2 import FinishClass, Inference, InferenceState
from turnwire.v1.tool_pb2 import ToolCall, ToolUse
from turnwire.v1.turn_pb2 import Block, BlockStatus, Turn, TurnState
from turnwire_client._status import reason_name

# What is piped is not cut at a width, and a terminal's last column at this one at least.
PIPED_WIDTH = 100_000
LAST_COLUMN_WIDTH_MIN = 4

stdout = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, emoji=False, highlight=False, soft_wrap=True)
stderr = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)

# Of the arguments and of the result of a tool call, in characters.
CALL_LENGTH_MAX = 400

STATE_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}


def to_dict(message: Message) -> dict[str, Any]:
    """A message as ProtoJSON with the contract's own field names; only what is absent is left out, not what is zero."""
    found: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def print_json(value: Message | dict[str, Any]) -> None:
    """One JSON object on one line."""
    content = to_dict(value) if isinstance(value, Message) else value
    sys.stdout.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def program() -> str:
    """How this program was called, so that a command printed for a person works in their shell."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m turnwire_client.cli"
    if called.is_absolute() and shutil.which(called.name) == str(called):
        return called.name
    return shlex.quote(str(called))


def plain(text: object) -> str:
    """Text as it is: nothing in it is markup, and no model gets to steer the terminal."""
    return escape(str(text).replace("\x1b", "\N{SYMBOL FOR ESCAPE}"))


def print_line(text: str = "", style: str | None = None) -> None:
    """One line of plain text."""
    stdout.print(plain(text), style=style)


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """A table without lines, so that it can be cut and pasted. Only the last column is cut at the terminal's width."""
    lines = [list(columns), *([" ".join(str(cell).split()) for cell in row] for row in rows)]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(columns) - 1)]
    room = max(LAST_COLUMN_WIDTH_MIN, stdout.width - sum(widths) - 2 * len(widths))
    for style, line in zip(["bold", *([None] * len(lines))], lines, strict=False):
        cells = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=False)]
        last = line[-1]
        cells.append(last if cell_len(last) <= room else set_cell_size(last, room - 1) + "\N{HORIZONTAL ELLIPSIS}")
        print_line("  ".join(cells).rstrip(), style)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair per line; empty values are left out."""
    shown = [(name, str(value)) for name, value in facts if value not in {"", None}]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        stdout.print(f"[bold]{name:<{width}}[/]  {plain(value)}")


def state_name(state: InferenceState.ValueType) -> str:
    """The state without its prefix; its number when it is of a newer contract."""
    return _name(InferenceState, state, "INFERENCE_STATE_")


def turn_state_name(state: TurnState.ValueType) -> str:
    """The turn's state without its prefix."""
    return _name(TurnState, state, "TURN_STATE_")


def finish_name(finish: FinishClass.ValueType) -> str:
    """The finish class without its prefix, empty when it is not set."""
    return _name(FinishClass, finish, "FINISH_CLASS_") if finish else ""


def phase_name(phase: SnapshotPhase.ValueType) -> str:
    """The phase without its prefix, in the words that --phase takes."""
    return _name(SnapshotPhase, phase, "SNAPSHOT_PHASE_").lower()


def action_name(action: PauseAction.ValueType) -> str:
    """What is done with a pause, in the words that `steps release` takes."""
    return _name(PauseAction, action or PauseAction.PAUSE_ACTION_CONTINUE, "PAUSE_ACTION_").lower()


def usage_line(inference: Inference) -> str:
    """The tokens used, in words."""
    usage = inference.usage
    if not usage.input_tokens and not usage.output_tokens:
        return ""
    tokens = "token" if usage.input_tokens == 1 else "tokens"
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    reasoning = f" ({usage.reasoning_tokens} reasoning)" if usage.reasoning_tokens else ""
    return f"{usage.input_tokens} {tokens} in{cached}, {usage.output_tokens} out{reasoning}"


def end_line(inference: Inference) -> str:
    """How an inference ended, after its state: what is worth saying beside it, and the tokens used."""
    finish = finish_name(inference.finish_class)
    told = "" if finish in {"", "COMPLETED", "INTERRUPTED", "ERROR"} else f" ({finish})"
    usage = usage_line(inference)
    return told + (f"; {usage}" if usage else "")


def print_inference(inference: Inference) -> None:
    """An inference, for people."""
    state = state_name(inference.state)
    finish = finish_name(inference.finish_class)
    ended = inference.HasField("end_time")
    print_facts(
        [
            ("inference_id", inference.inference_id),
            ("session_id", inference.session_id),
            ("state", f"{state} ({finish})" if finish else state),
            ("error", inference.error.message if inference.HasField("error") else ""),
            ("profile", inference.profile),
            ("model", inference.model),
            ("usage", usage_line(inference)),
            ("events", f"{inference.first_sequence} to {inference.last_sequence}" if ended else ""),
        ]
    )


def print_turn(turn: Turn) -> None:
    """A turn with its blocks, for people."""
    parent = f", built on {turn.parent}" if turn.HasField("parent") else ""
    print_line(f"turn {turn.index} ({turn_state_name(turn.state)}{parent}), inference {turn.inference_id}", "bold")
    for block in turn.blocks:
        incomplete = " (incomplete)" if block.status == BlockStatus.BLOCK_STATUS_INCOMPLETE else ""
        print_line(f"\n{block.WhichOneof('kind') or 'unknown'}{incomplete}", "cyan")
        print_line(block_text(block), "dim italic" if block.HasField("reasoning") else None)


def block_text(block: Block) -> str:
    """What a block says."""
    kind = block.WhichOneof("kind")
    if kind == "tool_call":
        return f"{block.tool_call.name}({block.tool_call.args})"
    if kind == "tool_use":
        error = block.tool_use.error
        return (
            f"{error.code or 'error'}: {error.message}" if block.tool_use.HasField("error") else block.tool_use.result
        )
    if kind == "other":
        return f"{block.other.type}, {len(block.other.payload)} bytes"
    text = str(getattr(getattr(block, kind), "text", "")) if kind else ""
    images = f" [{len(block.user.images)} images]" if block.user.images else ""
    return text + images


def sem_name(event: Event) -> str:
    """The SEM name of an event's variant; `?` for one that this version does not know."""
    field = event.WhichOneof("payload")
    if field is None:
        return "?"
    return str(event.DESCRIPTOR.fields_by_name[field].GetOptions().Extensions[event_pb2.sem])


def event_line(event: Event) -> str:
    """An event on one line: its sequence, its name and what is in it."""
    field = event.WhichOneof("payload")
    content = to_dict(getattr(event, field)) if field else {}
    content = {name: value for name, value in content.items() if value is not False and value not in ("", [], {})}
    return f"{event.sequence:>6}  {sem_name(event):<22}  {json.dumps(content, ensure_ascii=False)}"


def call_line(call: ToolCall) -> str:
    """A tool call, as it would be written."""
    return f"{call.name}({cut(call.args)})"


def use_line(use: ToolUse) -> str:
    """What came of a tool call."""
    return f"{use.error.code or 'error'}: {use.error.message}" if use.HasField("error") else use.result


def cut(text: str) -> str:
    """The text, or as much of it as a person wants to see of a call."""
    return text if len(text) <= CALL_LENGTH_MAX else text[:CALL_LENGTH_MAX] + "\N{HORIZONTAL ELLIPSIS}"


class Transcript:
    """Writes what a model says while it says it: reasoning dimmed, then text, tool calls and what came of them."""

    def __init__(self) -> None:
        self._entity = ""
        # The names of the tools that were called, by the id of the call: a turn's, so they are few.
        self._tools: dict[str, str] = {}

    def show(self, event: Event) -> None:
        """Writes what the event adds, if anything."""
        if event.HasField("llm_delta"):
            self._write(event.entity, event.llm_delta.delta, None)
        elif event.HasField("llm_thinking_delta"):
            self._write(event.entity, event.llm_thinking_delta.delta, "dim italic")
        elif event.HasField("tool_call"):
            call = event.tool_call.call
            self._tools[call.id] = call.name
            args = ToolCall(name=call.name, args="\N{HORIZONTAL ELLIPSIS}") if event.tool_call.args_omitted else call
            self._write(event.entity, f"[{call_line(args)}]", "cyan")
        elif event.HasField("tool_result"):
            self._show_result(event.tool_result)
        elif event.HasField("agent_mode"):
            self._write(f"mode {event.sequence}", f"[mode {event.agent_mode.to_mode}]", "cyan")
        elif event.HasField("error"):
            error = event.error.error
            self._write(f"error {event.sequence}", f"[{reason_name(error.reason)}: {error.message}]", "yellow")
        elif event.HasField("inference_attempt_lost"):
            cause = "stopped" if event.inference_attempt_lost.handed_back else "lost"
            self._write(event.entity, f"[the server was {cause}; what follows starts anew]", "yellow")

    def _show_result(self, told: ToolResult) -> None:
        use = told.use
        line = "\N{HORIZONTAL ELLIPSIS}" if told.result_omitted else cut(use_line(use))
        style = "red" if use.HasField("error") else "cyan"
        self._write(f"{use.tool_call} done", f"[{self._tools.get(use.tool_call, use.tool_call)} -> {line}]", style)

    def end(self) -> None:
        """Ends the last line."""
        if self._entity:
            print_line()
        self._entity = ""

    def _write(self, entity: str, text: str, style: str | None) -> None:
        if self._entity and self._entity != entity:
            print_line("\n")
        self._entity = entity or "-"
        stdout.print(plain(text), style=style, end="")
        stdout.file.flush()


def print_end(inference: Inference) -> None:
    """How an inference ended, on one line of stderr: what is piped is the answer alone."""
    state = state_name(inference.state)
    style = STATE_STYLES.get(state, "bold")
    stderr.print(f"[{style}]{state}[/]{plain(end_line(inference))}")


def print_note(text: str) -> None:
    """One line beside the matter, on stderr."""
    stderr.print(plain(text), style="dim")


def _name(enum: Any, number: int, prefix: str) -> str:
    return str(enum.Name(number)).removeprefix(prefix) if number in enum.values() else str(number)
