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
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import FinishClass, Inference, InferenceState
from turnwire.v1.turn_pb2 import Block, BlockStatus, Turn, TurnState

# What is piped is not cut at a width, and a terminal's last column at this one at least.
PIPED_WIDTH = 100_000
LAST_COLUMN_WIDTH_MIN = 4

stdout = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, emoji=False, highlight=False, soft_wrap=True)
stderr = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)

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
        return block.tool_use.result or block.tool_use.error.message
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


class Transcript:
    """Writes what a model says while it says it: reasoning dimmed, then text."""

    def __init__(self) -> None:
        self._entity = ""

    def show(self, event: Event) -> None:
        """Writes what the event adds, if anything."""
        if event.HasField("llm_delta"):
            self._write(event.entity, event.llm_delta.delta, None)
        elif event.HasField("llm_thinking_delta"):
            self._write(event.entity, event.llm_thinking_delta.delta, "dim italic")
        elif event.HasField("tool_call"):
            self._write(event.entity, f"[{event.tool_call.call.name}({event.tool_call.call.args})]", "cyan")
        elif event.HasField("inference_attempt_lost"):
            cause = "stopped" if event.inference_attempt_lost.handed_back else "lost"
            self._write(event.entity, f"[the server was {cause}; what follows starts anew]", "yellow")

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
