"""The store of tests and of servers that may forget: everything is in this process, and nothing survives it.

It is the model that the other stores are compared with, so it is written to be obviously right: what a call may refuse,
it refuses before it changes anything.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from turnwire_server.domain.errors import (
    NoActiveInferenceError,
    SessionBusyError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotFoundError,
)
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange, StepMode
from turnwire_server.domain.turn import SnapshotPhase, Turn, TurnSnapshot, TurnView
from turnwire_server.stores import memory_leases as leases
from turnwire_server.stores import memory_sessions as sessions
from turnwire_server.stores import memory_starts as starts
from turnwire_server.stores import memory_waits as waits
from turnwire_server.stores.base import Amend, Base, Due, OnCommit, Retired, Waiting
from turnwire_server.stores.intake import (
    block_content,
    changed_session,
    check_cut,
    check_revision,
    inference_bytes,
    session_bytes,
    snapshot_bytes,
)
from turnwire_server.stores.lease import Claim, Effect, Ending, Heartbeat, Lease, Step
from turnwire_server.stores.memory_nouns import HeldSession, HeldTurn
from turnwire_server.stores.memory_state import State
from turnwire_server.stores.page import LogPage, Page, TurnPage, take_chunks, take_listing, take_page
from turnwire_server.stores.start import Decide, Idempotency, Seat, StartCommand, Started

T = TypeVar("T")


class MemorySessionStore:
    """The SessionStore that keeps nothing. All of its calls are atomic, because none of them awaits anything."""

    def __init__(self, on_commit: OnCommit, now: Callable[[], datetime], mint: Mint) -> None:
        self._on_commit = on_commit
        self._now = now
        self._mint = mint
        self._open: State | None = State(now, mint)  # None once it is closed

    @property
    def _state(self) -> State:
        if self._open is None:
            raise StoreUnavailableError("the store is closed", is_definite=True)
        return self._open

    async def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore."""
        return sessions.create_session(self._state, principal, new, token, idempotency, check)

    async def get_session(self, principal: str, session_id: str) -> Session:
        """See SessionStore."""
        return self._state.session(principal, session_id).shown()

    async def list_sessions(
        self, principal: str, labels: Mapping[str, str], limit: int, before: int | None
    ) -> Page[Session]:
        """See SessionStore."""
        found = [
            held
            for held in self._state.sessions.values()
            if held.principal == principal and labels.items() <= dict(held.session.labels).items()
        ]
        newest = _newest_first([(held.key, held) for held in found], before)
        return take_listing(((key, held.shown()) for key, held in newest), limit, session_bytes)

    async def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None, token: str
    ) -> Session:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        if self._state.has_used(token):
            return held.shown()
        check_revision(held.session, revision)
        changed = changed_session(held.session, change, self._now())
        session_bytes(changed)
        held.session = changed
        self._state.use(token)
        return held.shown()

    async def delete_session(
        self, principal: str, session_id: str, revision: int | None, *, force: bool, log: str = ""
    ) -> None:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        if log not in ("", held.session.log):
            raise SessionNotFoundError(session_id=session_id)
        check_revision(held.session, revision)
        if (line := held.line()) and not force:
            raise SessionBusyError(session_id=session_id, inference_id=line[0].inference.inference_id)
        self._state.drop(held)
        self._publish()

    async def start(self, command: StartCommand, decide: Decide, seat: Seat | None = None) -> Started:
        """See SessionStore."""
        started = starts.start(self._state, command, decide, seat)
        self._publish()
        return started

    async def fork_session(
        self,
        principal: str,
        session_id: str,
        index: int | None,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore."""
        return sessions.fork_session(self._state, principal, session_id, index, new, token, idempotency, check)

    async def get_first_in_line(self, principal: str, session_id: str) -> Inference:
        """See SessionStore."""
        line = self._state.session(principal, session_id).line()
        if not line:
            raise NoActiveInferenceError(session_id=session_id)
        return line[0].shown()

    async def request_cancel(self, principal: str, inference_id: str, reason: str) -> Inference:
        """See SessionStore."""
        held = self._state.inference(principal, inference_id)
        self._state.cancel(held, reason)
        self._publish()
        return held.shown()

    async def set_step_mode(self, principal: str, session_id: str, step_mode: StepMode | None, token: str) -> Session:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        if not self._state.has_used(token):
            held.session = replace(held.session, step_mode=step_mode)
            self._state.use(token)
        return held.shown()

    async def amend(
        self,
        principal: str,
        inference_id: str,
        token: str,
        decide: Amend,
        idempotency: Idempotency | None = None,
    ) -> Inference:
        """See SessionStore."""
        held = waits.amend(self._state, principal, inference_id, token, decide, idempotency)
        self._publish()
        return held.shown()

    async def list_waiting(
        self, principal: str, session_id: str, state: InferenceState, limit: int, after: int | None
    ) -> Page[Waiting]:
        """See SessionStore."""
        return waits.list_waiting(self._state, principal, session_id, state, limit, after)

    async def find_due(self, now: datetime, limit: int) -> tuple[Due, ...]:
        """See SessionStore."""
        return waits.find_due(self._state, now, limit)

    async def register(self, owner: str) -> None:
        """See SessionStore."""
        self._state.beats.setdefault(owner, 0)

    async def heartbeat(self, owner: str) -> Heartbeat:
        """See SessionStore."""
        return leases.heartbeat(self._state, owner)

    async def declare_dead(self, owner: str, beat: int) -> bool:
        """See SessionStore."""
        return leases.declare_dead(self._state, owner, beat)

    async def revoke(self, owner: str, tokens: Collection[str]) -> None:
        """See SessionStore."""
        leases.revoke(self._state, owner, tokens)

    async def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """See SessionStore."""
        claims = leases.claim(self._state, owner, tokens, only_lost=only_lost)
        self._publish()
        return claims

    async def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """See SessionStore."""
        leases.append(self._state, lease, position, events)
        self._publish()

    async def record_effects(
        self, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes] = ()
    ) -> None:
        """See SessionStore."""
        leases.record_effects(self._state, lease, position, effects, events)
        self._publish()

    async def commit_step(self, lease: Lease, position: int, step: Step) -> Inference:
        """See SessionStore."""
        held = leases.commit_step(self._state, lease, position, step)
        self._publish()
        return held.shown()

    async def hand_back(self, lease: Lease, position: int, *, is_loss: bool) -> Inference:
        """See SessionStore."""
        held = leases.hand_back(self._state, lease, position, is_loss=is_loss)
        self._publish()
        return held.shown()

    async def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """See SessionStore."""
        held = leases.finish(self._state, lease, position, ending)
        self._publish()
        return held.shown()

    async def sweep(self, now: datetime) -> bool:
        """See SessionStore."""
        has_more = leases.sweep(self._state, now)
        self._publish()
        return has_more

    async def get_inference(self, principal: str, inference_id: str) -> Inference:
        """See SessionStore."""
        return self._state.inference(principal, inference_id).shown()

    async def list_inferences(
        self, principal: str, session_id: str, states: Sequence[InferenceState], limit: int, before: int | None
    ) -> Page[Inference]:
        """See SessionStore."""
        found = self._state.session(principal, session_id).inferences
        among = [(held.key, held) for held in found if not states or held.inference.state in states]
        newest = _newest_first(among, before)
        return take_listing(((key, held.shown()) for key, held in newest), limit, inference_bytes)

    async def read_log(
        self, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str = ""
    ) -> LogPage:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        chunks = [chunk for chunk in held.chunks if inference_id in ("", chunk.inference_id)]
        taken, through = take_chunks(chunks, after, held.head, limit_bytes)
        return LogPage(held.session.log, held.base.through_sequence + 1, held.head, taken, through)

    async def read_base(self, principal: str, session_id: str) -> Base:
        """See SessionStore."""
        return self._state.session(principal, session_id).base

    async def compact(self, principal: str, session_id: str, base: Base) -> None:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        if base.through_sequence <= held.base.through_sequence:
            return
        check_cut(base.through_sequence, held.head, (each.inference.first_sequence for each in held.line()))
        rest = (chunk.cut(base.through_sequence, held.head) for chunk in held.chunks)
        held.chunks = [chunk for chunk in rest if chunk]
        held.base = base

    async def list_turn_snapshots(
        self, principal: str, inference_id: str, phase: SnapshotPhase | None, limit: int, after: int | None
    ) -> Page[TurnSnapshot]:
        """See SessionStore."""
        found = self._state.inference(principal, inference_id).snapshots(phase, -1 if after is None else after)
        return take_listing(found, limit, snapshot_bytes)

    async def find_retired(self, ended_before: datetime, limit: int, skip: int) -> tuple[Retired, ...]:
        """See SessionStore."""
        return sessions.find_retired(self._state, ended_before, limit, skip)

    async def get_turn(
        self, principal: str, session_id: str, index: int | None, view: TurnView, offset: int, limit: int
    ) -> TurnPage:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        turns = held.turns
        wanted = len(turns) - 1 if index is None else index
        if wanted not in range(len(turns)):
            raise TurnNotFoundError(session_id=session_id, index=max(wanted, 0))
        blocks = turns[wanted].blocks(view)
        page, _ = take_page((block, len(block_content(block))) for block in blocks[offset : offset + limit])
        reached = offset + len(page)
        return TurnPage(held.show(turns[wanted], page), reached if reached < len(blocks) else None)

    async def list_turns(
        self, principal: str, session_id: str, view: TurnView, limit: int, cursor: int | None, *, newest_first: bool
    ) -> Page[Turn]:
        """See SessionStore."""
        held = self._state.session(principal, session_id)
        if newest_first:
            wanted = [turn for turn in reversed(held.turns) if cursor is None or turn.turn.index <= cursor]
        else:
            wanted = [turn for turn in held.turns if cursor is None or turn.turn.index >= cursor]
        page, _ = take_page(_with_blocks(held, turn, view) for turn in wanted[:limit])
        return Page(tuple(page), wanted[len(page)].turn.index if len(page) < len(wanted) else None)

    async def close(self) -> None:
        """See SessionStore."""
        self._open = None

    def _publish(self) -> None:
        commits, self._state.commits = self._state.commits, []
        if commits:
            self._on_commit(commits)


def _newest_first(held: Iterable[tuple[int, T]], before: int | None) -> list[tuple[int, T]]:
    """Return what has keys below `before`, newest first."""
    return sorted(((key, each) for key, each in held if before is None or key < before), key=_key, reverse=True)


def _key(keyed: tuple[int, object]) -> int:
    return keyed[0]


def _with_blocks(held: HeldSession, turn: HeldTurn, view: TurnView) -> tuple[Turn, int]:
    sizes = ((block, len(block_content(block))) for block in turn.blocks(view))
    taken, _ = take_page(((block, size), size) for block, size in sizes)
    return held.show(turn, (block for block, _ in taken)), turn.size() + sum(size for _, size in taken)
