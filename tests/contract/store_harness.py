"""What the store suite works with: a store, what it published, a clock that is set, and short ways to say things."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, TypeVar

from turnwire_server.domain.errors import SessionBusyError
from turnwire_server.domain.event import Chunk, Event, InferenceFinished, LlmDelta, Outcome, Payload, Succeeded
from turnwire_server.domain.inference import ConflictPolicy, FinishClass, Inference, InferenceConfig, InferenceState
from turnwire_server.domain.session import NewSession, Session
from turnwire_server.domain.turn import Block, LlmText, SnapshotMark, SnapshotPhase, Turn, TurnSnapshot, TurnView, User
from turnwire_server.stores.base import Amend, Amendment, Commit, OnCommit, SessionStore, Waiting
from turnwire_server.stores.lease import Claim, Effect, Ending, Step
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand
from turnwire_server.wire.event import decode_frames, encode_event

T = TypeVar("T")

EPOCH = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DONE = Succeeded(FinishClass.COMPLETED)
ADMISSION = Admission("default", "scripted", InferenceConfig(model="m1"))
ALL_BYTES = 1 << 30
PRINCIPALS = ("local", "other")

# The states in which an inference is active though nobody has a lease over it: handed back, or waiting for its client.
WAITS = (InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED)
LEASELESS = (InferenceState.QUEUED, *WAITS)
FOREVER = timedelta(days=365 * 1000)

# More sweeps than any test leaves work for.
_SWEEPS_MAX = 1000


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


def marks(harness: "Harness", *block_counts: int) -> tuple[SnapshotMark, ...]:
    """Return marks of a turn that had so many blocks, one phase after the other."""
    phased = zip(SnapshotPhase, block_counts, strict=False)
    return tuple(SnapshotMark(phase, 1, block_count, harness.now) for phase, block_count in phased)


def texts(turn: Turn) -> list[str]:
    """Return what the blocks of a turn say."""
    return [block.kind.text for block in turn.blocks if isinstance(block.kind, User | LlmText)]


def key(name: str, fingerprint: bytes = b"same") -> Idempotency:
    """Return the guard of a start."""
    return Idempotency("StartInference", name, fingerprint)


def by_call(effects: Sequence[Effect]) -> dict[str, bytes | None]:
    """Return what came of tool calls."""
    return {effect.call: effect.outcome for effect in effects}


def answer(checkpoint: bytes = b"answered", *, is_released: bool = True, outcome: Outcome | None = None) -> Amend:
    """Return what takes an answer, whatever is waited for."""
    return lambda _: Amendment(checkpoint, is_released=is_released, outcome=outcome)


# Opens a store that publishes, tells the time and mints as it is told.
Open = Callable[[OnCommit, Callable[[], datetime], Callable[[], str]], Awaitable[SessionStore]]


async def open_memory(on_commit: OnCommit, now: Callable[[], datetime], mint: Callable[[], str]) -> SessionStore:
    """Open a MemorySessionStore."""
    return MemorySessionStore(on_commit, now, mint)


def open_sqlite(path: Path) -> Open:
    """Return what opens a SqliteSessionStore on a file."""
    return partial(SqliteSessionStore.open, path)


class Harness:
    """One store under test. What it says to the store it says for the owner `me`, unless another one is named."""

    store: SessionStore

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.now = EPOCH
        self.mint: Callable[[], str] = map("id-{:06d}".format, count(1)).__next__

    async def open(self, open_store: Open, *, owner: str = "me") -> "Harness":
        """Open the store, or open it again; register an owner unless that is empty."""
        self.store = await open_store(self._publish, lambda: self.now, self.mint)
        if owner:
            await self.store.register(owner)
        return self

    def _publish(self, commits: Sequence[Commit]) -> None:
        asyncio.get_running_loop()  # raises unless this is called on the event loop
        self.commits.extend(commits)

    async def end(self) -> None:
        """Check what holds at any time, and close the store."""
        await self.check()
        await self.store.close()

    async def session(self, session_id: str = "s", principal: str = "local", **fields: Any) -> Session:
        """Create a session."""
        new = NewSession(session_id, **fields)
        session, _ = await self.store.create_session(principal, new, self.mint(), None)
        return session

    async def fork(self, session_id: str, origin: str = "s", index: int | None = None, **fields: Any) -> Session:
        """Fork a session."""
        new = NewSession(session_id, **fields)
        session, _ = await self.store.fork_session("local", origin, index, new, self.mint(), None)
        return session

    async def delete(self, session_id: str = "s", *, force: bool = False) -> None:
        """Delete a session."""
        await self.store.delete_session("local", session_id, None, force=force)

    def command(self, target: str | NewSession = "s", *blocks: Block, **fields: Any) -> StartCommand:
        """Return a start that nobody has sent yet."""
        return StartCommand("local", self.mint(), target, blocks, **fields)

    async def start(
        self,
        session_id: str = "s",
        *blocks: Block,
        policy: ConflictPolicy = ConflictPolicy.ENQUEUE,
        principal: str = "local",
        **fields: Any,
    ) -> Inference:
        """Start an inference; without blocks, with one that says `hi`."""
        said = blocks or (user("hi"),)
        command = StartCommand(principal, self.mint(), session_id, said, conflict_policy=policy, **fields)
        return (await self.store.start(command, admit)).inference

    async def claims(self, owner: str = "me", limit: int = 10) -> tuple[Claim, ...]:
        """Claim what may run."""
        return await self.store.claim(owner, [self.mint() for _ in range(limit)])

    async def claim(self, owner: str = "me") -> Claim:
        """Claim the one inference that may run."""
        [claim] = await self.claims(owner)
        return claim

    async def again(self, claim: Claim, owner: str = "me") -> Claim:
        """Return a claim as it is now: its token is sent again."""
        [same] = await self.store.claim(owner, [claim.lease.token])
        return same

    async def running(self, session_id: str = "s", *blocks: Block, **fields: Any) -> Claim:
        """Start an inference and claim it."""
        await self.start(session_id, *blocks, **fields)
        return await self.claim()

    async def leaseless(
        self, session_id: str, then: InferenceState, *blocks: Block, wake_time: datetime | None = None, **fields: Any
    ) -> Claim:
        """Run an inference until it is active without a lease, in a state of LEASELESS, at position 1 with one step."""
        claim = await self.running(session_id, **fields)
        is_handed_back = then is InferenceState.QUEUED
        moved = InferenceState.RUNNING if is_handed_back else then
        events = tuple(self.deltas(claim, "waits"))
        step = Step(1, blocks, events=events, checkpoint=b"waits", then=moved, wake_time=wake_time)
        await self.store.commit_step(claim.lease, 0, step)
        if is_handed_back:
            await self.store.hand_back(claim.lease, 1, is_loss=False)
        return claim

    async def waiting(self, session_id: str = "s", *blocks: Block, **fields: Any) -> Claim:
        """Run an inference until it waits for its client, as `leaseless` does."""
        return await self.leaseless(session_id, InferenceState.WAITING_FOR_TOOLS, *blocks, **fields)

    async def turn(self, session_id: str, said: str, *answers: str, **fields: Any) -> Inference:
        """Run an inference to its end."""
        claim = await self.running(session_id, user(said), **fields)
        return await self.finish(claim, 0, *map(llm, answers))

    async def finish(
        self, claim: Claim, position: int, *blocks: Block, outcome: Outcome = DONE, events: Sequence[bytes] = ()
    ) -> Inference:
        """End a claimed inference."""
        return await self.store.finish(claim.lease, position, Ending(outcome, blocks=blocks, events=tuple(events)))

    async def lose(self, claim: Claim, owner: str = "me") -> None:
        """Let an owner lose track of what it runs."""
        await self.store.revoke(owner, [claim.lease.token])

    async def cancel(self, inference: Inference, reason: str = "") -> Inference:
        """Request a cancel."""
        return await self.store.request_cancel("local", inference.inference_id, reason)

    async def amend(self, claim: Claim, decide: Amend | None = None) -> Inference:
        """Take an answer to an inference that waits; by default, the one that releases it."""
        return await self.store.amend("local", claim.inference.inference_id, self.mint(), decide or answer())

    async def look(self, claim: Claim) -> Waiting:
        """Return what an answer to an inference would be decided on; nothing is changed."""
        seen: list[Waiting] = []

        def decide(waiting: Waiting) -> Amendment:
            seen.append(waiting)
            raise LookedAt

        await gather(self.amend(claim, decide))
        return seen[0]

    async def sweep(self) -> None:
        """Sweep until there is nothing more to do."""
        for _ in range(_SWEEPS_MAX):
            if not await self.store.sweep(self.now):
                return
        raise AssertionError

    async def get(self, inference: Inference) -> Inference:
        """Return an inference as it is now."""
        return await self.store.get_inference("local", inference.inference_id)

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
        return events_of(await self.chunks(session_id, principal))

    async def payloads(self, session_id: str = "s") -> list[Payload]:
        """Return what the events of the whole log say."""
        return [event.payload for event in await self.events(session_id)]

    async def full(self, session_id: str, index: int | None) -> Turn:
        """Return a turn with all of its blocks."""
        return (await self.store.get_turn("local", session_id, index, TurnView.FULL, 0, 1000)).turn

    async def inferences(self, principal: str, session_id: str) -> tuple[Inference, ...]:
        """Return the inferences of a session, the newest first."""
        return (await self.store.list_inferences(principal, session_id, (), 1000, None)).items

    async def positions(self, *inferences: Inference) -> list[int | None]:
        """Return where inferences are in the line now."""
        return [(await self.get(inference)).queue_position for inference in inferences]

    async def snapshots(self, inference: Inference, principal: str = "local") -> tuple[TurnSnapshot, ...]:
        """Return the snapshots of an inference's turn."""
        return (await self.store.list_turn_snapshots(principal, inference.inference_id, None, 1000, None)).items

    async def due(self, age: timedelta = timedelta(0)) -> list[str]:
        """Return the inferences that have waited long enough once some time has passed."""
        return [due.inference_id for due in await self.store.find_due(self.now + age, 1000)]

    async def everything(self) -> list[object]:
        """Return all that can be read of all sessions."""
        told: list[object] = []
        for principal in PRINCIPALS:
            for session in (await self.store.list_sessions(principal, {}, 1000, None)).items:
                name = principal, session.session_id
                told += [session, await self.store.read_base(*name), await self.store.read_log(*name, 0, ALL_BYTES)]
                told.append(await self.store.list_inferences(*name, (), 1000, None))
                told.append(await self.store.list_turns(*name, TurnView.FULL, 1000, None, newest_first=False))
                told += [await self.snapshots(each, principal) for each in await self.inferences(*name)]
            told += [await self.store.list_waiting(principal, "", state, 1000, None) for state in WAITS]
        return [*told, await self.due(FOREVER)]

    async def check(self) -> None:
        """Check what holds at any time: logs are what was published, byte for byte, and inferences are as they say."""
        for (principal, session_id), chunks in published(self.commits).items():
            check_log(chunks)
            base = await self.store.read_base(principal, session_id)
            head = chunks[-1].last_sequence if chunks else 0
            kept = [part for chunk in chunks if (part := chunk.cut(base.through_sequence, head))]
            assert list(await self.chunks(session_id, principal)) == kept
            moved = {chunk.inference_id: chunk.state for chunk in chunks if chunk.state}
            for inference_id, state in moved.items():
                assert (await self.store.get_inference(principal, inference_id)).state is state
            page = await self.store.list_inferences(principal, session_id, (), 1000, None)
            for listed in page.items:  # a store may keep some at hand
                assert await self.store.get_inference(principal, listed.inference_id) == listed


