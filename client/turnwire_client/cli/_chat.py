"""`turnwire chat`: say something, see the answer stream, go on. Ctrl-C stops the answer; a second one leaves."""

import asyncio
import contextlib
import importlib
import sys
from contextlib import aclosing
from typing import Any

from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire.v1.turn_pb2 import Block, SystemBlock, UserBlock
from turnwire_client._client import Client
from turnwire_client._errors import InferenceCancelledError, RequestError, TurnwireError, UnavailableError
from turnwire_client._handle import InferenceHandle
from turnwire_client.cli import _failure, _run
from turnwire_client.cli import _output as out
from turnwire_client.cli._inferences import follow_inference


class Left(Exception):  # noqa: N818 - not an error: the person wants to leave
    """The person wants to leave."""


class Chat:
    """One session, and what every inference of it is started with. `session_id` is empty until something is said."""

    def __init__(self, client: Client, *, system: str, profile: str, model: str, as_json: bool) -> None:
        self._client = client
        self._system = system
        self._profile = profile
        self._config = InferenceConfig(model=model) if model else None
        self._as_json = as_json
        self.session_id = ""

    async def open(self, session_id: str) -> None:
        """Continues a session; without one, only looks whether the server is there. Raises RequestError."""
        if not session_id:
            async with aclosing(self._client.list_sessions()) as sessions:
                await anext(sessions, None)
            return
        session = await self._client.get_session(session_id)
        self.session_id = session.session_id
        if session.turn_count:
            self._system = ""  # it is in the turns already

    async def say(self, text: str) -> None:
        """Starts an inference and shows it. Raises TurnwireError; Left after a second Ctrl-C."""
        blocks = [Block(system=SystemBlock(text=self._system))] if self._system else []
        blocks.append(Block(user=UserBlock(text=text)))
        handle = await self._client.start_inference(
            self.session_id or None, blocks, profile=self._profile, config=self._config
        )
        self.session_id = handle.session_id
        self._system = ""
        await self._show(handle)

    async def _show(self, handle: InferenceHandle) -> None:
        showing = asyncio.ensure_future(follow_inference(handle, as_json=self._as_json))
        background: set[asyncio.Task[Any]] = set()
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            if interrupted:
                showing.cancel()
                return
            interrupted = True
            out.stderr.print("\n[yellow]stopping; Ctrl-C again leaves[/]")
            _run.in_background(background, handle.cancel("Ctrl-C"))

        restore = _run.interruptible(asyncio.get_running_loop(), interrupt)
        try:
            await asyncio.wait({showing})
        finally:
            restore()
            await asyncio.gather(*background, return_exceptions=True)
        if showing.cancelled():
            raise Left
        await showing


def chat(target: str, session_id: str, *, system: str, profile: str, model: str, as_json: bool) -> None:
    """Talks until the input ends or the person leaves."""
    with asyncio.Runner() as runner:
        client = runner.run(_connect(target))
        talk = Chat(client, system=system, profile=profile, model=model, as_json=as_json)
        try:
            _run.guarded(target, lambda: runner.run(talk.open(session_id)), as_json=as_json)
            _converse(runner, talk, target, as_json=as_json)
        finally:
            runner.run(client.close())
    if talk.session_id and not as_json:
        out.print_line(f"\nGo on with: {out.program()} chat --session {talk.session_id}")


def _converse(runner: asyncio.Runner, talk: Chat, target: str, *, as_json: bool) -> None:
    interactive = sys.stdin.isatty() and not as_json
    if interactive:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives input() line editing and a history
        session = f"session {talk.session_id}" if talk.session_id else "a new session"
        out.print_line(f"{session}; Ctrl-C stops an answer, at the prompt Ctrl-C or Ctrl-D leaves", "dim")
    while True:
        try:
            text = _read(interactive=interactive)
            if text is None:
                return
            if text:
                runner.run(talk.say(text))
        except (KeyboardInterrupt, Left):
            return
        except InferenceCancelledError:
            continue  # by Ctrl-C; its end was shown
        except (TurnwireError, UnicodeError) as error:
            # A person tries again; a program has to know.
            if not interactive or not isinstance(error, RequestError) or isinstance(error, UnavailableError):
                _failure.fail(target, error, as_json=as_json)
            _failure.tell(target, error, as_json=as_json)


def _read(*, interactive: bool) -> str | None:
    """One line without its end, None when there is no more."""
    if interactive:
        try:
            return input("> ").strip()
        except EOFError:
            return None
    line = sys.stdin.readline()
    return line.strip() if line else None


async def _connect(target: str) -> Client:
    return Client.connect(target, policy=_run.POLICY)
