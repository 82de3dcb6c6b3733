"""`turnwire chat`: say something, see the answer stream, answer what it asks, go on.

Ctrl-C stops the answer; a second one leaves.
"""

import asyncio
import contextlib
import importlib
import sys
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal

from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire.v1.tool_pb2 import ToolApproval, ToolDenial, ToolOutcome
from turnwire.v1.turn_pb2 import Block, SystemBlock, UserBlock
from turnwire_client._client import Client
from turnwire_client._debug import Release
from turnwire_client._errors import (
    InferenceCancelledError,
    InferenceFailedError,
    PauseNotFoundError,
    RequestError,
    TurnwireError,
    UnavailableError,
)
from turnwire_client._tools import Required, submit_pending
from turnwire_client.cli import _failure, _run
from turnwire_client.cli import _output as out
from turnwire_client.cli._inferences import Follower
from turnwire_client.cli._person import Person
from turnwire_client.cli._waiting import Wait, Waits

# What `--approve` says about every call that needs approval.
Approval = Literal["all", "none"]


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

    async def open(self, session_id: str) -> Follower | None:
        """Continues a session, and returns its inference that has not ended, if there is one.

        Without a session only looks whether the server is there. Raises RequestError.
        """
        if not session_id:
            async with aclosing(self._client.list_sessions()) as sessions:
                await anext(sessions, None)
            return None
        session = await self._client.get_session(session_id)
        self.session_id = session.session_id
        if session.turn_count:
            self._system = ""  # it is in the turns already
        if not session.HasField("active"):
            return None
        handle = self._client.inference(session.active.inference_id, session_id)
        await handle.get()
        return Follower(self._client, handle, as_json=self._as_json)

    async def say(self, text: str) -> Follower:
        """Starts an inference. Raises RequestError."""
        blocks = [Block(system=SystemBlock(text=self._system))] if self._system else []
        blocks.append(Block(user=UserBlock(text=text)))
        handle = await self._client.start_inference(
            self.session_id or None, blocks, profile=self._profile, config=self._config
        )
        self.session_id = handle.session_id
        self._system = ""
        return Follower(self._client, handle, as_json=self._as_json)

    async def show(self, follower: Follower) -> None:
        """Shows it up to its end. Raises TurnwireError; Waits where it needs answers; Left after a second Ctrl-C."""
        showing = asyncio.ensure_future(follower.follow())
        background: set[asyncio.Task[Any]] = set()
        interrupted = False

        def interrupt() -> None:
            nonlocal interrupted
            if interrupted:
                showing.cancel()
                return
            interrupted = True
            out.stderr.print("\n[yellow]stopping; Ctrl-C again leaves[/]")
            _run.in_background(background, follower.handle.cancel("Ctrl-C"))

        restore = _run.interruptible(asyncio.get_running_loop(), interrupt)
        try:
            await asyncio.wait({showing})
        finally:
            restore()
            await asyncio.gather(*background, return_exceptions=True)
        if showing.cancelled():
            raise Left
        await showing

    async def answer(self, follower: Follower, outcomes: list[ToolOutcome]) -> None:
        """Answers tool calls, those that still wait. Raises RequestError."""
        await submit_pending(follower.handle, outcomes)

    async def decide(self, follower: Follower, required: Required, approval: Approval) -> Required:
        """Approves or denies all that needs it, and returns what is required beside that. Raises RequestError."""
        approved, denied = (ToolApproval(), None) if approval == "all" else (None, ToolDenial())
        outcomes = [ToolOutcome(tool_call=each.id, approved=approved, denied=denied) for each in required.approvals]
        await submit_pending(follower.handle, outcomes)
        return replace(await follower.handle.required(), approvals=())

    async def release(self, pause: str, action: Release) -> None:
        """Releases a pause, unless it has ended meanwhile. Raises RequestError."""
        with contextlib.suppress(PauseNotFoundError):
            await self._client.release_pause(pause, action)


