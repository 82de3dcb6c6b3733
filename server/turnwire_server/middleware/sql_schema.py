"""What a SQLite file has, in words for a model."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

# What a description may take in bytes; the contract allows a tool's 16 KiB, and the tool has more to say.
SCHEMA_BYTES_MAX = 12 * 1024

# Tables that are looked at; further ones are counted.
_TABLES_MAX = 500

# The schema is read between engine calls, so nobody waits long for a writer.
_BUSY_SECONDS_MAX = 0.5


def uri_of(path: Path) -> str:
    """Return what opens a file for reading only (sqlite.org/uri.html); not as `immutable`, others may write it."""
    return f"{path.absolute().as_uri()}?mode=ro"


def read_schema(path: Path) -> str:
    """Return a line for each table and view with its columns, as many as there is room for. Errors: sqlite3.Error."""
    lines: list[str] = []
    room = SCHEMA_BYTES_MAX
    with closing(sqlite3.connect(uri_of(path), uri=True, timeout=_BUSY_SECONDS_MAX)) as connection:
        connection.execute("PRAGMA query_only = ON")
        names = _names(connection)
        for name in names[:_TABLES_MAX]:
            line = f"{name}({', '.join(_columns(connection, name))})"
            room -= len(line.encode("utf-8", "replace")) + 1
            if room < 0:
                break
            lines.append(line)
    if rest := len(names) - len(lines):
        lines.append(f"... and {rest} more: SELECT name, sql FROM sqlite_schema")
    return "\n".join(lines)


def _names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM pragma_table_list"
        " WHERE schema = 'main' AND type <> 'shadow' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
    )
    return [str(name) for (name,) in rows]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    columns: list[str] = []
    with suppress(sqlite3.Error):  # a view of what is not there any more: it has no columns
        for name, kind in connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)):
            columns.append(f"{name} {kind}" if kind else str(name))
    return columns
