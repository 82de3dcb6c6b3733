"""The file of a SqliteSessionStore: held by one process, opened, and brought to the newest schema."""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal

Synchronous = Literal["full", "normal"]

# Marks a file as ours in its header (PRAGMA application_id): "twir".
_APPLICATION_ID = 0x74776972

# How long a connection waits for another one of this process, in milliseconds; then the call fails.
_BUSY_TIMEOUT_MILLISECONDS = 5000

# Prepared statements that one connection keeps; beyond that the ones unused for longest are prepared again.
_CACHED_STATEMENTS = 256


class StoreOpenError(OSError):
    """The file cannot be used; the message says why, and what to do."""


class FileLock:
    """Holds a store for this process, by an exclusive flock on a file beside it. It goes with the process."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Errors: StoreOpenError, if another process has it."""
        self._descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode(errors="replace") or "unknown"
            self.release()
            msg = f"process {holder} uses the store {path}; stop it, or give this server a file of its own"
            raise StoreOpenError(msg) from None
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())

    def release(self) -> None:
        """Give the store back."""
        os.close(self._descriptor)


def create(path: Path) -> None:
    """Make the file if there is none, for the eyes of its owner only; SQLite makes its other files alike."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    """Open a connection; it may move between threads, but only one may use it at a time."""
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_MILLISECONDS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    connection.row_factory = sqlite3.Row
    try:
        for pragma in ("journal_mode = WAL", f"synchronous = {synchronous}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def read_scripts() -> list[str]:
    """Return the scripts of the schema; the n-th one leads from version n - 1 to version n."""
    folder = files("turnwire_server.stores") / "sqlite_schema"
    scripts = sorted((script for script in folder.iterdir() if script.name.endswith(".sql")), key=lambda s: s.name)
    return [script.read_text() for script in scripts]


def migrate(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Bring the file to the newest version of the schema, one transaction a version.

    Errors: StoreOpenError, for a file that is not ours or that a newer turnwire wrote; sqlite3.Error.
    """
    version = _read_version(connection, newest=len(scripts))
    _check_scripts(connection, scripts[:version])
    for number, script in enumerate(scripts[version:], version + 1):
        header = (
            f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number};"
            " CREATE TABLE IF NOT EXISTS schema_script (version INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL) STRICT;"
            f" INSERT INTO schema_script (version, fingerprint) VALUES ({number}, '{_fingerprint(script)}');"
        )
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; {header} COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _check_scripts(connection: sqlite3.Connection, applied: Sequence[str]) -> None:
    """Refuse a file that was made by other scripts than ours of the same version: a development version wrote it."""
    if not applied:
        return
    try:
        rows = connection.execute("SELECT fingerprint FROM schema_script ORDER BY version").fetchall()
    except sqlite3.OperationalError:  # older than this check
        rows = []
    if [row[0] for row in rows] != [_fingerprint(script) for script in applied]:
        msg = "a development version of turnwire with another schema wrote the file; use that version, or another file"
        raise StoreOpenError(msg)


def _fingerprint(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()


def _read_version(connection: sqlite3.Connection, newest: int) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != _APPLICATION_ID and not is_empty:
        msg = "the file is not a turnwire store; name another file"
        raise StoreOpenError(msg)
    if version > newest:
        msg = f"a newer turnwire wrote the file (schema {version}, this one knows {newest}); upgrade turnwire"
        raise StoreOpenError(msg)
    return int(version)
