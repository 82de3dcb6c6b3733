"""Reading the event log of a SqliteSessionStore."""

import sqlite3
from collections.abc import Iterator

from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import LogPage
from turnwire_server.stores.page import take_chunks

_SELECT_LOG = """
    SELECT key, head_sequence, log || '.' || (SELECT value FROM meta WHERE name = 'incarnation') AS log_token,
        coalesce((SELECT first_sequence FROM chunk WHERE session = s.key ORDER BY last_sequence LIMIT 1), 1) AS earliest
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