def chat(
    target: str,
    session_id: str,
    *,
    system: str,
    profile: str,
    model: str,
    approve: Approval | None,
    as_json: bool,
) -> None:
    """Talks until the input ends or the person leaves."""
    person = Person() if sys.stdin.isatty() and not as_json else None
    with asyncio.Runner() as runner:
        client = runner.run(_connect(target))
        talk = Chat(client, system=system, profile=profile, model=model, as_json=as_json)
        try:
            under_way = _run.guarded(target, lambda: runner.run(talk.open(session_id)), as_json=as_json)
            Conversation(runner, talk, target, person, approve, as_json=as_json).converse(under_way)
        finally:
            runner.run(client.close())
    if talk.session_id and not as_json:
        out.print_line(f"\nGo on with: {out.program()} chat --session {talk.session_id}")


class Conversation:
    """The turns of a person, who may be a pipe (`person` is None then), and of the model."""

    def __init__(
        self,
        runner: asyncio.Runner,
        talk: Chat,
        target: str,
        person: Person | None,
        approve: Approval | None,
        *,
        as_json: bool,
    ) -> None:
        self._runner = runner
        self._talk = talk
        self._target = target
        self._person = person
        self._approve: Approval | None = approve
        self._as_json = as_json

    def converse(self, under_way: Follower | None) -> None:
        """Goes on with what is under way, if a person is there to see it, then reads and answers to the end."""
        if self._person is not None:
            with contextlib.suppress(ImportError):
                importlib.import_module("readline")  # gives input() line editing and a history
            session = f"session {self._talk.session_id}" if self._talk.session_id else "a new session"
            out.print_line(f"{session}; Ctrl-C stops an answer, at the prompt Ctrl-C or Ctrl-D leaves", "dim")
        else:
            under_way = None  # what is said next is refused, with the name of what is under way
        while True:
            try:
                if under_way is None:
                    text = self._read()
                    if text is None:
                        return
                    under_way = self._runner.run(self._talk.say(text)) if text else None
                if under_way is not None:
                    self._attend(under_way)
            except (KeyboardInterrupt, EOFError, Left):
                return
            except InferenceCancelledError:
                pass  # by Ctrl-C; its end was shown
            except (TurnwireError, UnicodeError, Waits) as error:
                # A person tries again; a program has to know.
                may_go_on = isinstance(error, RequestError | InferenceFailedError)
                if self._person is None or not may_go_on or isinstance(error, UnavailableError):
                    _failure.fail(self._target, error, as_json=self._as_json)
                _failure.tell(self._target, error, as_json=self._as_json)
            under_way = None

    def _attend(self, follower: Follower) -> None:
        """Shows an inference up to its end, and answers what it asks. Raises EOFError for Ctrl-D at a question."""
        while True:  # as often as it waits, which its iterations_max bounds
            try:
                self._runner.run(self._talk.show(follower))
            except Waits as waits:
                self._answer(follower, waits.wait)
            else:
                return

    def _answer(self, follower: Follower, wait: Wait) -> None:
        required = wait.required
        if self._approve is not None and required.approvals:
            required = self._runner.run(self._talk.decide(follower, required, self._approve))
        if not required and wait.pause is None:
            return
        if self._person is None:
            raise Waits(replace(wait, required=required))
        try:
            if wait.pause is not None:
                action = self._person.release(wait.pause)
                self._runner.run(self._talk.release(wait.pause.id, action))
            else:
                self._runner.run(self._talk.answer(follower, self._person.answer(required)))
        except KeyboardInterrupt:
            out.print_line()
            self._runner.run(follower.handle.cancel("Ctrl-C"))

    def _read(self) -> str | None:
        """One line without its end, None when there is no more."""
        if self._person is not None:
            try:
                return input("> ").strip()
            except EOFError:
                return None
        line = sys.stdin.readline()
        return line.strip() if line else None


async def _connect(target: str) -> Client:
    return Client.connect(target, policy=_run.POLICY)
