"""Forking a session of a SqliteSessionStore: the fork names the session that has its turns, and nothing is copied."""

from collections.abc import Callable

from turnwire_server.domain.session import NewSession, Session, SessionOrigin
from turnwire_server.stores.intake import choose_fork_index
from turnwire_server.stores.sqlite_sessions import Trunk, find_sent, insert_session, load_session, record_creation
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import find_place
from turnwire_server.stores.start import Idempotency

# Only an inference that is active has a turn that is OPEN, and at most one of a session is.
_SELECT_OPEN = """
    SELECT t.turn_index FROM inference i INDEXED BY inference_active JOIN turn t ON t.inference = i.key
    WHERE i.session = ? AND i.is_active = 1"""


def fork_session(
    tx: Transaction,
    principal: str,
    session_id: str,
    index: int | None,
    new: NewSession,
    token: str,
    idempotency: Idempotency | None,
    check: Callable[[], object] | None,
) -> tuple[Session, bool]:
    """See SessionStore."""
    if sent := find_sent(tx, principal, new, token, idempotency):
        return sent
    if check:
        check()
    origin = load_session(tx.connection, principal, session_id)
    opened = tx.connection.execute(_SELECT_OPEN, (origin.key,)).fetchone()
    first_open = opened["turn_index"] if opened else None
    chosen = choose_fork_index(session_id, index, origin.session.turn_count, first_open)
    trunk = Trunk(find_place(tx.connection, origin.key, chosen), SessionOrigin(session_id, chosen))
    created = insert_session(tx, principal, new, token, trunk)
    if idempotency:
        record_creation(tx, principal, idempotency, created, "")
    return created.session, True
