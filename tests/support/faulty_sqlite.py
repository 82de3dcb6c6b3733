"""SQLite connections whose commits go wrong as a test tells them to."""

import sqlite3
from enum import Enum, auto
from typing import Any


class Commits(Enum):
    """What becomes of a COMMIT."""

    SUCCEED = auto()
    ARE_REFUSED = auto()
    """It reports an error, and the transaction is still open."""
    DO_NOT_FIT = auto()
    """It reports that the disk is full, and the transaction is rolled back."""
    ARE_LOST = auto()
    """It reports that what was written could not be synchronized, and the transaction is rolled back."""
    LAND_UNHEARD = auto()
    """It reports the same, and the transaction is in the file."""


def sqlite_error(message: str, code: int) -> sqlite3.OperationalError:
    """Return an error as SQLite raises it."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class FaultyConnection(sqlite3.Connection):
    """A connection whose COMMITs go as `commits` says. Tests use it through faulty_connection()."""

    commits = Commits.SUCCEED

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """See sqlite3.Connection."""
        fate = type(self).commits
        if sql != "COMMIT" or fate is Commits.SUCCEED:
            return super().execute(sql, parameters)
        if fate is Commits.ARE_REFUSED:
            raise sqlite_error("database is locked", sqlite3.SQLITE_BUSY)
        super().execute("COMMIT" if fate is Commits.LAND_UNHEARD else "ROLLBACK")
        if fate is Commits.DO_NOT_FIT:
            raise sqlite_error("database or disk is full", sqlite3.SQLITE_FULL)
        raise sqlite_error("disk I/O error", sqlite3.SQLITE_IOERR_FSYNC)


def faulty_connection() -> type[FaultyConnection]:
    """Return a class of connections for one test; its `commits` holds for all of them, from the next COMMIT on."""
    return type("FaultyConnection", (FaultyConnection,), {})
