"""What a SQLite file has, in words for a model.

SQLite prepares the views of a file to tell their columns, and sql_process.py says what that can cost. So the schema is
read in a process of that kind, and again only when it is another; the server itself only compares its version.
"""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from turnwire_server.middleware import sql_process
from turnwire_server.telemetry.logs import logger

# What a description may take in bytes; the contract allows a tool's 16 KiB, and the tool has more to say.
SCHEMA_BYTES_MAX = 12 * 1024

# What reading the schema may take, the start of the process included; the start of the server waits for it.
_SECONDS_MAX = 3.0

# The version is read between engine calls, so nobody waits long for a writer.
_BUSY_SECONDS_MAX = 0.5

_UNREADABLE = "... the schema could not be read: SELECT name, sql FROM sqlite_schema tells it"

log = logger()

ReadSchema = Callable[[Path], str]


def uri_of(path: Path) -> str:
    """Return what opens a file for reading only (sqlite.org/uri.html); not as `immutable`, others may write it."""
    return f"{path.absolute().as_uri()}?mode=ro"


def read_schema(path: Path, seconds_max: float = _SECONDS_MAX) -> str:
    """Return a line for each table and view with its columns, as many as there is room for; blocks.

    Where that takes too long or too much memory, the text says that the schema could not be read. The process that
    reads it is gone in either case. Errors: sqlite3.Error, OSError.
    """
    request = sql_process.SchemaRequest(uri_of(path), SCHEMA_BYTES_MAX, seconds_max)
    try:
        done = subprocess.run(
            sql_process.COMMAND,
            input=json.dumps(asdict(request)).encode(),
            capture_output=True,
            timeout=seconds_max,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unreadable(path, f"it took longer than {seconds_max:g} s")
    if done.returncode == sql_process.REFUSED:
        raise sqlite3.DatabaseError(done.stdout.decode())
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-4096:].decode("utf-8", "replace")
        return _unreadable(path, f"status {done.returncode}: {said}")
    return done.stdout.decode()


def _unreadable(path: Path, why: str) -> str:
    log.warning("the schema could not be read; it is not told before it changes", path=str(path), error=why)
    return _UNREADABLE


class Schema:
    """The schema of a file as it is now, read again only when it is another one."""

    def __init__(self, path: Path, read: ReadSchema = read_schema) -> None:
        self._path = path
        self._read = read
        self._reading = Lock()  # who waits for the same schema does not start another process
        self._known: tuple[tuple[int, int, int], str] | None = None

    def text(self) -> str:
        """Return what `read_schema` says of the file; blocks; from any thread. Errors: sqlite3.Error, OSError."""
        version = _version_of(self._path)  # before the text: a change between the two is seen the next time
        with self._reading:
            if self._known is None or self._known[0] != version:
                self._known = (version, self._read(self._path))
            return self._known[1]


def _version_of(path: Path) -> tuple[int, int, int]:
    """Return what is another when the file or its schema is; SQLite takes it from the header and loads no schema."""
    status = path.stat()
    with closing(sqlite3.connect(uri_of(path), uri=True, timeout=_BUSY_SECONDS_MAX)) as connection:
        [version] = connection.execute("PRAGMA schema_version").fetchone()
    return status.st_dev, status.st_ino, version
