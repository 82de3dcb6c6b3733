"""The embedded store: one SQLite file, one writer thread with group commit, a few threads that read.

The file is in WAL mode: readers see a snapshot, and neither wait for the writer nor hold it up. `synchronous="full"`
makes a commit survive a power cut; with "normal" it survives the death of the process only.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange, StepMode
from turnwire_server.domain.turn import SnapshotPhase, Turn, TurnSnapshot, TurnView
from turnwire_server.stores import sqlite_inferences as inferences
from turnwire_server.stores import sqlite_leases as leases
from turnwire_server.stores import sqlite_log as log
from turnwire_server.stores import sqlite_sessions as sessions
from turnwire_server.stores import sqlite_turns as turns
from turnwire_server.stores import sqlite_waits as waits
from turnwire_server.stores.base import Amend, Base, Due, OnCommit, Retired, Waiting
from turnwire_server.stores.lease import Claim, Effect, Ending, Heartbeat, Lease, Step
from turnwire_server.stores.page import LogPage, Page, TurnPage
from turnwire_server.stores.sqlite_appends import Append, append
from turnwire_server.stores.sqlite_deletion import delete_session, expire_sessions, purge
from turnwire_server.stores.sqlite_fault import explain, read_anew, unavailable
from turnwire_server.stores.sqlite_file import FileLock, OpenFiles, StoreOpenError, Synchronous, connect, create
from turnwire_server.stores.sqlite_forks import fork_session
from turnwire_server.stores.sqlite_migration import check_file, migrate, read_scripts
from turnwire_server.stores.sqlite_snapshots import list_turn_snapshots
from turnwire_server.stores.sqlite_starts import start
from turnwire_server.stores.sqlite_transaction import Joint, Operation, Transaction
from turnwire_server.stores.sqlite_writer import CLOSED, GroupCommitWriter
from turnwire_server.stores.start import Decide, Idempotency, Seat, StartCommand, Started

T = TypeVar("T")

# Reads that go on at the same time, each on a connection of its own. Further ones wait for a thread; how many those can
# be is bounded by the server's limit on concurrent calls.
_READERS = 4


class SqliteSessionStore:
    """The SessionStore of a server that is one process. Build it with `open`."""

    def __init__(self, lock: FileLock, connections: Sequence[sqlite3.Connection], writer: GroupCommitWriter) -> None:
        self._lock = lock
        self._connections = connections
        self._writer = writer
        self._is_closed = False
        self._owners: list[str] = []  # of this process: one, and one more each time it was declared dead
        self._is_alone = False  # whether the owners of processes before this one were declared dead
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="turnwire-sqlite-reader")
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()  # as many as there are threads
        for connection in connections[1:]:
            self._idle.put(connection)

    @classmethod
    async def open(
        cls,
        path: str | Path,
        on_commit: OnCommit,
        now: Callable[[], datetime],
        mint: Mint,
        *,
        synchronous: Synchronous = "full",
        connection_class: type[sqlite3.Connection] = sqlite3.Connection,
        is_restored: bool = False,
    ) -> "SqliteSessionStore":
        """Open a store, making the file if there is none, and hold it until `close`; links to the file are followed.

        `is_restored`: the file is a copy of an earlier state, so its logs are not those that clients know.

        Errors: OSError; StoreOpenError, when another process holds the file, when it is not ours, when a newer
        turnwire wrote it, or when it cannot be migrated; StoreUnavailableError.
        """
        lock, connections, files = await asyncio.to_thread(_open_files, Path(path), synchronous, connection_class)
        store = cls(lock, connections, GroupCommitWriter(connections[0], files, on_commit, now, mint))
        if is_restored:
            try:
                await store._write(sessions.renew_incarnation)
            except StoreUnavailableError:
                await store.close()
                raise
        return store

    async def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore. `check` is called on the writer's thread."""
        return await self._write(lambda tx: sessions.create_session(tx, principal, new, token, idempotency, check))

    async def get_session(self, principal: str, session_id: str) -> Session:
        """See SessionStore."""
        return await self._read(lambda db: sessions.load_session(db, principal, session_id).session)

    async def list_sessions(
        self, principal: str, labels: Mapping[str, str], limit: int, before: int | None
    ) -> Page[Session]:
        """See SessionStore."""
        return await self._read(lambda db: sessions.list_sessions(db, principal, labels, limit, before))

    async def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None, token: str
    ) -> Session:
        """See SessionStore."""
        return await self._write(lambda tx: sessions.update_session(tx, principal, session_id, change, revision, token))

    async def delete_session(
        self, principal: str, session_id: str, revision: int | None, *, force: bool, log: str = ""
    ) -> None:
        """See SessionStore."""
        await self._write(lambda tx: delete_session(tx, principal, session_id, revision, force=force, log=log))

    async def start(self, command: StartCommand, decide: Decide, seat: Seat | None = None) -> Started:
        """See SessionStore. `decide` is called on the writer's thread."""
        return await self._write(lambda tx: start(tx, command, decide, seat))

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
        """See SessionStore. `check` is called on the writer's thread."""
        return await self._write(
            lambda tx: fork_session(tx, principal, session_id, index, new, token, idempotency, check)
        )

    async def get_first_in_line(self, principal: str, session_id: str) -> Inference:
        """See SessionStore."""
        return await self._read(lambda db: inferences.get_first_in_line(db, principal, session_id))

    async def request_cancel(self, principal: str, inference_id: str, reason: str) -> Inference:
        """See SessionStore."""
        return await self._write(lambda tx: inferences.request_cancel(tx, principal, inference_id, reason))

    async def set_step_mode(self, principal: str, session_id: str, step_mode: StepMode | None, token: str) -> Session:
        """See SessionStore."""
        return await self._write(lambda tx: sessions.set_step_mode(tx, principal, session_id, step_mode, token))

    async def amend(
        self,
        principal: str,
        inference_id: str,
        token: str,
        decide: Amend,
        idempotency: Idempotency | None = None,
    ) -> Inference:
        """See SessionStore. `decide` is called on the writer's thread."""
        return await self._write(lambda tx: waits.amend(tx, principal, inference_id, token, decide, idempotency))

    async def list_waiting(
        self, principal: str, session_id: str, state: InferenceState, limit: int, after: int | None
    ) -> Page[Waiting]:
        """See SessionStore."""
        return await self._read(lambda db: waits.list_waiting(db, principal, session_id, state, limit, after))

    async def find_due(self, now: datetime, limit: int) -> tuple[Due, ...]:
        """See SessionStore."""
        return await self._read(lambda db: waits.find_due(db, now, limit))

    async def register(self, owner: str) -> None:
        """See SessionStore. Owners of earlier processes are dead: the lock says that there is no other process now."""
        self._owners.append(owner)
        own = None if self._is_alone else tuple(self._owners)
        await self._write(lambda tx: leases.register(tx, owner, own))
        self._is_alone = True

    async def heartbeat(self, owner: str) -> Heartbeat:
        """See SessionStore."""
        return await self._write(lambda tx: leases.heartbeat(tx, owner))

    async def declare_dead(self, owner: str, beat: int) -> bool:
        """See SessionStore."""
        return await self._write(lambda tx: leases.declare_dead(tx, owner, beat))

    async def revoke(self, owner: str, tokens: Collection[str]) -> None:
        """See SessionStore."""
        await self._write(lambda tx: leases.revoke(tx, owner, tokens))

    async def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """See SessionStore."""
        return await self._write(lambda tx: leases.claim(tx, owner, tokens, only_lost=only_lost))

    async def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """See SessionStore."""
        await self._writer.run_joint(Joint(append, Append(lease, position, events)))

    async def record_effects(
        self, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes] = ()
    ) -> None:
        """See SessionStore."""
        await self._write(lambda tx: leases.record_effects(tx, lease, position, effects, events))

    async def commit_step(self, lease: Lease, position: int, step: Step) -> Inference:
        """See SessionStore."""
        return await self._write(lambda tx: leases.commit_step(tx, lease, position, step))

    async def hand_back(self, lease: Lease, position: int, *, is_loss: bool) -> Inference:
        """See SessionStore."""
        return await self._write(lambda tx: leases.hand_back(tx, lease, position, is_loss=is_loss))

    async def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """See SessionStore."""
        return await self._write(lambda tx: leases.finish(tx, lease, position, ending))

    async def sweep(self, now: datetime) -> bool:
        """See SessionStore."""
        return await self._write(lambda tx: _sweep(tx, now))

    async def get_inference(self, principal: str, inference_id: str) -> Inference:
        """See SessionStore."""
        if not self._is_closed and (recent := self._writer.recent.get(principal, inference_id)):
            return recent
        return await self._read(lambda db: inferences.load_inference(db, principal, inference_id).inference)

    async def list_inferences(
        self, principal: str, session_id: str, states: Sequence[InferenceState], limit: int, before: int | None
    ) -> Page[Inference]:
        """See SessionStore."""
        return await self._read(lambda db: inferences.list_inferences(db, principal, session_id, states, limit, before))

    async def read_log(
        self, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str = ""
    ) -> LogPage:
        """See SessionStore."""
        return await self._read(lambda db: log.read_log(db, principal, session_id, after, limit_bytes, inference_id))

    async def read_base(self, principal: str, session_id: str) -> Base:
        """See SessionStore."""
        return await self._read(lambda db: log.read_base(db, principal, session_id))

    async def compact(self, principal: str, session_id: str, base: Base) -> None:
        """See SessionStore."""
        await self._write(lambda tx: log.compact(tx, principal, session_id, base))

    async def list_turn_snapshots(
        self, principal: str, inference_id: str, phase: SnapshotPhase | None, limit: int, after: int | None
    ) -> Page[TurnSnapshot]:
        """See SessionStore."""
        return await self._read(
            lambda db: list_turn_snapshots(
                db, inferences.load_inference(db, principal, inference_id), phase, limit, after
            )
        )

    async def find_retired(self, ended_before: datetime, limit: int, skip: int) -> tuple[Retired, ...]:
        """See SessionStore."""
        return await self._read(lambda db: log.find_retired(db, ended_before, limit, skip))

    async def get_turn(
        self, principal: str, session_id: str, index: int | None, view: TurnView, offset: int, limit: int
    ) -> TurnPage:
        """See SessionStore."""
        return await self._read(lambda db: turns.get_turn(db, principal, session_id, index, view, offset, limit))

    async def list_turns(
        self, principal: str, session_id: str, view: TurnView, limit: int, cursor: int | None, *, newest_first: bool
    ) -> Page[Turn]:
        """See SessionStore."""
        return await self._read(
            lambda db: turns.list_turns(db, principal, session_id, view, limit, cursor, newest_first=newest_first)
        )

    async def close(self) -> None:
        """See SessionStore."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._writer.close()
        await asyncio.to_thread(self._release)

    async def _write(self, operation: Operation[T]) -> T:
        return await self._writer.run(operation)

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        if self._is_closed:
            raise StoreUnavailableError(CLOSED, is_definite=True)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_snapshot, operation)

    def _read_snapshot(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                return operation(connection)
            finally:
                if connection.in_transaction:  # SQLite may have ended it, after some errors
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            read_anew(connection, error)
            raise unavailable(error, is_definite=True) from error
        finally:
            self._idle.put(connection)

    def _release(self) -> None:
        self._readers.shutdown()
        for connection in reversed(self._connections):
            connection.close()
        self._lock.release()


def _sweep(tx: Transaction, now: datetime) -> bool:
    sessions.forget_keys(tx)
    has_more = [leases.expire(tx, now), expire_sessions(tx, now), purge(tx)]
    return any(has_more)


def _open_files(
    path: Path, synchronous: Synchronous, connection_class: type[sqlite3.Connection]
) -> tuple[FileLock, list[sqlite3.Connection], OpenFiles]:
    path = path.resolve()  # as SQLite does: its other files are beside the file itself
    lock = FileLock(path)
    connections: list[sqlite3.Connection] = []
    try:
        create(path)
        check_file(path, read_scripts())
        connections.append(connect(path, synchronous, connection_class))
        migrate(connections[0], read_scripts())
        connections.extend(connect(path, synchronous, connection_class) for _ in range(_READERS))
        files = OpenFiles(path)
    except (OSError, sqlite3.Error) as error:
        for connection in connections:
            connection.close()
        lock.release()
        if isinstance(error, OSError):
            raise
        msg = f"the store {path} cannot be opened: {explain(error)}"
        raise StoreOpenError(msg) from error
    return lock, connections, files
