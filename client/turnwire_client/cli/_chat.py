"""`turnwire chat`: say something, see the answer stream, go on. Ctrl-C stops the answer; a second one leaves."""

import asyncio
import contextlib
import importlib
import sys
from typing import Any

from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire.v1.turn_pb2 import Block, SystemBlock, UserBlock
from turnwire_client._client import Client
from turnwire_client._errors import InferenceCancelledError, RequestError, TurnwireError, UnavailableError
from turnwire_client._handle import InferenceHandle
from turnwire_client.cli import _output as out
from turnwire_client.cli import _run
from turnwire_client.cli._sessions import follow_inference


class Left(Exception):  # noqa: N818 - not an error: the person wants to leave
    """The person wants to leave."""


class Chat:
    """One session, and what every inference of it is started with."""

    def __init__(self, client: Client, *, system: str, profile: str, model: str, as_json: bool) -> None:
        self._client = client
        self._system = system
        self._profile = profile
        self._config = InferenceConfig(model=model) if model else None
        self._as_json = as_json
        self.session_id = ""

    async def open(self, session_id: str) -> None:
        """Continues a session, or creates one. Raises RequestError."""
        session = await (self._client.get_session(session_id) if session_id else self._client.create_session())
        self.session_id = session.session_id
        if session.turn_count:
            self._system = ""  # it is in the turns already

    async def say(self, text: str) -> None:
        """Starts an inference and shows it. Raises TurnwireError; Left after a second Ctrl-C."""
        blocks = [Block(system=SystemBlock(text=self._system))] if self._system else []
        blocks.append(Block(user=UserBlock(text=text)))
        handle = await self._client.start_inference(self.session_id, blocks, profile=self._profile, config=self._config)
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
            _run.guarded(target, lambda: runner.run(talk.open(session_id)))
            _converse(runner, talk, target, as_json=as_json)
        finally:
            runner.run(client.close())
    if not as_json:
        out.print_line(f"\nGo on with: {_run.program()} chat --session {talk.session_id}")


def _converse(runner: asyncio.Runner, talk: Chat, target: str, *, as_json: bool) -> None:
    interactive = sys.stdin.isatty() and not as_json
    if interactive:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives input() line editing and a history
        out.print_line(f"session {talk.session_id}; Ctrl-C stops an answer, Ctrl-D leaves", "dim")
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
        except TurnwireError as error:
            # A person tries again; a program has to know.
            if not interactive or not isinstance(error, RequestError) or isinstance(error, UnavailableError):
                _run.fail(target, error)
            _run.tell(target, error)


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
