"""Runs one command against a server, and turns what goes wrong into words and an exit code."""

import asyncio
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from turnwire_client._backoff import Backoff
from turnwire_client._client import Client
from turnwire_client._errors import (
    CredentialsExpiredError,
    IdempotencyKeyReusedError,
    InferenceCancelledError,
    InferenceFailedError,
    NotFoundError,
    ProfileNotFoundError,
    RequestError,
    SessionBusyError,
    SessionDeletedError,
    StreamLostError,
    TurnwireError,
    UnavailableError,
)
from turnwire_client._transport import Policy
from turnwire_client.cli._output import plain, stderr

T = TypeVar("T")

REFUSED, UNREACHABLE, FAILED, CANCELLED, UNFINISHED, INTERRUPTED = 1, 3, 4, 5, 6, 130

# A person waits for an answer now, and for a stream as long as a restart takes.
POLICY = Policy(retry=Backoff(give_up_seconds=3.0), resume=Backoff(give_up_seconds=60.0))


def run(target: str, command: Callable[[Client], Awaitable[T]]) -> T:
    """Connects to the target, runs the command, and exits with its code when it raises."""

    async def connected() -> T:
        async with Client.connect(target, policy=POLICY) as client:
            return await command(client)

    return guarded(target, lambda: asyncio.run(connected()))


def guarded(target: str, work: Callable[[], T]) -> T:
    """Does the work; tells what went wrong and exits if it raises."""
    try:
        return work()
    except (TurnwireError, TimeoutError) as error:
        fail(target, error)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def fail(target: str, error: TurnwireError | TimeoutError) -> NoReturn:
    """Tells what went wrong and what to do, and exits."""
    tell(target, error)
    raise typer.Exit(exit_code(error)) from None


def tell(target: str, error: TurnwireError | TimeoutError) -> None:
    """Tells on stderr what went wrong and what to do."""
    stderr.print(f"[bold red]error[/] {plain(error)}")
    advice = _advice(target, error)
    if advice:
        stderr.print(plain(advice))


def exit_code(error: TurnwireError | TimeoutError) -> int:
    """The exit code that says the same."""
    match error:
        case InferenceFailedError():
            return FAILED
        case InferenceCancelledError():
            return CANCELLED
        case TimeoutError():
            return UNFINISHED
        case UnavailableError() | StreamLostError():
            return UNREACHABLE
        case _:
            return REFUSED


def program() -> str:
    """How this program was called, so that a command printed for a person works in their shell."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m turnwire_client.cli"
    if called.is_absolute() and shutil.which(called.name) == str(called):
        return called.name
    return shlex.quote(str(called))


def interruptible(loop: asyncio.AbstractEventLoop, on_interrupt: Callable[[], object]) -> Callable[[], None]:
    """Calls back at each Ctrl-C instead of raising KeyboardInterrupt; returns what ends that."""
    import signal

    try:
        loop.add_signal_handler(signal.SIGINT, on_interrupt)
    except (NotImplementedError, RuntimeError, ValueError):
        return lambda: None
    return lambda: _ignore(loop.remove_signal_handler(signal.SIGINT))


def in_background(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, object]) -> None:
    """Runs the work and keeps it alive until it is done."""
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _ignore(_: object) -> None: ...


def _advice(target: str, error: TurnwireError | TimeoutError) -> str:
    match error:
        case StreamLostError():
            return f"Go on later with: --after {error.after_sequence} --log {error.log}"
        case RequestError(reason="", code=code) if isinstance(error, UnavailableError):
            return (
                f"Nobody answers at {target} ({code.name}). Start a server with `{program()} serve`, or name another"
                " one with --target or TURNWIRE_TARGET."
            )
        case SessionBusyError():
            active = error.metadata.get("inference_id", "")
            return f"Wait for it with `{program()} wait {active}`, or stop it with `{program()} cancel {active}`."
        case ProfileNotFoundError():
            return "The server's profile file, or its environment, decides which profiles there are."
        case IdempotencyKeyReusedError():
            return "Use another --key for another request."
        case NotFoundError() | SessionDeletedError():
            return f"See what there is with `{program()} sessions list`."
        case TimeoutError():
            return "It goes on; wait for it again."
        case CredentialsExpiredError():
            return "Call again with new credentials."
        case _:
            return ""
