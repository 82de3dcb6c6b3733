"""Reading the event log of a SqliteSessionStore, cutting off its beginning, and finding what may be cut."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile

from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import Base, Retired
from turnwire_server.stores.intake import check_cut
from turnwire_server.stores.page import LogPage, take_chunks
from turnwire_server.stores.sqlite_inferences import list_unfinished
from turnwire_server.stores.sqlite_rows import to_micros
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_transaction import Transaction

_SELECT_LOG = """
    SELECT key, head_sequence, log || '.' || (SELECT value FROM meta WHERE name = 'incarnation') AS log_token,
        coalesce((SELECT through_sequence FROM base WHERE session = s.key), 0) + 1 AS earliest
    FROM session s WHERE principal = ? AND session_id = ?"""

# An inference that ended later, or has not ended, keeps what comes from its first event on.
_SELECT_RETIRED = """
    SELECT s.principal, s.session_id, coalesce((
        SELECT i.first_sequence - 1 FROM inference i INDEXED BY inference_listing
        WHERE i.session = s.key AND i.key >= coalesce(b.first_inference, 0)
            AND i.last_sequence > coalesce(b.through_sequence, 0)
            AND (i.end_time IS NULL OR i.end_time >= :ended_before)
        ORDER BY i.key LIMIT 1
    ), s.head_sequence)
    FROM session s INDEXED BY session_retirement LEFT JOIN base b ON b.session = s.key
    WHERE s.retire_time < :ended_before ORDER BY s.retire_time, s.key LIMIT :limit OFFSET :skip"""

_SELECT_ENDS = """
    SELECT key, first_sequence, last_sequence, end_time FROM inference INDEXED BY inference_listing
    WHERE session = :session AND key >= coalesce((SELECT first_inference FROM base WHERE session = :session), 0)
    ORDER BY key"""

_SELECT_CHUNKS = """
    SELECT first_sequence, last_sequence, inference_id, state, frames FROM chunk
    WHERE session = ? AND last_sequence > ? AND last_sequence <= ?"""


def read_log(
    connection: sqlite3.Connection, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str
) -> LogPage:
    """See SessionStore."""
    log = connection.execute(_SELECT_LOG, (principal, session_id)).fetchone()
    if log is None:
        raise SessionNotFoundError(session_id=session_id)
    head = log["head_sequence"]
    chunks = _read_chunks(connection, log["key"], after, head, inference_id)
    taken, through = take_chunks(chunks, after, head, limit_bytes)
    return LogPage(log["log_token"], log["earliest"], head, taken, through)


def read_base(connection: sqlite3.Connection, principal: str, session_id: str) -> Base:
    """See SessionStore."""
    key = load_session(connection, principal, session_id).key
    row = connection.execute("SELECT through_sequence, fold FROM base WHERE session = ?", (key,)).fetchone()
    return Base(*row) if row else Base()


def compact(tx: Transaction, principal: str, session_id: str, base: Base) -> None:
    """See SessionStore."""
    connection, through = tx.connection, base.through_sequence
    if through <= read_base(connection, principal, session_id).through_sequence:
        return
    row = load_session(connection, principal, session_id)
    head = row.session.head_sequence
    unfinished = [each.inference.first_sequence for each in list_unfinished(connection, row.key)]
    check_cut(through, head, unfinished)
    # A chunk that begins before the cut and ends behind it keeps its end.
    for chunk in _read_chunks(connection, row.key, through, head, ""):
        if rest := chunk.cut(through, head):
            connection.execute(
                "UPDATE chunk SET first_sequence = ?, frames = ? WHERE session = ? AND last_sequence = ?",
                (rest.first_sequence, rest.data, row.key, rest.last_sequence),
            )
        break
    connection.execute("DELETE FROM chunk WHERE session = ? AND last_sequence <= ?", (row.key, through))
    first, retire_time = _find_retirement(connection, row.key, through)
    connection.execute(
        "INSERT INTO base (session, through_sequence, fold, first_inference) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (session) DO UPDATE SET through_sequence = excluded.through_sequence, fold = excluded.fold,"
        " first_inference = excluded.first_inference",
        (row.key, through, base.fold, first),
    )
    connection.execute("UPDATE session SET retire_time = ? WHERE key = ?", (retire_time, row.key))
    tx.cut(row.key, principal, session_id, through)


def find_retired(connection: sqlite3.Connection, ended_before: datetime, limit: int, skip: int) -> tuple[Retired, ...]:
    """See SessionStore."""
    bounds = {"ended_before": to_micros(ended_before), "limit": limit, "skip": skip}
    return tuple(Retired(*row) for row in connection.execute(_SELECT_RETIRED, bounds))


def _find_retirement(connection: sqlite3.Connection, session: int, through: int) -> tuple[int, int | None]:
    """Return what base.first_inference and session.retire_time are once a log is cut.

    First sequences rise with the keys of their inferences, so no more is looked at than what the cut is about.
    """
    rows = takewhile(
        lambda row: row["first_sequence"] <= through + 1, connection.execute(_SELECT_ENDS, {"session": session})
    )
    behind = [row for row in rows if row["last_sequence"] > through]
    if not behind:  # the whole log is cut
        newest = connection.execute("SELECT max(key) AS key FROM inference WHERE session = ?", (session,)).fetchone()
        return newest["key"] + 1, None
    ends = [row["end_time"] for row in behind]
    return behind[0]["key"], None if None in ends else max(ends)


def _read_chunks(
    connection: sqlite3.Connection, session: int, after: int, head: int, inference_id: str
) -> Iterator[Chunk]:
    query = _SELECT_CHUNKS
    arguments: tuple[int | str, ...] = (session, after, head)
    if inference_id:
        # Its chunks end between its first and its last event; the rest of the log is not looked at.
        bounds = "SELECT first_sequence, last_sequence FROM inference WHERE inference_id = ? AND session = ?"
        found = connection.execute(bounds, (inference_id, session)).fetchone()
        if found is None:
            return
        query = f"{query} AND inference_id = ?"
        arguments = (session, max(after, found["first_sequence"] - 1), found["last_sequence"], inference_id)
    for first, last, owner, state, frames in connection.execute(f"{query} ORDER BY last_sequence", arguments):
        yield Chunk(first, last, owner, None if state is None else InferenceState(state), frames)
