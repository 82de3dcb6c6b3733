"""What a SqliteSessionStore does with a start: everything that is known of the inference is written once.

What nobody is before in its session's line is claimed at once, if there is a seat for it: a transaction, a search for
what may run and a dozen statements less than to start it and to claim it after that.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import SessionNotFoundError, TurnNotFoundError
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.turn import Block, Turn, TurnState
from turnwire_server.stores.intake import complete_blocks, encode_map, new_inference, turn_metadata
from turnwire_server.stores.lease import Claim, Lease
from turnwire_server.stores.line import InLine, Parent, choose_parent, decide_rank, find_displaced
from turnwire_server.stores.sequence import Appended
from turnwire_server.stores.sqlite_inferences import cancel, find_inference, load_inference, read_line
from turnwire_server.stores.sqlite_leases import beat, read_claim
from turnwire_server.stores.sqlite_rows import InferenceRow, encode_overrides, inference_to_columns
from turnwire_server.stores.sqlite_sessions import (
    SessionRow,
    insert_session,
    load_session,
    pass_gate,
    record_creation,
    use_token,
)
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import NewTurn, TurnRow, find_turn, insert_blocks, insert_turn, new_turn
from turnwire_server.stores.start import Admission, Decide, Seat, SessionState, StartCommand, Started
from turnwire_server.wire.event import encode_event


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A start that was admitted. `before` are the inferences of its session that have not ended, `parent_turn` is the
    turn that it builds on if it runs now."""

    command: StartCommand
    admission: Admission
    session: SessionRow
    before: Sequence[InLine]
    parent: Parent
    parent_turn: TurnRow | None


def start(tx: Transaction, command: StartCommand, decide: Decide, seat: Seat | None) -> Started:
    """See SessionStore."""
    if sent := _find_sent(tx, command):
        is_seated = seat is not None and sent.lease == seat.token and sent.inference.state is InferenceState.RUNNING
        is_ours = sent.inference.inference_id == command.inference_id
        return Started(sent.inference, created=is_ours, claim=read_claim(tx.connection, sent) if is_seated else None)
    entry = _admit(tx, command, decide)
    inference = new_inference(command, entry.admission, entry.session.session.session_id, tx.now())
    if seat and not entry.before and beat(tx, seat.owner):
        claim = _begin(tx, entry, inference, seat)
        started = Started(claim.inference, created=True, claim=claim)
    else:
        started = Started(_enqueue(tx, entry, inference), created=True)
    if command.idempotency:
        record_creation(tx, command.principal, command.idempotency, entry.session, inference.inference_id)
    return started


def _find_sent(tx: Transaction, command: StartCommand) -> InferenceRow | None:
    """Return what a start made that was sent before, None if it was not: now it is.

    Errors: IdempotencyKeyReusedError; SessionNotFoundError, if what it made is gone.
    """
    if command.idempotency:
        made = pass_gate(tx, command.principal, command.idempotency)
        return load_inference(tx.connection, command.principal, made.inference_id) if made else None
    if use_token(tx, command.inference_id):
        return None
    sent = find_inference(tx.connection, command.principal, command.inference_id)
    if sent is None:
        name = command.target if isinstance(command.target, str) else command.target.session_id
        raise SessionNotFoundError(session_id=name)
    return sent


def _admit(tx: Transaction, command: StartCommand, decide: Decide) -> _Admitted:
    """Have it decided on a start; what it displaces is cancelled.

    Errors: SessionNotFoundError, SessionAlreadyExistsError, TurnNotFoundError, what `decide` raises.
    """
    before: list[InLine] = []
    if isinstance(command.target, str):
        session = load_session(tx.connection, command.principal, command.target)
        before = read_line(tx.connection, session.key)
    else:
        session = insert_session(tx, command.principal, command.target, tx.mint())
    displaced = find_displaced(command.conflict_policy, before)
    parent = choose_parent(command, displaced)
    parent_turn = _find_parent(tx.connection, session, parent)
    unfinished = tuple(place.unfinished for place in before)
    state = SessionState(session.session, unfinished, parent_turn.turn if parent_turn else None)
    admission = decide(command, state)
    if displaced:
        cancel(tx, load_inference(tx.connection, command.principal, displaced.unfinished.inference_id), "")
    return _Admitted(command, admission, session, before, parent, parent_turn)


def _find_parent(connection: sqlite3.Connection, session: SessionRow, parent: Parent) -> TurnRow | None:
    index = parent.index if parent.is_fixed else session.session.turn_count - 1
    row = None if index is None or index < 0 else find_turn(connection, session.key, index)
    if parent.is_fixed and index is not None and row is None:
        raise TurnNotFoundError(session_id=session.session.session_id, index=index)
    return row


