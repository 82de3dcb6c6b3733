"""What a SqliteSessionStore does to inferences: each function is one operation of a transaction, or one read.

In SQL, state 1 is QUEUED and 2 is RUNNING: partial indexes are only used for literals.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import InferenceNotFoundError, NoActiveInferenceError, TurnNotFoundError
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import (
    Claim,
    Decide,
    Ending,
    Fenced,
    Lease,
    Page,
    Running,
    SessionState,
    StartCommand,
    Started,
    Unfinished,
)
from turnwire_server.stores.intake import deadline_outcome, encode_map, inference_bytes, new_inference
from turnwire_server.stores.line import InLine, Parent, choose_parent, decide_rank, find_displaced
from turnwire_server.stores.page import take_listing
from turnwire_server.stores.sqlite_rows import (
    SELECT_INFERENCE,
    InferenceRow,
    decode_overrides,
    encode_overrides,
    inference_from_row,
    inference_to_columns,
    to_micros,
)
from turnwire_server.stores.sqlite_sessions import (
    SessionRow,
    insert_session,
    load_session,
    pass_gate,
    purge_idempotency,
    record_creation,
)
from turnwire_server.stores.sqlite_turns import add_blocks, close_turn, find_turn, open_turn
from turnwire_server.stores.sqlite_writer import Transaction
from turnwire_server.wire.event import encode_event

# Where an index is named, SQLite would rather go through all inferences there ever were, in the order of their keys.

# First in their session's line: the active one, or the one of the lowest rank if none is active. Oldest first.
_SELECT_CLAIMABLE = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT w.key FROM inference w INDEXED BY inference_waiting WHERE w.state = 1 AND (w.is_active = 1 OR (
            NOT EXISTS (SELECT 1 FROM inference a WHERE a.session = w.session AND a.is_active = 1)
            AND NOT EXISTS (SELECT 1 FROM inference f WHERE f.session = w.session AND f.state = 1 AND f.rank < w.rank)
        )) ORDER BY w.key LIMIT ?
    ) ORDER BY i.key"""

_SELECT_EXPIRED = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT e.key FROM inference e INDEXED BY inference_deadline WHERE e.state = 1 AND e.deadline <= ?
    ) ORDER BY i.key"""

_SELECT_LOST = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT r.key FROM inference r INDEXED BY inference_owner
        WHERE r.state = 2 AND (r.owner <> ? OR r.inference_id IN (SELECT value FROM json_each(?)))
    ) ORDER BY i.key"""

_SELECT_LINE = """
    SELECT i.inference_id, i.state, i.is_active, i.rank, t.parent
    FROM inference i LEFT JOIN turn t ON t.inference = i.key
    WHERE i.session = ? AND (i.is_active = 1 OR i.state = 1) ORDER BY i.is_active DESC, i.rank"""

_ADVANCE_SESSION = """
    UPDATE session SET head_sequence = head_sequence + ? WHERE principal = ? AND key = (
        SELECT session FROM inference WHERE inference_id = ? AND state = 2 AND lease = ? AND position = ?
    ) RETURNING key, principal, session_id, head_sequence"""

_ADVANCE_INFERENCE = """
    UPDATE inference SET position = position + ?, event_count = event_count + ?, last_sequence = ?
    WHERE inference_id = ?"""


def find_inference(connection: sqlite3.Connection, principal: str, inference_id: str) -> InferenceRow | None:
    """Return an inference, None if there is none."""
    where = " WHERE i.inference_id = ? AND s.principal = ?"
    row = connection.execute(SELECT_INFERENCE + where, (inference_id, principal)).fetchone()
    return None if row is None else inference_from_row(row)


def load_inference(connection: sqlite3.Connection, principal: str, inference_id: str) -> InferenceRow:
    """Return an inference. Errors: InferenceNotFoundError."""
    found = find_inference(connection, principal, inference_id)
    if found is None:
        raise InferenceNotFoundError(inference_id=inference_id)
    return found


def list_inferences(
    connection: sqlite3.Connection,
    principal: str,
    session_id: str,
    states: Sequence[InferenceState],
    limit: int,
    before: int | None,
) -> Page[Inference]:
    """See SessionStore."""
    session = load_session(connection, principal, session_id)
    among = f" AND i.state IN ({', '.join(str(int(state)) for state in states)})" if states else ""
    rows = connection.execute(
        f"{SELECT_INFERENCE} WHERE i.session = ? AND i.key < ?{among} ORDER BY i.key DESC LIMIT ?",
        (session.key, 2**63 - 1 if before is None else before, limit + 1),
    )
    found = map(inference_from_row, rows)
    return take_listing(((row.key, row.inference) for row in found), limit, inference_bytes)


