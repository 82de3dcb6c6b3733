"""Group commit: one thread writes, and whatever arrived while the last commit ran is the next transaction.

Each operation has a savepoint of its own, so one that is refused does not hurt its neighbours. After the commit, and
only then, what it appended is published on the event loop, and the callers get their results.

An error before the COMMIT is definite: nothing happened. An error of the COMMIT itself is looked into; what cannot be
found out is told as it is. After an error the next transaction tries again, so the writer recovers with its file.
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
from turnwire_server.stores.sqlite_fault import FileMovedError, explain, leaves_nothing, read_anew, unavailable
from turnwire_server.stores.sqlite_file import OpenFiles
from turnwire_server.telemetry.logs import logger

T = TypeVar("T")

# Operations that are queued or under way. At the bound, further callers wait on the event loop for their turn.
OPERATIONS_MAX = 1024

# Why a store that was closed does not answer.
CLOSED = "it is closed"

# The most operations of one transaction; the others go into the next one.
_BATCH_MAX = 256

_INSERT_CHUNK = """
    INSERT INTO chunk (session, first_sequence, last_sequence, inference_id, state, frames) VALUES (?, ?, ?, ?, ?, ?)"""

_FIND_CHUNK = """
    SELECT 1 FROM session s JOIN chunk c ON c.session = s.key
    WHERE s.principal = ? AND s.session_id = ? AND c.last_sequence = ?"""

log = logger()


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
        """Say that a session and its log were deleted, after what was appended to it before."""
        self._entries.append(_Entry(session, principal, session_id, is_deleted=True))

    def cut(self, session: int, principal: str, session_id: str, through: int) -> None:
        """Say that the beginning of a log was compacted; this transaction may have appended it."""
        self._entries.append(_Entry(session, principal, session_id, cut=through))

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
            log.is_deleted = log.is_deleted or entry.is_deleted
            log.cut = max(log.cut, entry.cut)
            if entry.appended:
                log.appended.append(entry.appended)
        return [self._store_chunks(session, log) for session, log in logs.items() if log.appended or log.is_deleted]

    def _store_chunks(self, session: int, log: _SessionLog) -> Commit:
        chunks = tuple(join_chunks(log.appended))
        if log.is_deleted:  # there is nothing left that they could belong to, but those who watch are told
            return Commit(log.principal, log.session_id, chunks, is_deleted=True)
        self.connection.executemany(
            _INSERT_CHUNK,
            [
                (session, kept.first_sequence, kept.last_sequence, kept.inference_id, kept.state, kept.data)
                for chunk in chunks
                if (kept := chunk.cut(log.cut, chunk.last_sequence))
            ],
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
        self,
        connection: sqlite3.Connection,
        files: OpenFiles,
        on_commit: OnCommit,
        now: Callable[[], datetime],
        mint: Mint,
    ) -> None:
        self._connection = connection
        self._files = files
        self._on_commit = on_commit
        self._now = now
        self._mint = mint
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(OPERATIONS_MAX)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # bounded by _room; None ends the thread
        self._is_closed = False
        self._fault = ""  # why the last transaction failed
        self._stopped = self._loop.create_future()
        threading.Thread(target=self._work, name="turnwire-sqlite-writer", daemon=True).start()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation, and return its result once it is durable and published.

        A caller that is cancelled after its operation was queued misses the result; the operation happens nevertheless.

        Errors: what the operation raised; StoreUnavailableError, which is definite unless it is not known whether the
        transaction happened.
        """
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise StoreUnavailableError(CLOSED, is_definite=True)
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
        changes = self._connection.total_changes
        try:
            self._begin()
            outcomes = [self._run_one(job, transaction) for job in jobs]
            commits = transaction.store_log()
        except Exception as error:  # noqa: BLE001 - handed to the callers; the thread has to live on
            self._roll_back()
            return self._fail(jobs, error, is_definite=True), []
        try:
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as above
            landed = self._has_landed(commits, error)
            if not landed:
                return self._fail(jobs, error, is_definite=landed is False), []
            log.warning("a commit failed and landed all the same", error=str(error))
        if self._connection.total_changes != changes:  # else nothing was written, and nothing could fail
            self._report(None)
        return outcomes, commits

    def _begin(self) -> None:
        try:
            self._files.check()
        except FileMovedError:
            # If only the log is gone: what it has can still be saved to the file, in case that the server is killed.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint")
            raise
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")  # which failed before
        self._connection.execute("BEGIN IMMEDIATE")

    def _fail(self, jobs: Sequence[_Job], error: Exception, *, is_definite: bool) -> list[_Outcome]:
        read_anew(self._connection, error)
        self._report(error)
        return [_Outcome(job.future, error=unavailable(error, is_definite=is_definite)) for job in jobs]

    def _report(self, error: Exception | None) -> None:
        """Log when transactions begin to fail, each new cause, and when they succeed again."""
        fault = str(error) if error else ""
        if fault == self._fault:
            return
        self._fault = fault
        if error:
            log.error("the store takes no writes", store=str(self._files.path), error=fault, cause=explain(error))
        else:
            log.info("the store takes writes again", store=str(self._files.path))

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
            read_anew(self._connection, error)
            is_ours = isinstance(error, sqlite3.Error)
            outcome = _Outcome(job.future, error=unavailable(error, is_definite=True) if is_ours else error)
        self._connection.execute("RELEASE operation")
        return outcome

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the next _begin() tries again
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _has_landed(self, commits: Sequence[Commit], error: Exception) -> bool | None:
        """Say whether a transaction whose COMMIT reported an error is in the file; None: that is not known."""
        was_refused = self._connection.in_transaction
        self._roll_back()
        if was_refused or leaves_nothing(error):
            return False
        # One chunk of it stands for all of it. That a session is gone proves nothing: it may be one that never was.
        kept = next((commit for commit in commits if commit.chunks and not commit.is_deleted), None)
        if kept is None:
            return None
        key = (kept.principal, kept.session_id, kept.chunks[-1].last_sequence)
        try:
            return self._connection.execute(_FIND_CHUNK, key).fetchone() is not None or None
        except sqlite3.Error:
            return None

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
