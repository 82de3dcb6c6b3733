"""One SQL query, or one look at the schema, in a process of its own.

The request is JSON on standard input; on standard output a query gives JSON, and the schema is text.

Why a process: SQLite cannot be stopped, nor its memory and its temporary files bounded, for one connection among others
in a process. A statement of a kilobyte can keep its preparation busy for hours, without end to its memory, and a view
of the file is prepared already when its columns are asked for. Here the operating system holds the limits, and a kill
ends it at any moment. What SQLite enforces: the file is opened read-only, and an authorizer lets pass what reads and
nothing else.

This file is run by its path and imports only the standard library, so that it starts in some 50 ms.
"""

import base64
import json
import math
import os
import resource
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

# What runs this file. Isolated: neither the environment nor the working folder changes what is run.
COMMAND = (sys.executable, "-I", "-S", "-B", __file__)

# The exit status when standard output has the reason why there is no result: an error, or the end of the memory.
REFUSED = 3
EXHAUSTED = 4

# Python and SQLite need some 50 MiB of it.
MEMORY_BYTES_MAX = 512 * 1024 * 1024

# A temporary file, as sorting makes them, and how many files may be open: the database has three.
FILE_BYTES_MAX = 128 * 1024 * 1024
FILES_OPEN_MAX = 24

# One value, or one row of a table, while the query works on it.
VALUE_BYTES_MAX = 16 * 1024 * 1024

# How long a query waits for the end of a transaction, where a writer keeps readers out.
BUSY_SECONDS_MAX = 1.0

# Tables that are looked at for the schema; further ones are counted.
_TABLES_MAX = 500

# What the end of a result may take: `], "row_count": 1000000, "truncated": true}`.
_END_BYTES = 64

# What reads. To declare a virtual table (FTS, R-tree, json_each) SQLite asks for an update of its schema, which it does
# not carry out, and which a read-only file would refuse. FTS asks for these pragmas without a value: they only tell.
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_SCHEMA_TABLE = "sqlite_master"
_PRAGMAS = frozenset({"data_version", "page_size"})
_SCHEMA_PRAGMAS = frozenset({"table_list", "table_info"})
_FUNCTIONS_DENIED = frozenset({"load_extension", "fts3_tokenizer"})

Scalar = str | int | float | bytes | None


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """What a query asks. `uri` names the file; the limits are those of SqlToolSettings."""

    uri: str
    sql: str
    params: list[Scalar]
    rows_max: int
    bytes_max: int
    cell_bytes_max: int
    seconds_max: float


@dataclass(frozen=True, slots=True)
class SchemaRequest:
    """What asks for the schema. `uri` names the file; `bytes_max` is about what the text may take."""

    uri: str
    bytes_max: int
    seconds_max: float


def main() -> int:
    """Answer the request on standard input; return the exit status."""
    asked = json.load(sys.stdin.buffer)
    request = QueryRequest(**asked) if "sql" in asked else SchemaRequest(**asked)
    confine(request.seconds_max)
    try:
        answer, status = query(request) if isinstance(request, QueryRequest) else schema(request), 0
    except MemoryError:
        answer, status = "the query needs more memory than it may have", EXHAUSTED
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        answer, status = str(error), REFUSED
    sys.stdout.buffer.write(answer.encode("utf-8", "replace"))
    return status


def confine(seconds_max: float) -> None:
    """Set the limits that the operating system holds; the time is up with SIGALRM, which ends the process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds_max)
    os.nice(5)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES_MAX)
    _limit(resource.RLIMIT_NOFILE, FILES_OPEN_MAX)
    with suppress(ValueError):  # not every system has this limit; there the time bounds the memory
        _limit(resource.RLIMIT_AS, MEMORY_BYTES_MAX)


def _limit(what: int, wanted: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(what, (limit, limit))


def query(request: QueryRequest) -> str:
    """Return the result as JSON text. Errors: those of sqlite3, ValueError, OverflowError, MemoryError."""
    with closing(connect(request.uri)) as connection:
        cursor = connection.execute(request.sql, request.params)
        if not cursor.description:
            msg = "there is no statement that returns rows"
            raise ValueError(msg)
        columns = [str(column[0]) for column in cursor.description]
        return result_of(columns, cursor, request)


def connect(uri: str) -> sqlite3.Connection:
    """Open the file so that statements can only read."""
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS_MAX, isolation_level=None)
    connection.text_factory = _decode
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(authorize)
    return connection


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def authorize(action: int, first: str | None, second: str | None, _database: str | None, _source: str | None) -> int:
    """Decide whether a statement may do something (sqlite3_set_authorizer): only what reads."""
    is_allowed = (
        action in _READS
        or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FUNCTIONS_DENIED)
        or (action == sqlite3.SQLITE_UPDATE and first == _SCHEMA_TABLE)
        or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS and second is None)
    )
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def result_of(columns: list[str], rows: Iterator[tuple[Scalar, ...]], request: QueryRequest) -> str:
    """Return the result with as many of the rows as the limits allow."""
    begin = f'{{"columns": {_json(columns)}, "rows": ['
    size = len(begin.encode("utf-8", "replace")) + _END_BYTES
    if size > request.bytes_max:
        msg = f"the names of the columns pass the {request.bytes_max} bytes that a result may have"
        raise ValueError(msg)
    texts: list[str] = []
    is_truncated = False
    for row in rows:
        cells = [_cell(value, request.cell_bytes_max) for value in row]
        text = _json([cell for cell, _ in cells])
        size += len(text.encode("utf-8", "replace")) + 2
        if len(texts) == request.rows_max or size > request.bytes_max:
            is_truncated = True
            break
        is_truncated = is_truncated or any(is_cut for _, is_cut in cells)
        texts.append(text)
    return f'{begin}{", ".join(texts)}], "row_count": {len(texts)}, "truncated": {_json(is_truncated)}}}'


def _cell(value: Scalar, bytes_max: int) -> tuple[object, bool]:
    """Return a value for JSON, and whether it was cut. Bytes are an object, so that no text looks like them."""
    match value:
        case bytes():
            kept = value[: bytes_max * 3 // 4]
            return {"base64": base64.b64encode(kept).decode(), "byte_count": len(value)}, len(kept) < len(value)
        case str():
            encoded = value.encode("utf-8", "replace")
            if len(encoded) <= bytes_max:
                return value, False
            return encoded[:bytes_max].decode("utf-8", "ignore") + "…", True
        case float() if not math.isfinite(value):
            return str(value), False  # JSON has no such number
        case _:
            return value, False


def schema(request: SchemaRequest) -> str:
    """Return a line for each table and view with its columns, as many as there is room for. Errors: those of query."""
    lines: list[str] = []
    room = request.bytes_max
    with closing(connect(request.uri)) as connection:
        connection.set_authorizer(authorize_schema)
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


def authorize_schema(action: int, first: str | None, second: str | None, database: str | None, by: str | None) -> int:
    """Decide as `authorize` does, and let pass the pragmas that tell the schema."""
    if action == sqlite3.SQLITE_PRAGMA and first in _SCHEMA_PRAGMAS:
        return sqlite3.SQLITE_OK
    return authorize(action, first, second, database, by)


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


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
