"""What a SqliteSessionStore does with inferences that wait for their client.

In SQL, state 3 is WAITING_FOR_TOOLS and 4 is PAUSED: partial indexes are only used for literals. Indexes are named, so
that SQLite never goes through all inferences there ever were instead.
"""

import sqlite3
from dataclasses import replace
from datetime import datetime

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import InferenceNotWaitingError
from turnwire_server.domain.inference import WAITING_STATES, Inference, InferenceState
from turnwire_server.stores.base import Amend, Due, Waiting
from turnwire_server.stores.intake import waiting_bytes
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.page import Page, take_listing
from turnwire_server.stores.sqlite_inferences import (
    end,
    load_inference,
    move,
    read_checkpoint,
    write,
    write_checkpoint,
)
from turnwire_server.stores.sqlite_rows import SELECT_INFERENCE, InferenceRow, inference_from_row, to_micros
from turnwire_server.stores.sqlite_sessions import load_session, pass_gate, record_creation, use_token
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import add_blocks
from turnwire_server.stores.start import Idempotency

_SELECT_DUE = """
    SELECT s.principal, i.inference_id FROM inference i INDEXED BY inference_due JOIN session s ON s.key = i.session
    WHERE i.wake IS NOT NULL AND i.wake <= ? ORDER BY i.wake, i.key LIMIT ?"""

_SELECT_WAITING = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT w.key FROM inference w INDEXED BY inference_client CROSS JOIN session o ON o.key = w.session
        WHERE w.state = {{state:d}} AND w.key > :after AND o.principal = :principal ORDER BY w.key LIMIT :limit
    ) ORDER BY i.key"""

# At most one: what waits for its client is active.
_SELECT_WAITING_OF_SESSION = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT w.key FROM inference w INDEXED BY inference_active
        WHERE w.session = :session AND w.is_active = 1 AND w.state = :state AND w.key > :after
    )"""


def amend(
    tx: Transaction,
    principal: str,
    inference_id: str,
    token: str,
    decide: Amend,
    idempotency: Idempotency | None,
) -> Inference:
    """See SessionStore."""
    row = load_inference(tx.connection, principal, inference_id)
    if idempotency and pass_gate(tx, principal, idempotency):
        return row.inference
    if not idempotency and not use_token(tx, token):
        return row.inference
    if row.inference.state not in WAITING_STATES:
        raise InferenceNotWaitingError(inference_id=inference_id, state=row.inference.state.name)
    amendment = decide(_read_waiting(tx.connection, row))
    write_checkpoint(tx, row.key, amendment.checkpoint)
    count = add_blocks(tx, principal, row.key, row.block_count, amendment.blocks)
    row = replace(row, block_count=count)
    if idempotency:
        session = load_session(tx.connection, principal, row.inference.session_id)
        record_creation(tx, principal, idempotency, session, inference_id)
    told = write(tx, row, row.inference, (), None, amendment.events)
    row = replace(row, inference=told, event_count=row.event_count + len(amendment.events))
    if amendment.outcome:
        return end(tx, row, Ending(amendment.outcome))
    return move(tx, row, lifecycle.release(told, tx.now())) if amendment.is_released else told


def list_waiting(
    connection: sqlite3.Connection,
    principal: str,
    session_id: str,
    state: InferenceState,
    limit: int,
    after: int | None,
) -> Page[Waiting]:
    """See SessionStore."""
    bounds: dict[str, int | str] = {"state": int(state), "after": 0 if after is None else after, "limit": limit + 1}
    if session_id:
        session = load_session(connection, principal, session_id)
        rows = connection.execute(_SELECT_WAITING_OF_SESSION, {**bounds, "session": session.key})
    else:
        rows = connection.execute(_SELECT_WAITING.format(state=state), {**bounds, "principal": principal})
    found = map(inference_from_row, rows)
    return take_listing(((row.key, _read_waiting(connection, row)) for row in found), limit, waiting_bytes)


def find_due(connection: sqlite3.Connection, now: datetime, limit: int) -> tuple[Due, ...]:
    """See SessionStore."""
    return tuple(Due(*row) for row in connection.execute(_SELECT_DUE, (to_micros(now), limit)))


def _read_waiting(connection: sqlite3.Connection, row: InferenceRow) -> Waiting:
    return Waiting(row.inference, read_checkpoint(connection, row.key))
