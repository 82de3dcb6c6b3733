"""Runs one command against a server; what goes wrong is told by `_failure`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import typer

from turnwire_client._backoff import Backoff
from turnwire_client._client import Client
from turnwire_client._errors import TurnwireError
from turnwire_client._transport import Policy
from turnwire_client.cli import _failure
from turnwire_client.cli._waiting import Waits

T = TypeVar("T")

# A person waits for an answer now, and for a stream as long as a restart takes.
POLICY = Policy(
    retry=Backoff(give_up_seconds=3.0), opening=Backoff(give_up_seconds=3.0), resume=Backoff(give_up_seconds=60.0)
)


def run(target: str, command: Callable[[Client], Awaitable[T]], *, as_json: bool) -> T:
    """Connects to the target, runs the command, and exits with its code when it raises."""

    async def connected() -> T:
        async with Client.connect(target, policy=POLICY) as client:
            return await command(client)

    return guarded(target, lambda: asyncio.run(connected()), as_json=as_json)


def guarded(target: str, work: Callable[[], T], *, as_json: bool) -> T:
    """Does the work; tells what went wrong and exits if it raises."""
    try:
        return work()
    except (TurnwireError, TimeoutError, UnicodeError, Waits) as error:
        _failure.fail(target, error, as_json=as_json)
    except KeyboardInterrupt:
        if as_json:
            _failure.print_error("CANCELLED", "interrupted")
        raise typer.Exit(_failure.INTERRUPTED) from None


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
