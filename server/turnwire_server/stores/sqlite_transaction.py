"""What the operations of a SqliteSessionStore work with: one transaction, and what it does to the logs of sessions."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sequence import Appended, join_chunks, stamp

T = TypeVar("T")
A = TypeVar("A")

# An inference as it was written, and its principal.
Written = tuple[str, Inference]

# The most chunks that one statement inserts: a power of two.
_INSERTED_MAX = 64

_INSERT_CHUNKS = "INSERT INTO chunk (session, first_sequence, last_sequence, inference_id, state, frames) VALUES "


@dataclass(slots=True)
class _SessionLog:
    """What one transaction did to the log of one session."""

    principal: str
    session_id: str
    appended: list[Appended] = field(default_factory=list[Appended])
    cut: int = 0  # what was appended up to here was compacted at once
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    session: int
    principal: str
    session_id: str
    appended: Appended | None = None
    cut: int = 0
    is_deleted: bool = False


class Transaction:
    """What an operation works with: the connection, the log, and what is handed in from outside."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], datetime], mint: Mint) -> None:
        self.connection = connection
        self.now = now
        self.mint = mint
        self._entries: list[_Entry] = []
        self._written: list[Written] = []

    @property
    def written(self) -> Sequence[Written]:
        """The inferences that were written, in order, but for those that were only appended to."""
        return self._written

    def wrote(self, principal: str, inference: Inference) -> None:
        """Say that an inference was written."""
        self._written.append((principal, inference))

    def append(
        self,
        session: int,
        inference_id: str,
        bodies: Sequence[bytes],
        state: InferenceState | None = None,
        *,
        opens_turn: bool = False,
    ) -> Appended:
        """Give encoded events their sequences under the session's lock; they are stored with the transaction.

        `opens_turn`: they tell of a turn that the session has from now on.
        """
        [row] = self.connection.execute(
            "UPDATE session SET head_sequence = head_sequence + ?, turn_count = turn_count + ? WHERE key = ?"
            " RETURNING principal, session_id, head_sequence",
            (len(bodies), opens_turn, session),
        ).fetchall()
        return self.record(session, row, inference_id, bodies, state)

    def record(
        self,
        session: int,
        row: sqlite3.Row | Mapping[str, Any],
        inference_id: str,
        bodies: Sequence[bytes],
        state: InferenceState | None,
    ) -> Appended:
        """Record what was appended; `row` is the session's after its head_sequence was raised."""
        appended = stamp(inference_id, state, bodies, row["head_sequence"] - len(bodies))
        self._entries.append(_Entry(session, row["principal"], row["session_id"], appended))
        return appended

    def forget(self, session: int, principal: str, session_id: str) -> None:
        """Say that a session and its log were deleted, after what was appended to it before."""
        self._entries.append(_Entry(session, principal, session_id, is_deleted=True))

    def cut(self, session: int, principal: str, session_id: str, through: int) -> None:
        """Say that the beginning of a log was compacted; this transaction may have appended it."""
        self._entries.append(_Entry(session, principal, session_id, cut=through))

    def mark(self) -> tuple[int, int]:
        """Return where `undo` may go back to."""
        return len(self._entries), len(self._written)

    def undo(self, mark: tuple[int, int]) -> None:
        """Forget what was done since `mark`."""
        entry_count, written_count = mark
        del self._entries[entry_count:], self._written[written_count:]

    def store_log(self) -> list[Commit]:
        """Write what was appended as chunks, and return what to publish."""
        logs: dict[int, _SessionLog] = {}
        for entry in self._entries:
            log = logs.setdefault(entry.session, _SessionLog(entry.principal, entry.session_id))
            log.is_deleted = log.is_deleted or entry.is_deleted
            log.cut = max(log.cut, entry.cut)
            if entry.appended:
                log.appended.append(entry.appended)
        commits: list[Commit] = []
        rows: list[tuple[object, ...]] = []
        for session, log in logs.items():
            chunks = tuple(join_chunks(log.appended))
            if chunks or log.is_deleted:  # of what was deleted nothing is stored, but those who watch are told
                commits.append(Commit(log.principal, log.session_id, chunks, is_deleted=log.is_deleted))
            if not log.is_deleted:
                rows += [
                    (session, kept.first_sequence, kept.last_sequence, kept.inference_id, kept.state, kept.data)
                    for chunk in chunks
                    if (kept := chunk.cut(log.cut, chunk.last_sequence))
                ]
        for some in _powers_of_two(rows):
            values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(some))
            self.connection.execute(_INSERT_CHUNKS + values, [value for row in some for value in row])
        return commits


def _powers_of_two(rows: Sequence[A]) -> Iterator[Sequence[A]]:
    """Yield all rows, as many at a time as make few different statements, which SQLite keeps compiled."""
    begin, size = 0, _INSERTED_MAX
    while begin < len(rows):
        while size > len(rows) - begin:
            size //= 2
        yield rows[begin : begin + size]
        begin += size


Operation = Callable[[Transaction], T]


@dataclass(frozen=True, slots=True)
class Joint:
    """An operation that is cheaper done for several callers at a time: neighbours that have the same `do` are.

    Python hands its lock over with every statement, and waits for it again: few statements are worth more than fast
    ones. `do` takes the arguments of all and returns the error of each; for what it refuses it must not have written.
    """

    do: Callable[[Transaction, Sequence[Any]], Sequence[Exception | None]]
    argument: Any
