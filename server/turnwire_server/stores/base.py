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
- A call that raises changed nothing, also when it raises for what cannot be encoded; only after
  StoreUnavailableError is it unknown.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from turnwire_server.domain.event import Chunk, Outcome
from turnwire_server.domain.inference import (
    ConflictPolicy,
    Inference,
    InferenceConfig,
    InferenceState,
    Overrides,
    Usage,
)
from turnwire_server.domain.session import NewSession, Session, SessionChange
from turnwire_server.domain.turn import Block, Turn, TurnView

T = TypeVar("T")


class Fenced(Exception):  # noqa: N818 - the normal fate of an owner that was replaced, not an error of the contract
    """The lease or the position is not the one in the store: someone else owns the inference now, or it has ended."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The guard of a call that creates. `fingerprint` is a hash of the request's content without key and timeout."""

    rpc: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One StartInference as it was asked for. `target` is a session_id or the session to create."""

    principal: str
    target: str | NewSession
    input: tuple[Block, ...] = ()
    parent: int | None = None
    profile: str = ""
    overrides: Overrides = Overrides()
    conflict_policy: ConflictPolicy = ConflictPolicy.REJECT
    idempotency: Idempotency | None = None
    timeout: timedelta | None = None
    attempts_max: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An inference of a session that has not ended."""

    inference_id: str
    state: InferenceState
    is_active: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a decision about a start may look at. `unfinished` is in the order of the line, the active one first."""

    session: Session
    unfinished: tuple[Unfinished, ...]
    parent: Turn | None
    """The turn that `StartCommand.parent` names, or the parent of the one that ROLLBACK displaces, or else the newest
    one; without blocks. None: there is none."""


@dataclass(frozen=True, slots=True)
class Admission:
    """That a start is accepted: with which profile, engine and effective configuration."""

    profile: str
    engine: str
    config: InferenceConfig


# Decides on a start inside the store's transaction, on whatever thread that runs: pure, and fast. Raises a RequestError
# to refuse.
Decide = Callable[[StartCommand, SessionState], Admission]


@dataclass(frozen=True, slots=True)
class Started:
    """The inference as it is now, and whether this call created it."""

    inference: Inference
    created: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a running inference. `token` is random: it is compared, never ordered."""

    principal: str
    inference_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A running inference and the lease over it.

    `position` counts the events that were appended under leases so far: a new lease goes on from there.
    """

    lease: Lease
    inference: Inference
    engine: str
    overrides: Overrides
    position: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A running inference as its owner has to know it all the time: no more than is cheap to read."""

    inference_id: str
    is_cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: the blocks that it produced, and the encoded events that were not appended yet."""

    outcome: Outcome
    usage: Usage = Usage()
    model: str = ""
    blocks: tuple[Block, ...] = ()
    events: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing, and the cursor to the next part; None when there is none."""

    items: tuple[T, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A part of a session's log. It covers the sequences in (after, through]; a filter may have left some out."""

    log: str
    earliest_sequence: int
    head_sequence: int
    chunks: tuple[Chunk, ...]
    through_sequence: int


@dataclass(frozen=True, slots=True)
class TurnPage:
    """A turn with a part of its blocks, and the position of the block that comes next; None when there is none."""

    turn: Turn
    next: int | None


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit appended to one session's log. `is_deleted`: the session and its log are gone."""

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
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """Create a session; return it and whether this call created it.

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
        self, principal: str, session_id: str, change: SessionChange, revision: int | None
    ) -> Session:
        """Change a session that is at `revision`, or at any when None.

        Errors: SessionNotFoundError, RevisionMismatchError.
        """
        ...

    async def delete_session(self, principal: str, session_id: str, revision: int | None, *, force: bool) -> None:
        """Delete a session and all that belongs to it, with its unfinished inferences only if `force`.

        Errors: SessionNotFoundError, RevisionMismatchError, SessionBusyError.
        """
        ...

    async def start(self, command: StartCommand, decide: Decide) -> Started:
        """Accept an inference: the idempotency gate, then existence, then `decide`, then QUEUED and its event.

        Errors: those of create_session for a new session, SessionNotFoundError, TurnNotFoundError, what `decide`
        raises.
        """
        ...

    async def claim(self, owner: str, limit: int) -> tuple[Claim, ...]:
        """Move at most `limit` inferences that are first in line, and may run, to RUNNING under new leases.

        On the first claim the turn is opened: its index is given, its parent chosen.
        """
        ...

    async def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """Append encoded events (without sequence) of a running inference.

        Sending the same events from the same position again is harmless: it changes nothing if they are there already.

        Errors: Fenced.
        """
        ...

    async def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """End a running inference: append `ending.events`, add its blocks, close its turn, tell the end.

        Sending the same ending from the same position again is harmless: it returns the inference as it ended.

        Errors: Fenced.
        """
        ...

    async def request_cancel(self, principal: str, target: str, reason: str, *, is_session: bool) -> Inference:
        """Request a cancel of an inference, or of a session's first in line. One that never ran ends at once.

        Errors: InferenceNotFoundError, SessionNotFoundError, NoActiveInferenceError.
        """
        ...

    async def expire(self, now: datetime) -> tuple[Inference, ...]:
        """End every QUEUED inference whose deadline has passed, FAILED with DEADLINE_EXCEEDED; return them."""
        ...

    async def heartbeat(self, owner: str) -> tuple[Running, ...]:
        """Return what runs under leases of `owner`, in any order: what an owner reconciles its own list with.

        Cheap enough to be called several times a second, however much runs.
        """
        ...

    async def reap(self, owner: str, orphans: Collection[str] = ()) -> tuple[Claim, ...]:
        """Take over, under new leases, what runs under leases of other owners, all of which are dead.

        `orphans` are inferences that run under leases of `owner` itself, which lost track of them: taken over as well.
        One that does not run any more is left out.
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