def _enqueue(tx: Transaction, entry: _Admitted, inference: Inference) -> Inference:
    """Write an inference that has to wait for its turn, or for somebody who claims it."""
    rank = decide_rank(entry.command.conflict_policy, entry.before)
    position = 1
    if entry.before:
        query = "SELECT count(*) FROM inference WHERE session = ? AND state = 1 AND (is_active OR rank <= ?)"
        position += tx.connection.execute(query, (entry.session.key, rank)).fetchone()[0]
    queued = lifecycle.enqueue(inference, position, inference.create_time)
    events = tuple(map(encode_event, queued.events))
    appended = tx.append(entry.session.key, inference.inference_id, events, queued.inference.state)
    inference = _told(queued.inference, appended)
    _insert(tx, entry, inference, rank, len(events), complete_blocks(entry.command.input, tx.mint))
    return inference


def _begin(tx: Transaction, entry: _Admitted, inference: Inference, seat: Seat) -> Claim:
    """Write an inference that runs from its start on, and open its turn."""
    blocks = complete_blocks(entry.command.input, tx.mint)
    new = new_turn(
        entry.session.key,
        entry.session.session.turn_count,
        entry.parent_turn.turn.index if entry.parent_turn else None,
        entry.parent_turn,
        len(blocks),
        encode_map(entry.command.metadata),
        entry.command.data,
    )
    queued = lifecycle.enqueue(inference, 1, inference.create_time)
    begun = lifecycle.begin(queued.inference, entry.admission.engine, new.opened(), inference.create_time)
    events = tuple(map(encode_event, (*queued.events, *begun.events)))
    appended = tx.append(entry.session.key, inference.inference_id, events, begun.inference.state, opens_turn=True)
    inference = _told(begun.inference, appended)
    rank = decide_rank(entry.command.conflict_policy, entry.before)
    key = _insert(tx, entry, inference, rank, len(events), blocks, seat)
    turn_id = insert_turn(tx, entry.command.principal, key, new, inference.create_time)
    return Claim(
        Lease(entry.command.principal, inference.inference_id, seat.token),
        inference,
        entry.admission.engine,
        entry.command.overrides,
        holds_through=inference.last_sequence,
        is_step_mode_off=entry.session.session.step_mode is None,
        turn=None if new.inherited_count else _shown(inference, entry.command, new, turn_id, blocks),
    )


def _shown(inference: Inference, command: StartCommand, new: NewTurn, turn_id: str, blocks: tuple[Block, ...]) -> Turn:
    """Return a turn that was opened just now, and has no blocks but the input."""
    return Turn(
        inference.session_id,
        inference.inference_id,
        new.index,
        turn_id,
        TurnState.OPEN,
        inference.create_time,
        new.parent_index,
        blocks,
        len(blocks),
        turn_metadata(command.metadata, inference.session_id, inference.inference_id),
        new.data,
        given_block_count=new.given_count,
    )


def _told(inference: Inference, appended: Appended) -> Inference:
    """Return a new inference after the events that tell of it."""
    last = appended.first_sequence + len(appended.frames) - 1
    return replace(inference, first_sequence=appended.first_sequence, last_sequence=last)


def _insert(
    tx: Transaction,
    entry: _Admitted,
    inference: Inference,
    rank: int,
    event_count: int,
    blocks: tuple[Block, ...],
    seat: Seat | None = None,
) -> int:
    """Write an inference as it is after its first events, with its input and what it was asked for; return its key."""
    command = entry.command
    cursor = tx.connection.execute(
        "INSERT INTO inference (inference_id, session, rank, state, is_active, deadline, cancel_requested, record,"
        " event_count, first_sequence, last_sequence, holds_through, block_count, owner, lease)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            inference.inference_id,
            entry.session.key,
            rank,
            *inference_to_columns(inference),
            event_count,
            inference.first_sequence,
            inference.last_sequence,
            inference.last_sequence,
            len(blocks),
            seat.owner if seat else None,
            seat.token if seat else None,
        ),
    )
    tx.wrote(command.principal, inference)
    key = cursor.lastrowid or 0
    insert_blocks(tx, command.principal, key, 0, blocks)
    tx.connection.execute(
        "INSERT INTO command (inference, engine, overrides, metadata, data, is_parent_fixed, parent)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            key,
            entry.admission.engine,
            encode_overrides(command.overrides),
            encode_map(command.metadata),
            encode_map(command.data),
            entry.parent.is_fixed,
            entry.parent.index,
        ),
    )
    return key
