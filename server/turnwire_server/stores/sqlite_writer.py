"""Group commit: one thread writes, and whatever arrived while the last commit ran is the next transaction.

Each operation has a savepoint of its own, so one that is refused does not hurt its neighbours. After the commit, and
only then, what it appended is published on the event loop, and the callers get their results.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import Commit, OnCommit
from turnwire_server.stores.sequence import Appended, join_chunks, stamp

T = TypeVar("T")

# Operations that are queued or under way. At the bound, further callers wait on the event loop for their turn.
OPERATIONS_MAX = 1024

# The most operations of one transaction; the others go into the next one.
_BATCH_MAX = 256

_INSERT_CHUNK = """
    INSERT INTO chunk (session, first_sequence, last_sequence, inference_id, state, frames) VALUES (?, ?, ?, ?, ?, ?)"""

_FIND_SESSION = "SELECT 1 FROM session WHERE principal = ? AND session_id = ?"

_FIND_CHUNK = """
    SELECT 1 FROM session s JOIN chunk c ON c.session = s.key
    WHERE s.principal = ? AND s.session_id = ? AND c.last_sequence = ?"""


@dataclass(slots=True)
class _SessionLog:
    """What one transaction did to the log of one session."""

    principal: str
    session_id: str
    appended: list[Appended] = field(default_factory=list[Appended])
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    session: int
    principal: str
    session_id: str
    appended: Appended | None  # None: the session was deleted


class Transaction:
    """What an operation works with: the connection, the log, and what is handed in from outside."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], datetime], mint: Mint) -> None:
        self.connection = connection
        self.now = now
        self.mint = mint
        self._entries: list[_Entry] = []

    def append(
        self, session: int, inference_id: str, bodies: Sequence[bytes], state: InferenceState | None = None
    ) -> Appended:
        """Give encoded events their sequences under the session's lock; they are stored with the transaction."""
        [row] = self.connection.execute(
            "UPDATE session SET head_sequence = head_sequence + ? WHERE key = ?"
            " RETURNING principal, session_id, head_sequence",
            (len(bodies), session),
        ).fetchall()
        return self.record(session, row, inference_id, bodies, state)

    def record(
        self, session: int, row: sqlite3.Row, inference_id: str, bodies: Sequence[bytes], state: InferenceState | None
    ) -> Appended:
        """Record what was appended; `row` is the session's after its head_sequence was raised."""
        appended = stamp(inference_id, state, bodies, row["head_sequence"] - len(bodies))
        self._entries.append(_Entry(session, row["principal"], row["session_id"], appended))
        return appended

    def forget(self, session: int, principal: str, session_id: str) -> None:
        """Say that a session and its log were deleted."""
        self._entries.append(_Entry(session, principal, session_id, None))

    def mark(self) -> int:
        """Return where `undo` may go back to."""
        return len(self._entries)

    def undo(self, mark: int) -> None:
        """Forget what was done to logs since `mark`."""
        del self._entries[mark:]

    def store_log(self) -> list[Commit]:
        """Write what was appended as chunks, and return what to publish."""
        logs: dict[int, _SessionLog] = {}
        for entry in self._entries:
            log = logs.setdefault(entry.session, _SessionLog(entry.principal, entry.session_id))
            if entry.appended is None:
                log.is_deleted = True
            else:
                log.appended.append(entry.appended)
        return [self._store_chunks(session, log) for session, log in logs.items()]

    def _store_chunks(self, session: int, log: _SessionLog) -> Commit:
        if log.is_deleted:
            return Commit(log.principal, log.session_id, is_deleted=True)
        chunks = tuple(join_chunks(log.appended))
        self.connection.executemany(
            _INSERT_CHUNK,
            [(session, c.first_sequence, c.last_sequence, c.inference_id, c.state, c.data) for c in chunks],
        )
        return Commit(log.principal, log.session_id, chunks)


Operation = Callable[[Transaction], T]


