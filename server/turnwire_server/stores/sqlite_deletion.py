"""Deleting sessions of a SqliteSessionStore: at once for everyone, and piece by piece in the file.

A deleted session belongs to nobody: its principal is empty, which is nobody's, and its name is that of its log, so its
own name is free. Whatever is asked for by principal does not find it, nor anything that belongs to it.
"""

from turnwire_server.domain.errors import SessionBusyError, SessionNotFoundError
from turnwire_server.domain.event import Cancelled
from turnwire_server.stores.intake import check_revision
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.sqlite_inferences import cancel, end, find_inference, list_unfinished
from turnwire_server.stores.sqlite_rows import to_micros
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_writer import Transaction

# How many rows one purge removes, so that it never keeps the store for long; chunks are large, and so fewer.
_PURGED_ROWS_MAX = 200
_PURGED_CHUNKS_MAX = 20

_PURGES = (
    (_PURGED_CHUNKS_MAX, "DELETE FROM chunk WHERE key IN (SELECT key FROM chunk WHERE session = ? LIMIT ?)"),
    (_PURGED_ROWS_MAX, "DELETE FROM inference WHERE key IN (SELECT key FROM inference WHERE session = ? LIMIT ?)"),
)


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
    tx.connection.execute(
        "UPDATE idempotency SET session = NULL, session_delete_time = ? WHERE session = ?",
        (to_micros(tx.now()), row.key),
    )
    tx.connection.execute("UPDATE session SET principal = '', session_id = log WHERE key = ?", (row.key,))
    tx.forget(row.key, principal, session_id)


def purge(tx: Transaction) -> bool:
    """Remove a piece of what is left of deleted sessions; return whether there is more."""
    left = _PURGED_ROWS_MAX
    while left > 0:
        find = "SELECT key FROM session WHERE principal = '' ORDER BY key LIMIT 1"
        session = tx.connection.execute(find).fetchone()
        if session is None:
            return False
        for rows_max, purge_rows in _PURGES:
            count = tx.connection.execute(purge_rows, (session["key"], rows_max)).rowcount
            if count == rows_max:
                return True
            left -= count
        tx.connection.execute("DELETE FROM session WHERE key = ?", (session["key"],))
        left -= 1
    return True
