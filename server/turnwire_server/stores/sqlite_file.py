"""The file of a SqliteSessionStore: held by one process, opened, and watched for being in its place."""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Literal

from turnwire_server.stores.sqlite_fault import FileMovedError

Synchronous = Literal["full", "normal"]

# How long a connection waits for another process that writes to the file, in milliseconds; then the call fails.
_BUSY_TIMEOUT_MILLISECONDS = 5000

# Prepared statements that one connection keeps; beyond that the ones unused for longest are prepared again.
_CACHED_STATEMENTS = 256


class StoreOpenError(OSError):
    """The file cannot be used; the message says why, and what to do."""


class FileLock:
    """Holds a store for this process, by an exclusive flock on a file beside it. It goes with the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Errors: StoreOpenError, if another process has it, or if there can be none, as on a file system that is
        read-only, full or not there.
        """
        try:
            self._descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            msg = f"the lock beside the store {path} cannot be opened: {error.strerror}"
            raise StoreOpenError(msg) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace") or "unknown"
            self.release()
            msg = f"process {holder} uses the store {path}; stop it, or give this server a file of its own"
            raise StoreOpenError(msg) from None
        except OSError as error:
            self.release()
            msg = f"the lock beside the store {path} cannot be written: {error.strerror}"
            raise StoreOpenError(msg) from error

    def release(self) -> None:
        """Give the store back."""
        os.close(self._descriptor)


class OpenFiles:
    """The files that connections have open, as they were then. Build it once they are.

    SQLite would go on writing to a file that was deleted, and nobody would ever find it.
    """

    def __init__(self, path: Path) -> None:
        """Remember the file and its write-ahead log. Errors: OSError."""
        self.path = path
        self._opened = tuple((name, _identity(name)) for name in (str(path), str(_log_of(path))))

    def check(self) -> None:
        """Check that the files are in their place; it takes a few microseconds. Errors: FileMovedError, OSError."""
        for name, opened in self._opened:
            try:
                found = _identity(name)
            except (FileNotFoundError, NotADirectoryError):
                found = None
            if found != opened:
                raise FileMovedError(f"{name} is {'gone' if found is None else 'another file'}")


def _identity(name: str) -> tuple[int, int]:
    # Never by opening it: closing a file drops all locks of this process on it, also those that SQLite holds.
    found = os.stat(name)
    return found.st_dev, found.st_ino


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def create(path: Path) -> None:
    """Make the file if there is none, for the eyes of its owner only; SQLite makes its other files alike.

    Errors: StoreOpenError, when the file is gone whose write-ahead log is there: SQLite would delete that.
    """
    log = _log_of(path)
    if not path.exists() and log.exists() and log.stat().st_size:
        msg = f"{path} is gone, but its latest content is in {log.name}; put it back, or move that away to begin anew"
        raise StoreOpenError(msg)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def connect(
    path: Path, synchronous: Synchronous, connection_class: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """Open a connection; it may move between threads, but only one may use it at a time."""
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_MILLISECONDS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        factory=connection_class,
    )
    connection.row_factory = sqlite3.Row
    try:
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
