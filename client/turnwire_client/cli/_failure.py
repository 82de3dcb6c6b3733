"""What went wrong, told: to people with what to do, to programs as one JSON object, to the shell as an exit code."""

import json
import sys
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

import typer

from turnwire_client._errors import (
    CataloguedError,
    CredentialsExpiredError,
    CursorAheadError,
    EmptyTurnError,
    IdempotencyKeyReusedError,
    InferenceCancelledError,
    InferenceFailedError,
    InferenceNotFoundError,
    InferenceNotWaitingError,
    LogReplacedError,
    NotFoundError,
    PauseNotFoundError,
    ProfileNotFoundError,
    SessionBusyError,
    SessionDeletedError,
    StreamLostError,
    ToolCallNotPendingError,
    TurnNotFoundError,
    TurnwireError,
    UnavailableError,
)
from turnwire_client.cli import _waiting
from turnwire_client.cli._output import plain, program, state_name, stderr
from turnwire_client.cli._waiting import Waits

# What a command may raise; UnicodeError is text that is not UTF-8.
Failure: TypeAlias = TurnwireError | TimeoutError | UnicodeError | Waits

REFUSED, USAGE, UNREACHABLE, FAILED, CANCELLED, UNFINISHED, WAITS, INTERRUPTED = 1, 2, 3, 4, 5, 6, 7, 130


def fail(target: str, error: Failure, *, as_json: bool) -> NoReturn:
    """Tells what went wrong and what to do, and exits."""
    tell(target, error, as_json=as_json)
    raise typer.Exit(exit_code(error)) from None


def tell(target: str, error: Failure, *, as_json: bool) -> None:
    """Tells on stderr what went wrong and what to do."""
    if as_json:
        _print_error(error)
        return
    if isinstance(error, Waits):
        _waiting.tell(error.wait)
        return
    message = "the text is not UTF-8" if isinstance(error, UnicodeError) else error
    stderr.print(f"[bold red]error[/] {plain(message)}")
    advice = _advice(target, error)
    if advice:
        stderr.print(plain(advice))


def exit_code(error: Failure) -> int:
    """The exit code that says the same."""
    match error:
        case InferenceFailedError():
            return FAILED
        case InferenceCancelledError():
            return CANCELLED
        case TimeoutError():
            return UNFINISHED
        case Waits():
            return WAITS
        case UnavailableError() | StreamLostError():
            return UNREACHABLE
        case UnicodeError():
            return USAGE
        case _:
            return REFUSED


def print_error(code: str, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
    """The one JSON object about what went wrong; see `turnwire_client.cli`."""
    content = {"reason": reason, "code": code, "message": message, "metadata": dict(metadata or {})}
    sys.stderr.write(json.dumps({"error": content}, separators=(",", ":")) + "\n")
    sys.stderr.flush()


def _print_error(error: Failure) -> None:
    match error:
        case CataloguedError():
            message = str(error).removeprefix(f"{error.reason or error.code.name}: ")
            print_error(error.code.name, message, reason=error.reason, metadata=error.metadata)
        case InferenceCancelledError():
            print_error("CANCELLED", str(error))
        case TimeoutError():
            print_error("DEADLINE_EXCEEDED", str(error))
        case StreamLostError():
            cursor = {"after_sequence": str(error.after_sequence), "log": error.log}
            print_error("UNAVAILABLE", str(error), metadata=cursor)
        case SessionDeletedError():
            print_error("NOT_FOUND", str(error))
        case Waits(wait=wait):
            inference = wait.inference
            metadata = {"inference_id": inference.inference_id, "state": state_name(inference.state)}
            print_error("FAILED_PRECONDITION", str(error), metadata=metadata)
        case UnicodeError():
            print_error("INVALID_ARGUMENT", "the text is not UTF-8")
        case _:
            print_error("INTERNAL", str(error))


def _advice(target: str, error: Failure) -> str:
    match error:
        case StreamLostError():
            return f"Go on later with: --after {error.after_sequence} --log {error.log}"
        case UnavailableError(reason="", code=code):
            return (
                f"Nobody answers at {target} ({code.name}). Start a server with `{program()} serve`, or name another"
                " one with --target or TURNWIRE_TARGET."
            )
        case SessionBusyError():
            active = error.metadata.get("inference_id", "")
            return f"Wait for it with `{program()} wait {active}`, or stop it with `{program()} cancel {active}`."
        case TimeoutError():
            return "It goes on; wait for it again."
        case CredentialsExpiredError():
            return "Call again with new credentials."
        case CataloguedError():
            return _advice_on_request(error)
        case SessionDeletedError():
            return f"See what there is with `{program()} sessions list`."
        case _:
            return ""


def _advice_on_request(error: CataloguedError) -> str:
    session_id = error.metadata.get("session_id", "SESSION")
    match error:
        case EmptyTurnError():
            return "Give a text, or - to read it from standard input."
        case TurnNotFoundError():
            return f"See which turns there are with `{program()} turns list {session_id}`."
        case InferenceNotFoundError():
            return (
                f"`{program()} turns list SESSION` shows the inferences of a session, `{program()} sessions list` the"
                " sessions. With the deletion of its session an inference is gone."
            )
        case LogReplacedError():
            return (
                "The session was deleted and created again, or the store was restored: what came before is not in this"
                " log. Begin again, without --after and --log."
            )
        case CursorAheadError():
            return f"The log ends at {error.metadata.get('head_sequence', '')}; --after may be that at most."
        case ProfileNotFoundError():
            return (
                f"See which there are with `{program()} profiles list`. The server's profile files, or its environment,"
                " decide that."
            )
        case IdempotencyKeyReusedError():
            return "Use another --key for another request."
        case InferenceNotWaitingError() | ToolCallNotPendingError():
            return f"See what it waits for with `{program()} wait {error.metadata.get('inference_id', '')}`."
        case PauseNotFoundError():
            return f"See which there are with `{program()} steps list`. A pause ends by itself at its deadline."
        case NotFoundError():
            return f"See what there is with `{program()} sessions list`."
        case _:
            return ""
