"""Deleting sessions of a SqliteSessionStore: at once for everyone, and piece by piece in the file.

A deleted session belongs to nobody: its principal is empty, which is nobody's, and its name is that of its log, so its
own name is free. Whatever is asked for by principal does not find it, nor anything that belongs to it. Turns that forks
share with it stay until the last of those forks is removed.
"""

import sqlite3
from datetime import datetime

from turnwire_server.domain.errors import SessionBusyError, SessionNotFoundError
from turnwire_server.domain.event import Cancelled
from turnwire_server.stores.intake import check_revision
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.sqlite_inferences import KEYS_IN_LINE, cancel, end, find_inference, list_unfinished
from turnwire_server.stores.sqlite_rows import to_micros
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_transaction import Transaction

# How many sessions one sweep deletes, so that it never keeps the store for long.
_EXPIRED_MAX = 100

# How many rows one purge looks at, likewise; chunks are large, and so fewer.
_PURGED_ROWS_MAX = 200
_PURGED_CHUNKS_MAX = 20

_SELECT_DUE = """
    SELECT key, principal, session_id FROM session INDEXED BY session_due WHERE due_time <= ?
    ORDER BY due_time LIMIT ?"""

# `kept`: up to which index its turns are shared.
_SELECT_PURGED = """
    SELECT key, trunk, trunk_index, purged_through,
        coalesce((SELECT max(f.trunk_index) FROM session f WHERE f.trunk = s.key), -1) AS kept
    FROM session s INDEXED BY session_purge WHERE purged_through IS NOT NULL ORDER BY key LIMIT 1"""

_DELETE_CHUNKS = "DELETE FROM chunk WHERE key IN (SELECT key FROM chunk WHERE session = ? LIMIT ?)"

_SELECT_INFERENCES = """
    SELECT i.key, coalesce(t.turn_index <= ?, 0) AS is_kept
    FROM inference i INDEXED BY inference_listing LEFT JOIN turn t ON t.inference = i.key
    WHERE i.session = ? AND i.key > ? ORDER BY i.key LIMIT ?"""

# Of what is deleted as well, some may have been kept for this fork alone.
_REOPEN_TRUNK = """
    UPDATE session SET purged_through = 0 WHERE key = :trunk AND principal = ''
    AND NOT EXISTS (SELECT 1 FROM session f WHERE f.trunk = :trunk AND f.trunk_index >= :index)"""


def delete_session(
    tx: Transaction, principal: str, session_id: str, revision: int | None, *, force: bool, log: str
) -> None:
    """See SessionStore."""
    row = load_session(tx.connection, principal, session_id)
    if log not in ("", row.session.log):
        raise SessionNotFoundError(session_id=session_id)
    check_revision(row.session, revision)
    unfinished = list_unfinished(tx.connection, row.key)
    if unfinished and not force:
        raise SessionBusyError(session_id=session_id, inference_id=unfinished[0].inference.inference_id)
    for each in unfinished:
        cancel(tx, each, "")
        left = find_inference(tx.connection, principal, each.inference.inference_id)
        if left and not left.inference.state.is_terminal:
            end(tx, left, Ending(Cancelled()))
    _disown(tx, row.key, principal, session_id)


def expire_sessions(tx: Transaction, now: datetime) -> bool:
    """Delete sessions whose time has come; return whether there are more.

    One with an inference that has not ended is not looked at again before that has ended, which gives it another time.
    """
    due = tx.connection.execute(_SELECT_DUE, (to_micros(now), _EXPIRED_MAX)).fetchall()
    for session in due:
        if tx.connection.execute(KEYS_IN_LINE, {"session": session["key"]}).fetchone():
            tx.connection.execute("UPDATE session SET due_time = NULL WHERE key = ?", (session["key"],))
        else:
            _disown(tx, *session)
    return len(due) == _EXPIRED_MAX


def purge(tx: Transaction) -> bool:
    """Remove a piece of what is left of deleted sessions; return whether there is more."""
    left = _PURGED_ROWS_MAX
    while left > 0:
        session = tx.connection.execute(_SELECT_PURGED).fetchone()
        if session is None:
            return False
        count = tx.connection.execute(_DELETE_CHUNKS, (session["key"], _PURGED_CHUNKS_MAX)).rowcount
        if count == _PURGED_CHUNKS_MAX:
            return True
        left -= count + _purge_inferences(tx, session, left)
    return True


def _disown(tx: Transaction, key: int, principal: str, session_id: str) -> None:
    """Make a session nobody's, and say so."""
    tx.connection.execute(
        "UPDATE idempotency SET session = NULL, session_delete_time = ? WHERE session = ?", (to_micros(tx.now()), key)
    )
    tx.connection.execute(
        "UPDATE session SET principal = '', session_id = log, due_time = NULL, retire_time = NULL, purged_through = 0"
        " WHERE key = ?",
        (key,),
    )
    tx.forget(key, principal, session_id)


def _purge_inferences(tx: Transaction, session: sqlite3.Row, limit: int) -> int:
    """Look through inferences of a deleted session, and end its purge after the last one; return how many rows it was.

    Where a turn is shared, its inference stays with nothing but its name.
    """
    key, kept, after = session["key"], session["kept"], session["purged_through"]
    rows = tx.connection.execute(_SELECT_INFERENCES, (kept, key, after, limit)).fetchall()
    gone = [(row["key"],) for row in rows if not row["is_kept"]]
    bare = [(row["key"],) for row in rows if row["is_kept"]]
    tx.connection.executemany("DELETE FROM inference WHERE key = ?", gone)
    tx.connection.executemany("UPDATE inference SET record = x'' WHERE key = ? AND record <> x''", bare)
    tx.connection.executemany("DELETE FROM mark WHERE inference = ?", bare)
    if len(rows) == limit:
        tx.connection.execute("UPDATE session SET purged_through = ? WHERE key = ?", (rows[-1]["key"], key))
        return limit
    if kept < 0:
        tx.connection.execute("DELETE FROM session WHERE key = ?", (key,))
        tx.connection.execute(_REOPEN_TRUNK, {"trunk": session["trunk"], "index": session["trunk_index"]})
    else:
        for table in ("description", "label", "base"):
            tx.connection.execute(f"DELETE FROM {table} WHERE session = ?", (key,))
        tx.connection.execute("UPDATE session SET purged_through = NULL WHERE key = ?", (key,))
    return len(rows) + 1
