"""The SessionStore port: every call is one transaction that changes state and appends the events that tell of it.

Rules that every implementation keeps, and that stores' one test suite checks:

- The sequence of an event is given under the session's lock and becomes visible with the commit, so every prefix that a
  reader sees is gapless.
- A call returns only after its commit is durable; committed chunks go to the `on_commit` callback that the store was
  built with, in the order of their sequences, before the call returns.
- Everything is keyed by (principal, session_id). What belongs to another principal looks like what does not exist.
- An inference is written under its lease only: a call with another lease, or from another position, is Fenced and
  changes nothing.
- At most one inference of a session is active; the schema itself enforces it.
- However an inference ends, a turn of it that has snapshots gets one more, of the phase FINAL: with all blocks that it
  has then, and with the iteration of the newest snapshot before. No caller brings that one.
- A call that raises changed nothing, also when it raises for what cannot be encoded. Only after a StoreUnavailableError
  that is not definite it may have happened. Then it is sent again: **every call may be sent again**, as it was, until
  it answers. The second answer is the first one's, or what became of it since. That is what the ids and tokens are for
  that callers mint.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from turnwire_server.domain.event import Chunk, Outcome
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange, StepMode
from turnwire_server.domain.turn import Block, SnapshotPhase, Turn, TurnSnapshot, TurnView
from turnwire_server.stores.lease import Claim, Effect, Ending, Heartbeat, Lease, Step
from turnwire_server.stores.page import LogPage, Page, TurnPage
from turnwire_server.stores.start import Decide, Idempotency, Seat, StartCommand, Started

# How long after its deadline a running inference is taken from an owner that did not end it.
OVERDUE_SECONDS = 10.0

# How long the token of a call is remembered at least, and so how long the call may be sent again.
TOKEN_AGE_MIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An inference that is WAITING_FOR_TOOLS or PAUSED, and where it goes on: as committed, or as amended since."""

    inference: Inference
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Amendment:
    """What a client's answer changes of an inference that waits: a new checkpoint, more blocks, and encoded events.

    `is_released`: there is nothing more to wait for, so it goes back to the line, as the first. `outcome`: it ends with
    that instead, a Failed or a Cancelled, after the events.
    """

    checkpoint: bytes
    events: tuple[bytes, ...] = ()
    blocks: tuple[Block, ...] = ()
    is_released: bool = True
    outcome: Outcome | None = None


# Decides on a client's answer inside the store's transaction, as Decide does on a start.
Amend = Callable[[Waiting], Amendment]


@dataclass(frozen=True, slots=True)
class Due:
    """An inference that waits for its client, and has waited long enough."""

    principal: str
    inference_id: str


@dataclass(frozen=True, slots=True)
class Retired:
    """A log whose events up to `through_sequence` may go: they are of inferences that ended long enough ago."""

    principal: str
    session_id: str
    through_sequence: int


@dataclass(frozen=True, slots=True)
class Base:
    """Where a log begins: after `through_sequence`, 0 for a whole log. `fold` is what the events before amount to."""

    through_sequence: int = 0
    fold: bytes = b""


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit appended to one session's log. `is_deleted`: after that, the session and its log were deleted."""

    principal: str
    session_id: str
    chunks: tuple[Chunk, ...] = ()
    is_deleted: bool = False


# Called on the event loop, once per commit, with everything that it appended. It must not block.
OnCommit = Callable[[Sequence[Commit]], None]