def list_running(connection: sqlite3.Connection, owner: str) -> tuple[Running, ...]:
    """Return what runs under leases of `owner`."""
    query = "SELECT inference_id, cancel_requested FROM inference WHERE state = 2 AND owner = ?"
    return tuple(Running(inference_id, bool(flag)) for inference_id, flag in connection.execute(query, (owner,)))


def start(tx: Transaction, command: StartCommand, decide: Decide) -> Started:
    """See SessionStore."""
    connection, principal, idempotency = tx.connection, command.principal, command.idempotency
    if idempotency and (made := pass_gate(tx, principal, idempotency)):
        return Started(load_inference(connection, principal, made.inference_id).inference, created=False)
    session = (
        load_session(connection, principal, command.target)
        if isinstance(command.target, str)
        else insert_session(tx, principal, command.target)
    )
    line = _read_line(connection, session.key)
    displaced = find_displaced(command.conflict_policy, line)
    parent = choose_parent(command, displaced)
    admission = decide(command, _read_state(connection, session, line, parent))
    if displaced:
        _flag_cancel(tx, load_inference(connection, principal, displaced.unfinished.inference_id), "")
    inference = new_inference(command, admission, session.session.session_id, tx.mint, tx.now())
    key = _insert(tx, session.key, inference, decide_rank(command.conflict_policy, line))
    add_blocks(tx, principal, key, 0, command.input)
    connection.execute(
        "INSERT INTO command (inference, engine, overrides, metadata, data, is_parent_fixed, parent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            admission.engine,
            encode_overrides(command.overrides),
            encode_map(command.metadata),
            encode_map(command.data),
            parent.is_fixed,
            parent.index,
        ),
    )
    if idempotency:
        record_creation(tx, principal, idempotency, session, inference.inference_id)
    row = load_inference(connection, principal, inference.inference_id)
    queued = lifecycle.enqueue(inference, row.inference.queue_position or 1, inference.create_time)
    return Started(_move(tx, row, queued), created=True)


def claim(tx: Transaction, owner: str, limit: int) -> tuple[Claim, ...]:
    """See SessionStore."""
    rows = tx.connection.execute(_SELECT_CLAIMABLE, (limit,)).fetchall()
    return tuple(_begin(tx, inference_from_row(row), owner) for row in rows)


def append(tx: Transaction, lease: Lease, position: int, events: Sequence[bytes]) -> None:
    """See SessionStore. The hot path: it writes two narrow rows."""
    count = len(events)
    rows = tx.connection.execute(
        _ADVANCE_SESSION, (count, lease.principal, lease.inference_id, lease.token, position)
    ).fetchall()
    if not rows:
        _check_resent(tx, lease, position + count)
        return
    session = rows[0]
    tx.record(session["key"], session, lease.inference_id, events, None)
    tx.connection.execute(_ADVANCE_INFERENCE, (count, count, session["head_sequence"], lease.inference_id))


def finish(tx: Transaction, lease: Lease, position: int, ending: Ending) -> Inference:
    """See SessionStore."""
    row = find_inference(tx.connection, lease.principal, lease.inference_id)
    if row is None or row.lease != lease.token:
        raise Fenced
    if row.inference.state.is_terminal and row.position == position + len(ending.events):
        return row.inference  # it was sent before
    if row.inference.state is not InferenceState.RUNNING or row.position != position:
        raise Fenced
    return _end(tx, row, ending)


def request_cancel(tx: Transaction, principal: str, target: str, reason: str, *, is_session: bool) -> Inference:
    """See SessionStore."""
    if is_session:
        line = _read_line(tx.connection, load_session(tx.connection, principal, target).key)
        if not line:
            raise NoActiveInferenceError(session_id=target)
        target = line[0].unfinished.inference_id
    row = load_inference(tx.connection, principal, target)
    requested = _flag_cancel(tx, row, reason)
    if requested.state is InferenceState.QUEUED and not requested.is_active:
        return _end(tx, replace(row, inference=requested), Ending(Cancelled(requested.cancel_reason)))
    return requested


def expire(tx: Transaction, now: datetime) -> tuple[Inference, ...]:
    """See SessionStore."""
    purge_idempotency(tx)
    rows = tx.connection.execute(_SELECT_EXPIRED, (to_micros(now),)).fetchall()
    expired = [inference_from_row(row) for row in rows]
    return tuple(_end(tx, row, Ending(deadline_outcome(row.inference))) for row in expired)


def reap(tx: Transaction, owner: str, orphans: Collection[str]) -> tuple[Claim, ...]:
    """See SessionStore."""
    rows = tx.connection.execute(_SELECT_LOST, (owner, json.dumps(list(orphans)))).fetchall()
    return tuple(_lease(tx, inference_from_row(row), owner) for row in rows)