@dataclass(frozen=True, slots=True)
class _Job:
    operation: Operation[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class GroupCommitWriter:
    """The one writer of a file. Build it on the event loop that its callers run on."""

    def __init__(
        self, connection: sqlite3.Connection, on_commit: OnCommit, now: Callable[[], datetime], mint: Mint
    ) -> None:
        self._connection = connection
        self._on_commit = on_commit
        self._now = now
        self._mint = mint
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(OPERATIONS_MAX)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # bounded by _room; None ends the thread
        self._is_closed = False
        self._stopped = self._loop.create_future()
        threading.Thread(target=self._work, name="turnwire-sqlite-writer", daemon=True).start()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation, and return its result once it is durable and published.

        A caller that is cancelled after its operation was queued misses the result; the operation happens nevertheless.

        Errors: what the operation raised; StoreUnavailableError, when nothing of the transaction happened, or when it
        is not known whether it did.
        """
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise StoreUnavailableError
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(operation, future))
        return await future

    async def close(self) -> None:
        """Commit what was queued, refuse what comes after, and return when the thread has ended."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        await asyncio.shield(self._stopped)

    def _work(self) -> None:
        is_open = True
        while is_open:
            jobs, is_open = self._take()
            outcomes, commits = self._commit(jobs)
            self._loop.call_soon_threadsafe(self._settle, outcomes, commits)
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _take(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH_MAX:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, jobs: Sequence[_Job]) -> tuple[list[_Outcome], list[Commit]]:
        transaction = Transaction(self._connection, self._now, self._mint)
        commits: list[Commit] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._run_one(job, transaction) for job in jobs]
            commits = transaction.store_log()
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - handed to the callers; the thread has to live on
            self._roll_back()
            landed = commits if self._has_landed(commits) else []
            return [_Outcome(job.future, error=_unavailable(error)) for job in jobs], landed
        return outcomes, commits

    def _run_one(self, job: _Job, transaction: Transaction) -> _Outcome:
        mark = transaction.mark()
        self._connection.execute("SAVEPOINT operation")
        try:
            outcome = _Outcome(job.future, job.operation(transaction))
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite has rolled back everything, as it may when a disk is full
            self._connection.execute("ROLLBACK TO operation")
            transaction.undo(mark)
            is_ours = isinstance(error, sqlite3.Error)
            outcome = _Outcome(job.future, error=_unavailable(error) if is_ours else error)
        self._connection.execute("RELEASE operation")
        return outcome

    def _roll_back(self) -> None:
        # A transaction that cannot even be rolled back makes the next BEGIN fail, whose callers hear of it.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _has_landed(self, commits: Sequence[Commit]) -> bool:
        """Say whether a transaction whose COMMIT reported an error is in the file all the same.

        Then it is published, since it can be read and nothing else will tell of it; its callers hear of the error, and
        send again what they sent, as always.
        """
        try:
            return bool(commits) and not self._connection.in_transaction and all(map(self._is_stored, commits))
        except sqlite3.Error:
            return False

    def _is_stored(self, commit: Commit) -> bool:
        key, last = (commit.principal, commit.session_id), [chunk.last_sequence for chunk in commit.chunks[-1:]]
        query = _FIND_SESSION if commit.is_deleted else _FIND_CHUNK
        found = self._connection.execute(query, (*key, *last)).fetchone()
        return (found is None) == commit.is_deleted

    def _settle(self, outcomes: Sequence[_Outcome], commits: Sequence[Commit]) -> None:
        try:
            if commits:
                self._on_commit(commits)
        finally:
            for outcome in outcomes:
                self._room.release()
                if outcome.future.done():
                    continue  # its caller was cancelled
                if outcome.error is None:
                    outcome.future.set_result(outcome.result)
                else:
                    outcome.future.set_exception(outcome.error)


def _unavailable(cause: Exception) -> StoreUnavailableError:
    error = StoreUnavailableError()
    error.__cause__ = cause
    return error
