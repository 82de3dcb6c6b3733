"""Reading the event log of a SqliteSessionStore, and cutting off its beginning."""

import sqlite3
from collections.abc import Iterator

from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import Base
from turnwire_server.stores.intake import check_cut
from turnwire_server.stores.page import LogPage, take_chunks
from turnwire_server.stores.sqlite_inferences import list_unfinished
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_writer import Transaction

_SELECT_LOG = """
    SELECT key, head_sequence, log || '.' || (SELECT value FROM meta WHERE name = 'incarnation') AS log_token,
        coalesce((SELECT through_sequence FROM base WHERE session = s.key), 0) + 1 AS earliest
    FROM session s WHERE principal = ? AND session_id = ?"""

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
    connection.execute(
        "INSERT INTO base (session, through_sequence, fold) VALUES (?, ?, ?) ON CONFLICT (session)"
        " DO UPDATE SET through_sequence = excluded.through_sequence, fold = excluded.fold",
        (row.key, through, base.fold),
    )
    tx.cut(row.key, principal, session_id, through)


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
