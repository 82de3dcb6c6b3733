"""What goes wrong with the file of a SqliteSessionStore, in words for whoever has to put it right."""

import contextlib
import sqlite3

from turnwire_server.domain.errors import StoreUnavailableError

# What to do, by SQLite's primary result code; SQLite itself says what is wrong.
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_IOERR: "see whether the disk is mounted and takes writes, and which file size the server may have",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "see who may read and write the file and its folder",
    sqlite3.SQLITE_BUSY: "another process is in the middle of a transaction; let it end",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop the server and restore a backup",
    sqlite3.SQLITE_NOTADB: "the file is damaged, or it is something else",
}

# Errors of a COMMIT that leave nothing behind: the last thing that a commit writes to the write-ahead log is the frame
# that makes it one, so it is not there when a write failed (sqlite/src/wal.c, walFrames). One that was written and not
# synchronized may be found after a crash.
_LEAVES_NOTHING = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE})


class FileMovedError(Exception):
    """A file of the store is not in its place any more. What was written to it now would be lost."""


def explain(error: Exception) -> str:
    """Return what is wrong and what to do about it, for clients: neither where the file is, nor what is in it."""
    if isinstance(error, FileMovedError):
        return "the file was moved or deleted while it is open; put it back or restart the server"
    if isinstance(error, OSError):
        return f"the file cannot be looked at: {error.strerror}"
    code = _code(error)
    if not code:  # the message of a Python error may quote what was read
        return "a defect, of the server or of what is in the file; the server's log has the details"
    advice = _ADVICE.get(code & 0xFF)
    return f"{error}; {advice}" if advice else str(error)


def unavailable(error: Exception, *, is_definite: bool) -> StoreUnavailableError:
    """Return what a caller gets to hear of an error."""
    refusal = StoreUnavailableError(explain(error), is_definite=is_definite)
    refusal.__cause__ = error
    return refusal


def leaves_nothing(error: Exception) -> bool:
    """Whether a transaction whose COMMIT failed like this cannot be in the file, nor come back after a crash."""
    return _code(error) in _LEAVES_NOTHING


def read_anew(connection: sqlite3.Connection, error: Exception) -> None:
    """Make a connection forget the pages that it has read, if they made no sense: they may have been put right."""
    if _code(error) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA shrink_memory")


def _code(error: Exception) -> int:
    """Return SQLite's extended result code; 0 for an error that is not SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code
