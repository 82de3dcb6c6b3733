"""What a SqliteSessionStore does to inferences: each function is one operation of a transaction, or one read.

In SQL, state 1 is QUEUED and 2 is RUNNING: partial indexes are only used for literals.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import InferenceNotFoundError, NoActiveInferenceError
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import WAITING_STATES, Inference, InferenceState
from turnwire_server.stores.intake import inference_bytes
from turnwire_server.stores.lease import Effect, Ending, Step
from turnwire_server.stores.line import InLine, Parent
from turnwire_server.stores.page import Page, take_listing
from turnwire_server.stores.sqlite_rows import (
    SELECT_INFERENCE,
    InferenceRow,
    inference_from_row,
    inference_to_columns,
    optional_micros,
    to_micros,
)
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_snapshots import add_final_mark, add_marks
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import add_blocks, close_turn, replace_data
from turnwire_server.stores.start import Unfinished
from turnwire_server.wire.event import encode_event

# Those that have not ended, by the two indexes that have no others.
KEYS_IN_LINE = """
    SELECT key FROM inference INDEXED BY inference_active WHERE session = :session AND is_active = 1
    UNION SELECT key FROM inference INDEXED BY inference_line WHERE session = :session AND state = 1"""

_SELECT_LINE = f"""
    SELECT i.inference_id, i.state, i.is_active, i.rank,
        iif(t.inference IS NULL, c.is_parent_fixed, 1) AS is_parent_fixed,
        iif(t.inference IS NULL, c.parent, t.parent) AS parent
    FROM inference i JOIN command c ON c.inference = i.key LEFT JOIN turn t ON t.inference = i.key
    WHERE i.key IN ({KEYS_IN_LINE}) ORDER BY i.is_active DESC, i.rank"""


# What an end changes of its session: when that expires, and when the first part of its log is over.
_RENEW_SESSION = """
    UPDATE session SET expire_time = :now + ttl, due_time = :now + ttl, retire_time = iif(
        :first = coalesce((SELECT through_sequence FROM base WHERE session = :session), 0) + 1, :now, retire_time
    ) WHERE key = :session"""


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


def get_first_in_line(connection: sqlite3.Connection, principal: str, session_id: str) -> Inference:
    """See SessionStore."""
    line = read_line(connection, load_session(connection, principal, session_id).key)
    if not line:
        raise NoActiveInferenceError(session_id=session_id)
    return load_inference(connection, principal, line[0].unfinished.inference_id).inference


def request_cancel(tx: Transaction, principal: str, inference_id: str, reason: str) -> Inference:
    """See SessionStore."""
    return cancel(tx, load_inference(tx.connection, principal, inference_id), reason)


def list_unfinished(connection: sqlite3.Connection, session: int) -> list[InferenceRow]:
    """Return the inferences of a session that have not ended, the active one first, then the others by rank."""
    query = f"{SELECT_INFERENCE} WHERE i.key IN ({KEYS_IN_LINE}) ORDER BY i.is_active DESC, i.rank"
    return [inference_from_row(row) for row in connection.execute(query, {"session": session}).fetchall()]


def read_checkpoint(connection: sqlite3.Connection, inference: int) -> bytes:
    """Return what was committed with the last step of an inference."""
    row = connection.execute("SELECT content FROM checkpoint WHERE inference = ?", (inference,)).fetchone()
    return bytes(row["content"]) if row else b""


def write_checkpoint(tx: Transaction, inference: int, content: bytes) -> None:
    """Replace what was committed with the last step of an inference."""
    tx.connection.execute(
        "INSERT INTO checkpoint (inference, content) VALUES (?, ?)"
        " ON CONFLICT (inference) DO UPDATE SET content = excluded.content",
        (inference, content),
    )


def read_effects(connection: sqlite3.Connection, inference: int) -> tuple[Effect, ...]:
    """Return the tool calls of an inference since its last step."""
    query = "SELECT call, outcome FROM effect WHERE inference = ? ORDER BY key"
    return tuple(Effect(*row) for row in connection.execute(query, (inference,)))


def write_effect(tx: Transaction, inference: int, effect: Effect) -> None:
    """Record a tool call, or what came of it."""
    tx.connection.execute(
        "INSERT INTO effect (inference, call, outcome) VALUES (?, ?, ?) ON CONFLICT (inference, call)"
        " DO UPDATE SET outcome = excluded.outcome",
        (inference, effect.call, effect.outcome),
    )


def settle_effects(tx: Transaction, inference: int) -> None:
    """Forget the tool calls of a step: what came of them is in the turn."""
    tx.connection.execute("DELETE FROM effect WHERE inference = ?", (inference,))


def read_line(connection: sqlite3.Connection, session: int) -> list[InLine]:
    """Return the line of a session, the active one first."""
    return [
        InLine(
            Unfinished(row["inference_id"], InferenceState(row["state"]), bool(row["is_active"])),
            row["rank"],
            Parent(bool(row["is_parent_fixed"]), row["parent"]),
        )
        for row in connection.execute(_SELECT_LINE, {"session": session})
    ]


def read_command(connection: sqlite3.Connection, row: InferenceRow) -> sqlite3.Row:
    """Return what an unfinished inference was asked for."""
    command: sqlite3.Row = connection.execute("SELECT * FROM command WHERE inference = ?", (row.key,)).fetchone()
    return command


def cancel(tx: Transaction, row: InferenceRow, reason: str) -> Inference:
    """Note that a cancel is requested; what is not RUNNING ends at once."""
    requested = lifecycle.request_cancel(row.inference, reason, tx.now())
    if requested is not row.inference:
        *_, cancel_requested, record = inference_to_columns(requested)
        tx.connection.execute(
            "UPDATE inference SET cancel_requested = ?, record = ? WHERE key = ?", (cancel_requested, record, row.key)
        )
        tx.wrote(row.principal, requested)
    if requested.state.is_terminal or requested.state is InferenceState.RUNNING:
        return requested
    return end(tx, replace(row, inference=requested), Ending(Cancelled()))


def extend_turn(tx: Transaction, row: InferenceRow, more: Step | Ending) -> int:
    """Add to the turn of an inference what a step or an ending has for it; return how many blocks it adds by now."""
    if more.data is not None:
        replace_data(tx, row, more.data)
    add_marks(tx, row.key, more.marks)
    return add_blocks(tx, row.principal, row.key, row.block_count, more.blocks)


def end(tx: Transaction, row: InferenceRow, ending: Ending) -> Inference:
    """End an inference and close its turn; its input goes with it if it has none."""
    now = tx.now()
    block_count = close_turn(tx, row, extend_turn(tx, row, ending), now)
    add_final_mark(tx, row.key, block_count, now)
    ended = lifecycle.end(
        row.inference,
        ending.outcome,
        ending.usage,
        now,
        event_count=row.event_count + len(ending.events),
        block_count=block_count,
        model=ending.model,
    )
    for table in ("command", "checkpoint", "effect"):
        tx.connection.execute(f"DELETE FROM {table} WHERE inference = ?", (row.key,))
    tx.connection.execute(
        _RENEW_SESSION, {"now": to_micros(now), "first": row.inference.first_sequence, "session": row.session}
    )
    return move(tx, row, ended, ending.events)


def move(tx: Transaction, row: InferenceRow, move: lifecycle.Transition, before: Sequence[bytes] = ()) -> Inference:
    """Write an inference after a transition, and append its events after those that were still to be appended."""
    return write(tx, row, move.inference, before, move.inference.state, tuple(map(encode_event, move.events)))


def write(
    tx: Transaction,
    row: InferenceRow,
    inference: Inference,
    leased: Sequence[bytes],
    state: InferenceState | None,
    own: Sequence[bytes] = (),
) -> Inference:
    """Write an inference, append the events that count in its position and those that do not; all of them hold.

    `state` is where the events moved it to, None if they did not.
    """
    bodies = [*leased, *own]
    if bodies:
        appended = tx.append(row.session, inference.inference_id, bodies, state)
        inference = replace(
            inference,
            first_sequence=row.inference.first_sequence or appended.first_sequence,
            last_sequence=appended.first_sequence + len(bodies) - 1,
        )
    tx.connection.execute(
        "UPDATE inference SET state = ?, is_active = ?, deadline = ?, cancel_requested = ?, record = ?,"
        " position = position + ?, event_count = event_count + ?, first_sequence = ?, last_sequence = ?,"
        " holds_through = ?, wake = iif(?, wake, NULL), end_time = ? WHERE key = ?",
        (
            *inference_to_columns(inference),
            len(leased),
            len(bodies),
            inference.first_sequence,
            inference.last_sequence,
            inference.last_sequence,
            inference.state in WAITING_STATES,
            optional_micros(inference.end_time),
            row.key,
        ),
    )
    tx.wrote(row.principal, inference)
    return inference