class LookedAt(Exception):  # noqa: N818 - not an error, but the end of a look
    """A decision was only looked at."""


def published(commits: Sequence[Commit]) -> dict[tuple[str, str], list[Chunk]]:
    """Return the log of each session that was not deleted, as it was published; check the others."""
    logs: dict[tuple[str, str], list[Chunk]] = {}
    for commit in commits:
        name = commit.principal, commit.session_id
        logs.setdefault(name, []).extend(commit.chunks)
        if commit.is_deleted:
            unfinished = check_log(logs.pop(name))
            assert not unfinished
    return logs


def events_of(chunks: Sequence[Chunk]) -> list[Event]:
    """Return the events of chunks."""
    return [event for chunk in chunks for event in decode_frames(chunk.data)]


def check_log(chunks: Sequence[Chunk]) -> set[str]:
    """Check that a whole log is gapless, and that ends are final and count right; return what it leaves unfinished."""
    check_gapless(chunks)
    counts: Counter[str] = Counter()
    ended: set[str] = set()
    for event in events_of(chunks):
        assert event.inference_id not in ended
        counts[event.inference_id] += 1
        if isinstance(event.payload, InferenceFinished):
            ended.add(event.inference_id)
            assert event.payload.event_count == counts[event.inference_id]
    return counts.keys() - ended


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
