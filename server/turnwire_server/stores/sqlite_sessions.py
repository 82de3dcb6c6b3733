"""What a SqliteSessionStore does to sessions: each function is one operation of a transaction, or one read."""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    SessionAlreadyExistsError,
    SessionNotFoundError,
)
from turnwire_server.domain.session import NewSession, Session, SessionChange, SessionOrigin, StepMode
from turnwire_server.stores.base import TOKEN_AGE_MIN
from turnwire_server.stores.intake import (
    IDEMPOTENCY_KEY_ORPHAN_AGE_MIN,
    changed_session,
    check_revision,
    encode_map,
    new_session,
    session_bytes,
)
from turnwire_server.stores.page import Page, take_listing
from turnwire_server.stores.sqlite_rows import (
    SELECT_SESSION,
    encode_config,
    optional_micros,
    session_from_row,
    step_mode_to_columns,
    to_micros,
)
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.start import Idempotency

# How many tokens are forgotten at a time: as many as a busy server uses between two sweeps.
_FORGOTTEN_MAX = 5000


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as it is stored. `token` is what its log was created with."""

    key: int
    principal: str
    token: str
    session: Session


@dataclass(frozen=True, slots=True)
class Trunk:
    """Where a fork begins: the row of the session that has the last turn that it shares, and what is told of it."""

    key: int
    origin: SessionOrigin


@dataclass(frozen=True, slots=True)
class Created:
    """What the first call with an idempotency key made."""

    session_id: str
    inference_id: str


def find_session(connection: sqlite3.Connection, principal: str, session_id: str) -> SessionRow | None:
    """Return a session, None if there is none."""
    where = " WHERE s.principal = ? AND s.session_id = ?"
    row = connection.execute(SELECT_SESSION + where, (principal, session_id)).fetchone()
    if row is None:
        return None
    return SessionRow(row["key"], principal, row["log"], session_from_row(row))


def load_session(connection: sqlite3.Connection, principal: str, session_id: str) -> SessionRow:
    """Return a session. Errors: SessionNotFoundError."""
    found = find_session(connection, principal, session_id)
    if found is None:
        raise SessionNotFoundError(session_id=session_id)
    return found


def list_sessions(
    connection: sqlite3.Connection, principal: str, labels: Mapping[str, str], limit: int, before: int | None
) -> Page[Session]:
    """See SessionStore."""
    joins = "".join(
        f" JOIN label l{n} ON l{n}.session = s.key AND l{n}.name = ? AND l{n}.value = ?" for n in range(len(labels))
    )
    filters = [text for label in labels.items() for text in label]
    rows = connection.execute(
        f"{SELECT_SESSION}{joins} WHERE s.principal = ? AND s.key < ? ORDER BY s.key DESC LIMIT ?",
        (*filters, principal, 2**63 - 1 if before is None else before, limit + 1),
    )
    return take_listing(((row["key"], session_from_row(row)) for row in rows), limit, session_bytes)


def create_session(
    tx: Transaction,
    principal: str,
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
    created = insert_session(tx, principal, new, token)
    if idempotency:
        record_creation(tx, principal, idempotency, created, "")
    return created.session, True


def find_sent(
    tx: Transaction, principal: str, new: NewSession, token: str, idempotency: Idempotency | None
) -> tuple[Session, bool] | None:
    """Return what a call that creates a session made when it was sent before; None if it was not: now it is.

    Errors: IdempotencyKeyReusedError; SessionNotFoundError, if what it made is gone.
    """
    if idempotency and (made := pass_gate(tx, principal, idempotency)):
        row = load_session(tx.connection, principal, made.session_id)
        return row.session, row.token == token
    if idempotency or use_token(tx, token):
        return None
    row = load_session(tx.connection, principal, new.session_id)
    if row.token != token:  # it was deleted, and another one has its name
        raise SessionNotFoundError(session_id=new.session_id)
    return row.session, True


def insert_session(
    tx: Transaction, principal: str, new: NewSession, token: str, trunk: Trunk | None = None
) -> SessionRow:
    """Create a session. Errors: SessionAlreadyExistsError."""
    session = new_session(new, token, tx.mint, tx.now(), trunk.origin if trunk else None)
    create_time, expire_time = to_micros(session.create_time), optional_micros(session.expire_time)
    inserted = tx.connection.execute(
        "INSERT INTO session (principal, session_id, log, turn_count, create_time, update_time, expire_time, due_time,"
        " ttl, trunk, trunk_index) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (principal, session_id) DO NOTHING"
        " RETURNING key, log || '.' || (SELECT value FROM meta WHERE name = 'incarnation') AS log_token",
        (
            principal,
            session.session_id,
            session.log,
            session.turn_count,
            create_time,
            create_time,
            expire_time,
            expire_time,
            None if expire_time is None else expire_time - create_time,
            trunk.key if trunk else None,
            trunk.origin.index if trunk else None,
        ),
    ).fetchall()
    if not inserted:
        raise SessionAlreadyExistsError(session_id=session.session_id)
    [row] = inserted
    _write_description(tx, row["key"], session)
    _write_labels(tx, row["key"], session)
    return SessionRow(row["key"], principal, token, replace(session, log=row["log_token"]))


def update_session(
    tx: Transaction, principal: str, session_id: str, change: SessionChange, revision: int | None, token: str
) -> Session:
    """See SessionStore."""
    row = load_session(tx.connection, principal, session_id)
    if not use_token(tx, token):
        return row.session
    check_revision(row.session, revision)
    changed = changed_session(row.session, change, tx.now())
    tx.connection.execute(
        "UPDATE session SET revision = ?, update_time = ? WHERE key = ?",
        (changed.revision, to_micros(changed.update_time), row.key),
    )
    _write_description(tx, row.key, changed)
    tx.connection.execute("DELETE FROM label WHERE session = ?", (row.key,))
    _write_labels(tx, row.key, changed)
    return changed


def set_step_mode(tx: Transaction, principal: str, session_id: str, step_mode: StepMode | None, token: str) -> Session:
    """See SessionStore."""
    row = load_session(tx.connection, principal, session_id)
    if not use_token(tx, token):
        return row.session
    tx.connection.execute(
        "UPDATE description SET step_deadline = ?, step_action = ? WHERE session = ?",
        (*step_mode_to_columns(step_mode), row.key),
    )
    return replace(row.session, step_mode=step_mode)


def pass_gate(tx: Transaction, principal: str, idempotency: Idempotency) -> Created | None:
    """Take an idempotency key; return what its first use made, None if this is the first.

    Errors: IdempotencyKeyReusedError; SessionNotFoundError, if what it made is gone.
    """
    cursor = tx.connection.execute(
        "INSERT INTO idempotency (principal, rpc, key, fingerprint) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (principal, rpc, key) DO NOTHING",
        (principal, idempotency.rpc, idempotency.key, idempotency.fingerprint),
    )
    if cursor.rowcount == 1:
        return None
    row = tx.connection.execute(
        "SELECT fingerprint, session, session_id, inference_id FROM idempotency"
        " WHERE principal = ? AND rpc = ? AND key = ?",
        (principal, idempotency.rpc, idempotency.key),
    ).fetchone()
    if row["fingerprint"] != idempotency.fingerprint:
        raise IdempotencyKeyReusedError(rpc=idempotency.rpc)
    if row["session"] is None:
        raise SessionNotFoundError(session_id=row["session_id"])
    return Created(row["session_id"], row["inference_id"])


def record_creation(
    tx: Transaction, principal: str, idempotency: Idempotency, row: SessionRow, inference_id: str
) -> None:
    """Record what the call with an idempotency key made."""
    tx.connection.execute(
        "UPDATE idempotency SET session = ?, session_id = ?, inference_id = ?"
        " WHERE principal = ? AND rpc = ? AND key = ?",
        (row.key, row.session.session_id, inference_id, principal, idempotency.rpc, idempotency.key),
    )


def use_token(tx: Transaction, token: str) -> bool:
    """Remember the token of a call; return False if the call has happened already."""
    insert = "INSERT INTO token (token, create_time) VALUES (?, ?) ON CONFLICT (token) DO NOTHING"
    return tx.connection.execute(insert, (token, to_micros(tx.now()))).rowcount == 1


def renew_incarnation(tx: Transaction) -> None:
    """Give every log another identity."""
    tx.connection.execute("UPDATE meta SET value = ? WHERE name = 'incarnation'", (tx.mint(),))


def forget_keys(tx: Transaction) -> None:
    """Forget the keys whose session has been gone for long enough, and old tokens."""
    oldest = to_micros(tx.now() - IDEMPOTENCY_KEY_ORPHAN_AGE_MIN)
    tx.connection.execute("DELETE FROM idempotency WHERE session_delete_time < ?", (oldest,))
    tx.connection.execute(
        "DELETE FROM token WHERE token IN (SELECT token FROM token WHERE create_time < ? LIMIT ?)",
        (to_micros(tx.now() - TOKEN_AGE_MIN), _FORGOTTEN_MAX),
    )


def _write_description(tx: Transaction, key: int, session: Session) -> None:
    tx.connection.execute(
        "INSERT INTO description (session, display_name, profile, metadata, config, origin) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (session) DO UPDATE SET display_name = excluded.display_name,"
        " profile = excluded.profile, metadata = excluded.metadata, config = excluded.config",
        (
            key,
            session.display_name,
            session.profile,
            encode_map(session.metadata),
            encode_config(session.config),
            session.origin.session_id if session.origin else None,
        ),
    )


def _write_labels(tx: Transaction, key: int, session: Session) -> None:
    tx.connection.executemany(
        "INSERT INTO label (session, name, value) VALUES (?, ?, ?)",
        [(key, name, value) for name, value in session.labels.items()],
    )
