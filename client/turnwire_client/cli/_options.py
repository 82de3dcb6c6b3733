"""What the options may be: whatever is refused here is wrong usage, exit code 2, and never reaches a server."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeAlias

import typer

TARGET: Final = "127.0.0.1:7450"
SEQUENCE_MAX: Final = 2**64 - 1
INDEX_MAX: Final = 2**32 - 1
TIMEOUT_SECONDS_MAX: Final = 2_592_000  # 30 days, the contract's bound

# The base of everything that typer says about a wrong command line. It has no public name in typer.
UsageError: Any = typer.BadParameter.__base__


def given(value: str | None) -> str | None:
    """Refuses an empty value: most likely a variable of the shell that is not set."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty; leave the option out for the default")
    return value


def named(value: str | None) -> str | None:
    """Refuses an empty id where one is needed."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty")
    return value


def duration(value: float | None) -> float | None:
    """Refuses what is no time to give an inference."""
    if value is not None and not 0 < value <= TIMEOUT_SECONDS_MAX:
        raise typer.BadParameter(f"{value} is not in the range 0<x<={TIMEOUT_SECONDS_MAX}")
    return value


def patience(value: float | None) -> float | None:
    """Refuses what is no time to wait."""
    if value is not None and not 0 <= value <= TIMEOUT_SECONDS_MAX:
        raise typer.BadParameter(f"{value} is not in the range 0<=x<={TIMEOUT_SECONDS_MAX}")
    return value


def is_json(text: str) -> bool:
    """Whether the text is JSON as the contract has it: without NaN and Infinity."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def read_json(path: Path | None) -> str:
    """What is in a file, which has to be JSON; nothing without a file."""
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from None
    if not is_json(text):
        raise typer.BadParameter(f"{path} is not JSON")
    return text


def read_tools(path: Path | None) -> list[Any]:
    """The contract's Tool messages in a file: a JSON list; an input_schema may be an object there."""
    if path is None:
        return []
    from google.protobuf.json_format import ParseDict, ParseError

    from turnwire.v1.tool_pb2 import Tool

    entries = json.loads(read_json(path))
    try:
        for entry in entries:
            for name in ("input_schema", "inputSchema"):
                if isinstance(entry.get(name), dict):
                    entry[name] = json.dumps(entry[name])
        return [ParseDict(entry, Tool()) for entry in entries]
    except (AttributeError, TypeError, ParseError) as error:
        raise typer.BadParameter(f"{path} is not a list of tools: {error}") from None


def answers(values: Iterable[str], *, needed: bool, is_value_json: bool) -> dict[str, str]:
    """Answers to tool calls by the id of the call, from CALL=VALUE; the value is empty where there is none."""
    found: dict[str, str] = {}
    for text in values:
        call, equals, value = text.partition("=")
        if not call or (needed and not equals):
            raise typer.BadParameter(f"{text!r} is not CALL=VALUE")
        if call in found:
            raise typer.BadParameter(f"{call} has two answers")
        if is_value_json and value and not is_json(value):
            raise typer.BadParameter(f"the value for {call} is not JSON; text needs quotes: '{call}=\"...\"'")
        found[call] = value
    return found


def show_version(asked: bool) -> None:
    """Shows the version and exits, if that was asked for."""
    if not asked:
        return
    from importlib.metadata import version

    typer.echo(f"turnwire {version('turnwire')}")
    raise typer.Exit


Version: TypeAlias = Annotated[
    bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=show_version)
]
Target: TypeAlias = Annotated[str, typer.Option("--target", envvar="TURNWIRE_TARGET", help="host:port of the server.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object, or one per line, and nothing else.")]
SessionId: TypeAlias = Annotated[str, typer.Argument(metavar="SESSION", help="The session_id.", callback=named)]
SessionOption: TypeAlias = Annotated[
    str | None, typer.Option("--session", help="The session_id. Default: a new session.", callback=given)
]
InferenceId: TypeAlias = Annotated[str, typer.Argument(metavar="INFERENCE", help="The inference_id.", callback=named)]
Profile: TypeAlias = Annotated[
    str | None, typer.Option("--profile", help="Default: the session's, or the server's.", callback=given)
]
Model: TypeAlias = Annotated[str | None, typer.Option("--model", help="Default: the profile's.", callback=given)]
System: TypeAlias = Annotated[str, typer.Option("--system", help="An instruction to the model, before the text.")]