class SessionStore(Protocol):
    """Sessions, turns, inferences and their event logs."""

    async def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """Create a session that has a session_id; return it and whether this call created it.

        `token`, minted by the caller, becomes the identity of the session's log.
        `check` is called after the idempotency gate and before anything else, inside the transaction, on whatever
        thread that runs: pure, and fast. It raises a RequestError to refuse; then the key stays free.

        Errors: SessionAlreadyExistsError, IdempotencyKeyReusedError; SessionNotFoundError when what the key made is
        gone; what `check` raises.
        """
        ...

    async def get_session(self, principal: str, session_id: str) -> Session:
        """Return a session. Errors: SessionNotFoundError."""
        ...

    async def list_sessions(
        self, principal: str, labels: Mapping[str, str], limit: int, before: int | None
    ) -> Page[Session]:
        """Return the sessions that have all `labels`, newest first, from the cursor `before` on.

        A page of a listing also ends once it has 1 MiB; it has at least one item if there is one.
        """
        ...

    async def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None, token: str
    ) -> Session:
        """Change a session that is at `revision`, or at any when None. `token`, minted by the caller, names the call.

        Errors: SessionNotFoundError, RevisionMismatchError.
        """
        ...

    async def delete_session(
        self, principal: str, session_id: str, revision: int | None, *, force: bool, log: str = ""
    ) -> None:
        """Delete a session and all that belongs to it. With `force`, what has not ended is cancelled first.

        `log`: only the session that has this log. Only the idempotency keys are left of it, for as long as the contract
        says; its space is given back by sweep().

        Errors: SessionNotFoundError, RevisionMismatchError, SessionBusyError.
        """
        ...

    async def start(self, command: StartCommand, decide: Decide, seat: Seat | None = None) -> Started:
        """Accept an inference: the idempotency gate, then existence, then `decide`, then QUEUED and its event.

        With a `seat`, what has nobody before it in its session's line is claimed with that at once, as claim() does it;
        it stays QUEUED if the owner of the seat is not known, or not any more. A call that its caller gave up takes no
        seat once a claim was answered that has the token of the seat.

        With INTERRUPT and ROLLBACK it displaces what is active, or else what is first in line, and is the first then.
        What it displaces is told to cancel, and ends at once unless it is RUNNING. With ROLLBACK it is for the parent
        of that one, unless it names another: the one of its turn, or else the one that it was itself started for.

        Errors: those of create_session for a new session, SessionNotFoundError, TurnNotFoundError, what `decide`
        raises.
        """
        ...

    async def get_first_in_line(self, principal: str, session_id: str) -> Inference:
        """Return the inference of a session that is active, or else the one that runs next.

        Errors: SessionNotFoundError, NoActiveInferenceError.
        """
        ...

    async def request_cancel(self, principal: str, inference_id: str, reason: str) -> Inference:
        """Request a cancel of an inference. It ends at once unless it is RUNNING.

        Errors: InferenceNotFoundError.
        """
        ...

    async def set_step_mode(self, principal: str, session_id: str, step_mode: StepMode | None, token: str) -> Session:
        """Turn step mode on or off, without a new revision. `token`, minted by the caller, names the call.

        Errors: SessionNotFoundError.
        """
        ...

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
        """Create a session, as create_session does, that shares the turns of another one up to an index.

        Nothing is copied, and the turns outlive the session that they come from. `index` None: the last one such that
        all turns up to it are CLOSED.

        Errors: those of create_session; SessionNotFoundError for the origin, TurnNotFoundError, TurnNotClosedError.
        """
        ...

    async def amend(
        self,
        principal: str,
        inference_id: str,
        token: str,
        decide: Amend,
        idempotency: Idempotency | None = None,
    ) -> Inference:
        """Take an answer to an inference that is WAITING_FOR_TOOLS or PAUSED. `token`, minted by the caller, names it.

        With `idempotency` the gate comes first, before the state is looked at: a repeat changes nothing. A call that
        raises leaves the key free.

        Errors: InferenceNotFoundError, IdempotencyKeyReusedError, InferenceNotWaitingError, what `decide` raises.
        """
        ...

    async def list_waiting(
        self, principal: str, session_id: str, state: InferenceState, limit: int, after: int | None
    ) -> Page[Waiting]:
        """Return the inferences in one of the waiting states, of a session or of all for an empty session_id.

        The oldest come first, behind the cursor `after`. Bounded as list_sessions is.

        Errors: SessionNotFoundError.
        """
        ...

    async def find_due(self, now: datetime, limit: int) -> tuple[Due, ...]:
        """Return inferences that wait for their client and whose `Step.wake_time` has come, the longest due first.

        Cheap enough to be called several times a second, whatever waits.
        """
        ...

    async def register(self, owner: str) -> None:
        """Make an owner known that may claim from now on."""
        ...

    async def heartbeat(self, owner: str) -> Heartbeat:
        """Say that an owner lives; its beats go up by at least 1 if it runs something. Return what it has to know.

        Cheap enough to be called several times a second, however much runs.

        Errors: DeclaredDead.
        """
        ...

    async def declare_dead(self, owner: str, beat: int) -> bool:
        """Revoke all leases of an owner that still is at `beat`; return whether it is dead now, and can do nothing."""
        ...

    async def revoke(self, owner: str, tokens: Collection[str]) -> None:
        """Revoke leases of `owner` that it lost track of. Their inferences wait to be recovered."""
        ...

    async def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """Lease inferences to an owner, at most one per token, the oldest first: what is lost, and what may run next.

        With `only_lost`, only what is lost. An owner that is given something has beaten with that.

        What is first in its session's line moves to RUNNING; on the first claim its turn is opened: its index is given,
        its parent chosen. What is RUNNING with its lease revoked is leased as it is (`Claim.is_lost`). The caller mints
        the tokens, and never uses one for anything else: what they were given out for before is returned again, first.

        Errors: DeclaredDead.
        """
        ...

    async def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """Append encoded events (without sequence) of a running inference. Errors: Fenced."""
        ...

    async def record_effects(
        self, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes] = ()
    ) -> None:
        """Commit that tool calls are about to be executed, or what came of them, and append encoded events.

        An effect with an outcome must have been recorded without one before; one that has an outcome keeps it.

        Errors: Fenced; LookupError for the outcome of a call that was never recorded.
        """
        ...

    async def commit_step(self, lease: Lease, position: int, step: Step) -> Inference:
        """Commit a step: its blocks are in the turn, whatever becomes of the attempt, and the effects are settled.

        Where the inference would wait for its client and a cancel is requested, it ends instead.

        Errors: Fenced; ValueError for a wait that no event tells of.
        """
        ...

    async def hand_back(self, lease: Lease, position: int, *, is_loss: bool) -> Inference:
        """Put a running inference back to its line, as the first, to be continued at its last step.

        The event that tells of it makes all void that was appended since. `is_loss` counts it as a lost attempt. If a
        cancel is requested, it ends after that.

        Errors: Fenced.
        """
        ...

    async def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """End a running inference: append `ending.events`, add its blocks, close its turn, tell the end.

        The snapshot FINAL comes behind `ending.marks`, as it does for every end.

        Errors: Fenced.
        """
        ...

    async def sweep(self, now: datetime) -> bool:
        """Do what time or a deletion has made due, as much as is quick; return if there is more.

        What has passed its deadline ends FAILED with DEADLINE_EXCEEDED; if it is RUNNING, its lease is revoked
        OVERDUE_SECONDS after that, unless it is being recovered already. Sessions are deleted whose expire_time has
        come, unless an inference of them has not ended. Idempotency keys are forgotten whose session
        has been gone for long enough, and so are old tokens. What is left of deleted sessions is removed.
        """
        ...

    async def get_inference(self, principal: str, inference_id: str) -> Inference:
        """Return an inference. Errors: InferenceNotFoundError."""
        ...

    async def list_inferences(
        self, principal: str, session_id: str, states: Sequence[InferenceState], limit: int, before: int | None
    ) -> Page[Inference]:
        """Return the inferences of a session, newest first; in any state when `states` is empty.

        Errors: SessionNotFoundError.
        """
        ...

    async def read_log(
        self, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str = ""
    ) -> LogPage:
        """Return chunks of the log after a sequence, of one inference if named, with at most `limit_bytes` in all.

        At least one chunk is returned if there is one. `through_sequence` is the head when everything was returned.
        `after` beyond the head returns nothing, with `through_sequence` = `after`.

        Errors: SessionNotFoundError.
        """
        ...

    async def read_base(self, principal: str, session_id: str) -> Base:
        """Return where the log of a session begins. Errors: SessionNotFoundError."""
        ...

    async def compact(self, principal: str, session_id: str, base: Base) -> None:
        """Remove the events up to `base.through_sequence`, for which its fold stands from now on.

        It does nothing when the log begins there or later.

        Errors: SessionNotFoundError; ValueError beyond the head, or past an event of an inference that has not ended.
        """
        ...

    async def find_retired(self, ended_before: datetime, limit: int, skip: int) -> tuple[Retired, ...]:
        """Return logs that begin with events of inferences that ended before a moment; how far such events reach.

        They reach up to the first event of an inference that ended later, or that has not ended. A log that was cut is
        not returned again before there is more to go; one that was not comes again, in the same order: `skip` leaves
        out so many.
        """
        ...

    async def list_turn_snapshots(
        self, principal: str, inference_id: str, phase: SnapshotPhase | None, limit: int, after: int | None
    ) -> Page[TurnSnapshot]:
        """Return the snapshots of an inference's turn, of one phase or of all: the oldest first, behind `after`.

        Bounded as list_turns is: of a snapshot that does not fit in a page, the blocks are left out that do not.

        Errors: InferenceNotFoundError.
        """
        ...

    async def get_turn(
        self, principal: str, session_id: str, index: int | None, view: TurnView, offset: int, limit: int
    ) -> TurnPage:
        """Return a turn, the newest one when `index` is None, with at most `limit` blocks of the view from `offset` on.

        A page also ends before its blocks would pass 1 MiB; it has at least one block if there is one.

        Errors: SessionNotFoundError, TurnNotFoundError.
        """
        ...

    async def list_turns(
        self, principal: str, session_id: str, view: TurnView, limit: int, cursor: int | None, *, newest_first: bool
    ) -> Page[Turn]:
        """Return turns from the index `cursor` on, bounded as in get_turn. Errors: SessionNotFoundError."""
        ...

    async def close(self) -> None:
        """Commit what is under way, refuse what comes after with StoreUnavailableError, and release the files."""
        ...