def _read_line(connection: sqlite3.Connection, session: int) -> list[InLine]:
    return [
        InLine(
            Unfinished(row["inference_id"], InferenceState(row["state"]), bool(row["is_active"])),
            row["rank"],
            row["parent"],
        )
        for row in connection.execute(_SELECT_LINE, (session,))
    ]


def _read_state(
    connection: sqlite3.Connection, found: SessionRow, line: Sequence[InLine], parent: Parent
) -> SessionState:
    session = found.session
    index = parent.index if parent.is_fixed else session.turn_count - 1
    row = None if index is None else find_turn(connection, found.key, index)
    if parent.is_fixed and index is not None and row is None:
        raise TurnNotFoundError(session_id=session.session_id, index=index)
    return SessionState(session, tuple(place.unfinished for place in line), row.turn if row else None)


def _insert(tx: Transaction, session: int, inference: Inference, rank: int) -> int:
    cursor = tx.connection.execute(
        "INSERT INTO inference (inference_id, session, rank, state, is_active, deadline, cancel_requested, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (inference.inference_id, session, rank, *inference_to_columns(inference)),
    )
    return cursor.lastrowid or 0


def _begin(tx: Transaction, row: InferenceRow, owner: str) -> Claim:
    now, command = tx.now(), _read_command(tx.connection, row)
    turn = open_turn(tx, row, command, now) if row.inference.turn_index is None else None
    begun = _move(tx, row, lifecycle.begin(row.inference, command["engine"], turn, now))
    return _lease(tx, replace(row, inference=begun), owner)


def _lease(tx: Transaction, row: InferenceRow, owner: str) -> Claim:
    token = tx.mint()
    tx.connection.execute("UPDATE inference SET owner = ?, lease = ? WHERE key = ?", (owner, token, row.key))
    return _read_claim(tx.connection, replace(row, lease=token))


def _read_claim(connection: sqlite3.Connection, row: InferenceRow) -> Claim:
    command = _read_command(connection, row)
    return Claim(
        lease=Lease(row.principal, row.inference.inference_id, row.lease or ""),
        inference=row.inference,
        engine=command["engine"],
        overrides=decode_overrides(command["overrides"]),
        position=row.position,
    )


def _read_command(connection: sqlite3.Connection, row: InferenceRow) -> sqlite3.Row:
    command: sqlite3.Row = connection.execute("SELECT * FROM command WHERE inference = ?", (row.key,)).fetchone()
    return command


def _check_resent(tx: Transaction, lease: Lease, position: int) -> None:
    row = find_inference(tx.connection, lease.principal, lease.inference_id)
    is_mine = row is not None and row.lease == lease.token and row.inference.state is InferenceState.RUNNING
    if row is None or not is_mine or row.position != position:
        raise Fenced


def _flag_cancel(tx: Transaction, row: InferenceRow, reason: str) -> Inference:
    requested = lifecycle.request_cancel(row.inference, reason, tx.now())
    if requested is not row.inference:
        *_, cancel_requested, record = inference_to_columns(requested)
        tx.connection.execute(
            "UPDATE inference SET cancel_requested = ?, record = ? WHERE key = ?", (cancel_requested, record, row.key)
        )
    return requested


def _end(tx: Transaction, row: InferenceRow, ending: Ending) -> Inference:
    now = tx.now()
    own_count = add_blocks(tx, row.principal, row.key, row.block_count, ending.blocks)
    ended = lifecycle.end(
        row.inference,
        ending.outcome,
        ending.usage,
        now,
        event_count=row.event_count + len(ending.events),
        block_count=close_turn(tx, row, own_count, now),
        model=ending.model,
    )
    tx.connection.execute("DELETE FROM command WHERE inference = ?", (row.key,))
    tx.connection.execute("UPDATE session SET expire_time = ? + ttl WHERE key = ?", (to_micros(now), row.session))
    return _move(tx, row, ended, ending.events)


def _move(tx: Transaction, row: InferenceRow, move: lifecycle.Transition, before: Sequence[bytes] = ()) -> Inference:
    """Write an inference after a transition, and append its events after those that were still to be appended."""
    bodies = [*before, *map(encode_event, move.events)]
    appended = tx.append(row.session, move.inference.inference_id, bodies, move.inference.state)
    inference = replace(
        move.inference,
        first_sequence=row.inference.first_sequence or appended.first_sequence,
        last_sequence=appended.first_sequence + len(bodies) - 1,
    )
    tx.connection.execute(
        "UPDATE inference SET state = ?, is_active = ?, deadline = ?, cancel_requested = ?, record = ?,"
        " position = position + ?, event_count = event_count + ?, first_sequence = ?, last_sequence = ? WHERE key = ?",
        (
            *inference_to_columns(inference),
            len(before),
            len(bodies),
            inference.first_sequence,
            inference.last_sequence,
            row.key,
        ),
    )
    return inference
