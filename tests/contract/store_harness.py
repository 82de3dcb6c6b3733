"""What the store suite works with: a store, what it published, a clock that is set, and short ways to say things."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import TypeVar

from turnwire_server.domain.errors import SessionBusyError
from turnwire_server.domain.event import Chunk, Event, LlmDelta, Outcome, Payload, Succeeded
from turnwire_server.domain.inference import ConflictPolicy, FinishClass, Inference, InferenceConfig
from turnwire_server.domain.session import NewSession, Session
from turnwire_server.domain.turn import Block, LlmText, Turn, TurnView, User
from turnwire_server.stores.base import (
    Admission,
    Claim,
    Commit,
    Ending,
    Idempotency,
    OnCommit,
    SessionState,
    SessionStore,
    StartCommand,
)
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.wire.event import decode_frames, encode_event

T = TypeVar("T")

EPOCH = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DONE = Succeeded(FinishClass.COMPLETED)
ADMISSION = Admission("default", "scripted", InferenceConfig(model="m1"))
ALL_BYTES = 1 << 30


def admit(command: StartCommand, state: SessionState) -> Admission:
    """Decide as the contract says: REJECT refuses a session that is busy, all else is accepted."""
    if state.unfinished and command.conflict_policy is ConflictPolicy.REJECT:
        raise SessionBusyError(session_id=state.session.session_id, inference_id=state.unfinished[0].inference_id)
    return ADMISSION


def user(text: str) -> Block:
    """Return a block of a user, without an id."""
    return Block("", User(text))


def llm(text: str) -> Block:
    """Return a block of the model, without an id."""
    return Block("", LlmText(text))


def texts(turn: Turn) -> list[str]:
    """Return what the blocks of a turn say."""
    return [block.kind.text for block in turn.blocks if isinstance(block.kind, User | LlmText)]


def key(name: str, fingerprint: bytes = b"same") -> Idempotency:
    """Return the guard of a start."""
    return Idempotency("StartInference", name, fingerprint)


# Opens a store that publishes, tells the time and mints as it is told.
Open = Callable[[OnCommit, Callable[[], datetime], Callable[[], str]], Awaitable[SessionStore]]


async def open_memory(on_commit: OnCommit, now: Callable[[], datetime], mint: Callable[[], str]) -> SessionStore:
    """Open a MemorySessionStore."""
    return MemorySessionStore(on_commit, now, mint)


def open_sqlite(path: Path) -> Open:
    """Return what opens a SqliteSessionStore on a file."""
    return partial(SqliteSessionStore.open, path)


class Harness:
    """One store under test."""

    store: SessionStore

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.now = EPOCH
        self.mint: Callable[[], str] = map("id-{:06d}".format, count(1)).__next__

    async def open(self, open_store: Open) -> "Harness":
        """Open the store, or open it again."""
        self.store = await open_store(self.commits.extend, lambda: self.now, self.mint)
        return self

    async def end(self) -> None:
        """Check what holds at any time, and close the store."""
        await self.check()
        await self.store.close()

    async def session(self, session_id: str = "s", principal: str = "local") -> Session:
        """Create a session."""
        session, _ = await self.store.create_session(principal, NewSession(session_id), None)
        return session

    async def start(
        self,
        session_id: str = "s",
        *blocks: Block,
        policy: ConflictPolicy = ConflictPolicy.ENQUEUE,
        parent: int | None = None,
        timeout: timedelta | None = None,
        idempotency: Idempotency | None = None,
        principal: str = "local",
    ) -> Inference:
        """Start an inference; without blocks, with one that says `hi`."""
        command = StartCommand(
            principal,
            session_id,
            blocks or (user("hi"),),
            parent,
            conflict_policy=policy,
            timeout=timeout,
            idempotency=idempotency,
        )
        return (await self.store.start(command, admit)).inference

    async def claim(self, owner: str = "me") -> Claim:
        """Claim the one inference that may run."""
        [claim] = await self.store.claim(owner, 10)
        return claim

    async def running(self, session_id: str = "s", *blocks: Block, parent: int | None = None) -> Claim:
        """Start an inference and claim it."""
        await self.start(session_id, *blocks, parent=parent)
        return await self.claim()

    async def turn(self, session_id: str, said: str, *answers: str, parent: int | None = None) -> Inference:
        """Run an inference to its end."""
        claim = await self.running(session_id, user(said), parent=parent)
        return await self.finish(claim, 0, *(llm(answer) for answer in answers))

    async def finish(
        self, claim: Claim, position: int, *blocks: Block, outcome: Outcome = DONE, events: Sequence[bytes] = ()
    ) -> Inference:
        """End a claimed inference."""
        return await self.store.finish(claim.lease, position, Ending(outcome, blocks=blocks, events=tuple(events)))

    def deltas(self, claim: Claim, *pieces: str) -> list[bytes]:
        """Return encoded events of a claimed inference."""
        inference = claim.inference
        return [
            encode_event(Event(inference.session_id, inference.inference_id, self.now, LlmDelta(piece, 0)))
            for piece in pieces
        ]

    async def chunks(self, session_id: str = "s", principal: str = "local") -> tuple[Chunk, ...]:
        """Return the whole log."""
        return (await self.store.read_log(principal, session_id, 0, ALL_BYTES)).chunks

    async def events(self, session_id: str = "s", principal: str = "local") -> list[Event]:
        """Return the events of the whole log."""
        return [event for chunk in await self.chunks(session_id, principal) for event in decode_frames(chunk.data)]

    async def payloads(self, session_id: str = "s") -> list[Payload]:
        """Return what the events of the whole log say."""
        return [event.payload for event in await self.events(session_id)]

    async def full(self, session_id: str, index: int | None) -> Turn:
        """Return a turn with all of its blocks."""
        return (await self.store.get_turn("local", session_id, index, TurnView.FULL, 0, 1000)).turn

    async def check(self) -> None:
        """Check what holds at any time: each log is gapless, and is what was published, byte for byte, in order."""
        published: dict[tuple[str, str], list[Chunk]] = {}
        for commit in self.commits:
            chunks = published.setdefault((commit.principal, commit.session_id), [])
            chunks.extend(commit.chunks)
            if commit.is_deleted:
                del published[commit.principal, commit.session_id]
        for (principal, session_id), chunks in published.items():
            assert list(await self.chunks(session_id, principal)) == chunks
            check_gapless(chunks)


def check_gapless(chunks: Sequence[Chunk], after: int = 0) -> None:
    """Check that chunks continue a log after a sequence, and that their frames say what the chunks say."""
    if not chunks:
        return
    assert chunks[0].first_sequence == after + 1
    assert all(left.last_sequence + 1 == right.first_sequence for left, right in pairwise(chunks))
    for chunk in chunks:
        events = decode_frames(chunk.data)
        assert [event.sequence for event in events] == list(range(chunk.first_sequence, chunk.last_sequence + 1))
        assert {event.inference_id for event in events} == {chunk.inference_id}


async def gather(*calls: Awaitable[T]) -> list[T | BaseException]:
    """Make calls at the same time; return results and errors."""
    return await asyncio.gather(*calls, return_exceptions=True)
