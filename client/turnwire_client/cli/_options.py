"""What the options may be: whatever is refused here is wrong usage, exit code 2, and never reaches a server."""

from typing import Annotated, Any, Final, TypeAlias

import typer

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
