"""Group commit: one thread writes, and whatever arrived while the last commit ran is the next transaction.

Each operation has a savepoint of its own, so one that is refused does not hurt its neighbours; joint ones share one,
and are done one by one if that breaks. After the commit, and only then, what it appended is published on the event
loop, and the callers get their results.

An error before the COMMIT is definite: nothing happened. An error of the COMMIT itself is looked into; what cannot be
found out is told as it is. After an error the next transaction tries again, so the writer recovers with its file.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.ids import Mint
from turnwire_server.stores.base import Commit, OnCommit
from turnwire_server.stores.sqlite_fault import FileMovedError, explain, leaves_nothing, read_anew, unavailable
from turnwire_server.stores.sqlite_file import OpenFiles
from turnwire_server.stores.sqlite_recent import Change, RecentInferences
from turnwire_server.stores.sqlite_transaction import Joint, Operation, Transaction
from turnwire_server.telemetry.logs import logger

T = TypeVar("T")

# Operations that are queued or under way. At the bound, further callers wait on the event loop for their turn.
OPERATIONS_MAX = 1024

# Why a store that was closed does not answer.
CLOSED = "it is closed"

# The most operations of one transaction; the others go into the next one.
_BATCH_MAX = 256

_FIND_CHUNK = """
    SELECT 1 FROM session s JOIN chunk c ON c.session = s.key
    WHERE s.principal = ? AND s.session_id = ? AND c.last_sequence = ?"""

log = logger()


@dataclass(frozen=True, slots=True)
class _Job:
    operation: Operation[Any] | Joint
    future: asyncio.Future[Any]

    @property
    def kind(self) -> object:
        """What neighbours have in common that are done together."""
        return self.operation.do if isinstance(self.operation, Joint) else self.future


@dataclass(frozen=True, slots=True)
class _Outcome:
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Committed:
    """What came of one transaction; `has_happened` is None if that is not known."""

    outcomes: Sequence[_Outcome]
    has_happened: bool | None = False
    change: Change | None = None


def _run(jobs: Sequence[_Job], transaction: Transaction) -> list[_Outcome]:
    operation = jobs[0].operation
    if not isinstance(operation, Joint):
        return [_Outcome(jobs[0].future, operation(transaction))]
    arguments = [job.operation.argument for job in jobs if isinstance(job.operation, Joint)]
    errors = operation.do(transaction, arguments)
    return [_Outcome(job.future, error=error) for job, error in zip(jobs, errors, strict=True)]


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
        self.recent = RecentInferences()
        self._connection = connection
        self._files = files
        self._on_commit = on_commit
        self._now = now
        self._mint = mint
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(OPERATIONS_MAX)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # bounded by _room; None ends the thread
        self._is_closed = False
        self._version: int | None = None  # of the file, as others left it
        self._fault = ""  # why the last transaction failed
        self._stopped = self._loop.create_future()
        threading.Thread(target=self._work, name="turnwire-sqlite-writer", daemon=True).start()

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation, and return its result once it is durable and published.

        A caller that is cancelled after its operation was queued misses the result; the operation happens nevertheless.

        Errors: what the operation raised; StoreUnavailableError, which is definite unless it is not known whether the
        transaction happened.
        """
        result: T = await self._run(operation)
        return result

    async def run_joint(self, operation: Joint) -> None:
        """Do the same with an operation that may be done together with its neighbours, and has no result."""
        await self._run(operation)

    async def _run(self, operation: Operation[Any] | Joint) -> Any:
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise StoreUnavailableError(CLOSED, is_definite=True)
        future: asyncio.Future[Any] = self._loop.create_future()
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
            self._loop.call_soon_threadsafe(self._settle, self._commit(jobs))
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

    def _commit(self, jobs: Sequence[_Job]) -> _Committed:
        transaction = Transaction(self._connection, self._now, self._mint)
        changes = self._connection.total_changes
        try:
            self._begin()
            groups = (tuple(group) for _, group in groupby(jobs, key=lambda job: job.kind))
            outcomes = [outcome for group in groups for outcome in self._run_group(group, transaction)]
            commits = transaction.store_log()
        except Exception as error:  # noqa: BLE001 - handed to the callers; the thread has to live on
            self._roll_back()
            return self._fail(jobs, error, is_definite=True)
        change = self.recent.withdraw(transaction.written, commits)
        try:
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as above
            landed = self._has_landed(commits, error)
            if not landed:
                return self._fail(jobs, error, change, is_definite=landed is False)
            log.warning("a commit failed and landed all the same", error=str(error))
        if self._connection.total_changes != changes:  # else nothing was written, and nothing could fail
            self._report(None)
        return _Committed(outcomes, True, change)

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
        # It changes with what other connections commit, and all of ours but this one only read.
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if self._version not in (None, version):
            log.error("another process writes to the store", store=str(self._files.path))
            self.recent.turn_off()
        self._version = version

    def _fail(
        self, jobs: Sequence[_Job], error: Exception, change: Change | None = None, *, is_definite: bool
    ) -> _Committed:
        read_anew(self._connection, error)
        self._report(error)
        told = [_Outcome(job.future, error=unavailable(error, is_definite=is_definite)) for job in jobs]
        return _Committed(told, False if is_definite else None, change)

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

    def _run_group(self, jobs: Sequence[_Job], transaction: Transaction) -> list[_Outcome]:
        """Run one operation, or joint ones, so that a refusal leaves nothing behind and hurts no others."""
        mark = transaction.mark()
        self._connection.execute("SAVEPOINT operation")
        try:
            outcomes = _run(jobs, transaction)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite has rolled back everything, as it may when a disk is full
            self._connection.execute("ROLLBACK TO operation")
            transaction.undo(mark)
            read_anew(self._connection, error)
            is_ours = isinstance(error, sqlite3.Error)
            told = unavailable(error, is_definite=True) if is_ours else error
            outcomes = [_Outcome(jobs[0].future, error=told)]
        self._connection.execute("RELEASE operation")
        if len(outcomes) < len(jobs):  # which of the joint ones broke is not known: each is tried by itself
            return [outcome for job in jobs for outcome in self._run_group((job,), transaction)]
        return outcomes

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

    def _settle(self, committed: _Committed) -> None:
        try:
            if committed.change:
                self.recent.settle(committed.change, committed.has_happened)
                if committed.has_happened and committed.change.commits:
                    self._on_commit(committed.change.commits)
        finally:
            for outcome in committed.outcomes:
                self._room.release()
                if outcome.future.done():
                    continue  # its caller was cancelled
                if outcome.error is None:
                    outcome.future.set_result(outcome.result)
                else:
                    outcome.future.set_exception(outcome.error)
