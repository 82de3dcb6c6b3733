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
from turnwire_server.domain.session import NewSession, Session, SessionChange
from turnwire_server.domain.turn import Turn, TurnView
from turnwire_server.stores import sqlite_inferences as inferences
from turnwire_server.stores import sqlite_log as log
from turnwire_server.stores import sqlite_sessions as sessions
from turnwire_server.stores import sqlite_turns as turns
from turnwire_server.stores.base import (
    Claim,
    Decide,
    Ending,
    Idempotency,
    Lease,
    LogPage,
    OnCommit,
    Page,
    Running,
    StartCommand,
    Started,
    TurnPage,
)
from turnwire_server.stores.sqlite_file import (
    FileLock,
    StoreOpenError,
    Synchronous,
    connect,
    create,
    migrate,
    read_scripts,
)
from turnwire_server.stores.sqlite_writer import GroupCommitWriter

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
    ) -> "SqliteSessionStore":
        """Open a store, making the file if there is none, and hold it until `close`.

        Errors: OSError; StoreOpenError, when another process holds the file, when it is not ours, or when a newer
        turnwire wrote it.
        """
        path = Path(path)
        lock, connections = await asyncio.to_thread(_open_files, path, synchronous)
        return cls(lock, connections, GroupCommitWriter(connections[0], on_commit, now, mint))

    async def create_session(
        self,
        principal: str,
        new: NewSession,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore. `check` is called on the writer's thread."""
        return await self._writer.run(lambda tx: sessions.create_session(tx, principal, new, idempotency, check))

    async def get_session(self, principal: str, session_id: str) -> Session:
        """See SessionStore."""
        return await self._read(lambda db: sessions.load_session(db, principal, session_id).session)

    async def list_sessions(
        self, principal: str, labels: Mapping[str, str], limit: int, before: int | None
    ) -> Page[Session]:
        """See SessionStore."""
        return await self._read(lambda db: sessions.list_sessions(db, principal, labels, limit, before))

    async def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None
    ) -> Session:
        """See SessionStore."""
        return await self._writer.run(lambda tx: sessions.update_session(tx, principal, session_id, change, revision))

    async def delete_session(self, principal: str, session_id: str, revision: int | None, *, force: bool) -> None:
        """See SessionStore."""
        await self._writer.run(lambda tx: sessions.delete_session(tx, principal, session_id, revision, force=force))

    async def start(self, command: StartCommand, decide: Decide) -> Started:
        """See SessionStore. `decide` is called on the writer's thread."""
        return await self._writer.run(lambda tx: inferences.start(tx, command, decide))

    async def claim(self, owner: str, limit: int) -> tuple[Claim, ...]:
        """See SessionStore."""
        return await self._writer.run(lambda tx: inferences.claim(tx, owner, limit))

    async def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """See SessionStore."""
        await self._writer.run(lambda tx: inferences.append(tx, lease, position, events))

    async def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """See SessionStore."""
        return await self._writer.run(lambda tx: inferences.finish(tx, lease, position, ending))

    async def request_cancel(self, principal: str, target: str, reason: str, *, is_session: bool) -> Inference:
        """See SessionStore."""
        return await self._writer.run(
            lambda tx: inferences.request_cancel(tx, principal, target, reason, is_session=is_session)
        )

    async def expire(self, now: datetime) -> tuple[Inference, ...]:
        """See SessionStore."""
        return await self._writer.run(lambda tx: inferences.expire(tx, now))

    async def heartbeat(self, owner: str) -> tuple[Running, ...]:
        """See SessionStore."""
        return await self._read(lambda db: inferences.list_running(db, owner))

    async def reap(self, owner: str, orphans: Collection[str] = ()) -> tuple[Claim, ...]:
        """See SessionStore."""
        return await self._writer.run(lambda tx: inferences.reap(tx, owner, orphans))

    async def get_inference(self, principal: str, inference_id: str) -> Inference:
        """See SessionStore."""
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

    async def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        if self._is_closed:
            raise StoreUnavailableError
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_snapshot, operation)

    def _read_snapshot(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            connection.execute("BEGIN")
            try:
                return operation(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreUnavailableError from error
        finally:
            self._idle.put(connection)

    def _release(self) -> None:
        self._readers.shutdown()
        for connection in reversed(self._connections):
            connection.close()
        self._lock.release()


def _open_files(path: Path, synchronous: Synchronous) -> tuple[FileLock, list[sqlite3.Connection]]:
    lock = FileLock(path)
    connections: list[sqlite3.Connection] = []
    try:
        create(path)
        connections.append(connect(path, synchronous))
        migrate(connections[0], read_scripts())
        connections.extend(connect(path, synchronous) for _ in range(_READERS))
    except (OSError, sqlite3.Error) as error:
        for connection in connections:
            connection.close()
        lock.release()
        if isinstance(error, OSError):
            raise
        msg = f"the store {path} cannot be opened: {error}"
        raise StoreOpenError(msg) from error
    return lock, connections
