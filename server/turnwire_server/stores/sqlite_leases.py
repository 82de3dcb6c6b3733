"""What a SqliteSessionStore does for owners: each function is one transition under a lease, or of leases.

In SQL, state 1 is QUEUED and 2 is RUNNING: partial indexes are only used for literals. Where an index is named, SQLite
would rather go through all inferences there ever were, in the order of their keys.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from turnwire_server.domain import lifecycle
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import OVERDUE_SECONDS
from turnwire_server.stores.intake import check_step
from turnwire_server.stores.lease import Claim, DeclaredDead, Effect, Ending, Fenced, Heartbeat, Lease, Running, Step
from turnwire_server.stores.sqlite_appends import Append, append, check_place, load_leased
from turnwire_server.stores.sqlite_inferences import (
    end,
    extend_turn,
    find_inference,
    move,
    read_checkpoint,
    read_command,
    read_effects,
    settle_effects,
    write,
    write_checkpoint,
    write_effect,
)
from turnwire_server.stores.sqlite_rows import (
    SELECT_INFERENCE,
    InferenceRow,
    decode_overrides,
    inference_from_row,
    optional_micros,
    to_micros,
)
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import open_turn

# How many inferences one sweep ends, so that it never keeps the store for long.
_EXPIRED_MAX = 100

_BEAT = """
    UPDATE owner SET beats = beats + 1 WHERE id = :owner
    AND EXISTS (SELECT 1 FROM inference INDEXED BY inference_owner WHERE state = 2 AND owner = :owner)"""

_SELECT_BEATS = """
    SELECT id, beats FROM owner WHERE id <> ?
    AND EXISTS (SELECT 1 FROM inference INDEXED BY inference_owner WHERE state = 2 AND owner = owner.id)"""

_SELECT_SENT = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT s.key FROM inference s INDEXED BY inference_lease
        WHERE s.state = 2 AND s.lease IN (SELECT value FROM json_each(?)) AND s.owner = ?
    ) ORDER BY i.key"""

_SELECT_LOST = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT l.key FROM inference l INDEXED BY inference_owner WHERE l.state = 2 AND l.owner IS NULL
        ORDER BY l.key LIMIT ?
    ) ORDER BY i.key"""

# First in their session's line: the active one, or the one of the lowest rank if none is active. And what is lost.
_SELECT_CLAIMABLE = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT w.key FROM inference w INDEXED BY inference_waiting WHERE w.state = 1 AND (w.is_active = 1 OR (
            NOT EXISTS (SELECT 1 FROM inference a WHERE a.session = w.session AND a.is_active = 1)
            AND NOT EXISTS (SELECT 1 FROM inference f WHERE f.session = w.session AND f.state = 1 AND f.rank < w.rank)
        ))
        UNION ALL
        SELECT l.key FROM inference l INDEXED BY inference_owner WHERE l.state = 2 AND l.owner IS NULL
        ORDER BY 1 LIMIT ?
    ) ORDER BY i.key"""

_SELECT_EXPIRED = f"""
    {SELECT_INFERENCE} WHERE i.key IN (
        SELECT e.key FROM inference e INDEXED BY inference_deadline
        WHERE e.state < 5 AND e.deadline IS NOT NULL AND e.deadline <= ? AND e.state <> 2 LIMIT ?
    ) ORDER BY i.key"""

_REVOKE_OVERDUE = """
    UPDATE inference SET owner = NULL, lease = NULL WHERE key IN (
        SELECT o.key FROM inference o INDEXED BY inference_deadline
        WHERE o.state < 5 AND o.deadline IS NOT NULL AND o.deadline <= ? AND o.state = 2 AND o.owner IS NOT NULL
        AND o.was_lost = 0
    )"""

_REVOKE = "UPDATE inference INDEXED BY inference_owner SET owner = NULL, lease = NULL WHERE state = 2 AND owner = ?"


def register(tx: Transaction, owner: str, own: Sequence[str] | None) -> None:
    """See SessionStore. Every owner that is not among the `own` ones of this process is declared dead; None: nobody."""
    if own is not None:
        ours = (json.dumps(list(own)),)
        among = "IN (SELECT value FROM json_each(?))"
        tx.connection.execute(f"DELETE FROM owner WHERE id NOT {among}", ours)
        tx.connection.execute(
            f"UPDATE inference SET owner = NULL, lease = NULL WHERE state = 2 AND owner NOT {among}", ours
        )
    tx.connection.execute("INSERT INTO owner (id) VALUES (?) ON CONFLICT (id) DO NOTHING", (owner,))


def heartbeat(tx: Transaction, owner: str) -> Heartbeat:
    """See SessionStore. An owner that runs nothing writes nothing."""
    if tx.connection.execute(_BEAT, {"owner": owner}).rowcount == 0:
        _check_lives(tx, owner)
    running = tx.connection.execute(
        "SELECT inference_id, lease, cancel_requested FROM inference INDEXED BY inference_owner"
        " WHERE state = 2 AND owner = ?",
        (owner,),
    )
    return Heartbeat(
        tuple(Running(inference_id, lease, bool(is_requested)) for inference_id, lease, is_requested in running),
        dict(map(tuple, tx.connection.execute(_SELECT_BEATS, (owner,)))),
    )


def declare_dead(tx: Transaction, owner: str, beat: int) -> bool:
    """See SessionStore."""
    gone = tx.connection.execute("DELETE FROM owner WHERE id = ? AND beats = ?", (owner, beat))
    if gone.rowcount:
        tx.connection.execute(_REVOKE, (owner,))
        return True
    return tx.connection.execute("SELECT 1 FROM owner WHERE id = ?", (owner,)).fetchone() is None


def revoke(tx: Transaction, owner: str, tokens: Collection[str]) -> None:
    """See SessionStore."""
    among = f"{_REVOKE} AND lease IN (SELECT value FROM json_each(?))"
    tx.connection.execute(among, (owner, json.dumps(list(tokens))))


def claim(tx: Transaction, owner: str, tokens: Sequence[str], *, only_lost: bool) -> tuple[Claim, ...]:
    """See SessionStore."""
    _check_lives(tx, owner)
    sent = tx.connection.execute(_SELECT_SENT, (json.dumps(list(tokens)), owner)).fetchall()
    claims = [read_claim(tx.connection, inference_from_row(row)) for row in sent]
    used = {claim.lease.token for claim in claims}
    free = [token for token in tokens if token not in used]
    rows = tx.connection.execute(_SELECT_LOST if only_lost else _SELECT_CLAIMABLE, (len(free),)).fetchall()
    claims.extend(_lease(tx, inference_from_row(row), owner, token) for row, token in zip(rows, free, strict=False))
    if rows:
        beat(tx, owner)
    return tuple(claims)


def beat(tx: Transaction, owner: str) -> bool:
    """Say that an owner lives, as one does that is given something; return False if it is not known."""
    return tx.connection.execute("UPDATE owner SET beats = beats + 1 WHERE id = ?", (owner,)).rowcount == 1


def record_effects(
    tx: Transaction, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes]
) -> None:
    """See SessionStore."""
    row = load_leased(tx, lease)
    if events and row.inference.state is InferenceState.RUNNING and row.position == position + len(events):
        return  # it was sent before
    check_place(row, position)
    known = {effect.call: effect.outcome for effect in read_effects(tx.connection, row.key)}
    for effect in effects:
        if effect.outcome is not None and effect.call not in known:
            raise LookupError(effect.call)
    for effect in effects:
        if known.get(effect.call) is None:
            known[effect.call] = effect.outcome
            write_effect(tx, row.key, effect)
    if events and (error := append(tx, [Append(lease, position, events)])[0]):
        raise error


def commit_step(tx: Transaction, lease: Lease, position: int, step: Step) -> Inference:
    """See SessionStore."""
    row = load_leased(tx, lease)
    if row.step == step.number and row.position == position + len(step.events):
        return row.inference  # it was sent before
    check_place(row, position)
    if row.step != step.number - 1:
        raise Fenced
    check_step(step)
    committed = lifecycle.commit(row.inference, step.usage, step.model, step.then)
    extend_turn(tx, row, step)
    settle_effects(tx, row.key)
    write_checkpoint(tx, row.key, step.checkpoint)
    # The wake time stays only if it waits now: write() sees to that.
    tx.connection.execute(
        "UPDATE inference SET step = ?, wake = ? WHERE key = ?", (step.number, optional_micros(step.wake_time), row.key)
    )
    inference = write(tx, row, committed, step.events, None if step.then is InferenceState.RUNNING else step.then)
    return _heed_cancel(tx, lease, inference)


def hand_back(tx: Transaction, lease: Lease, position: int, *, is_loss: bool) -> Inference:
    """See SessionStore."""
    row = load_leased(tx, lease)
    if row.is_handed_back and row.position == position:
        return row.inference  # it was sent before
    check_place(row, position)
    tx.connection.execute("UPDATE inference SET is_handed_back = 1 WHERE key = ?", (row.key,))
    back = move(tx, row, lifecycle.hand_back(row.inference, row.holds_through, tx.now(), is_loss=is_loss))
    return _heed_cancel(tx, lease, back)


def finish(tx: Transaction, lease: Lease, position: int, ending: Ending) -> Inference:
    """See SessionStore."""
    row = load_leased(tx, lease)
    if row.inference.state.is_terminal and not row.is_handed_back and row.position == position + len(ending.events):
        return row.inference  # it was sent before
    check_place(row, position)
    return end(tx, row, ending)


def expire(tx: Transaction, now: datetime) -> bool:
    """End what has passed its deadline, and revoke what should have ended by itself; return whether there is more."""
    rows = tx.connection.execute(_SELECT_EXPIRED, (to_micros(now), _EXPIRED_MAX)).fetchall()
    for row in map(inference_from_row, rows):
        end(tx, row, Ending(lifecycle.deadline_outcome(row.inference)))
    tx.connection.execute(_REVOKE_OVERDUE, (to_micros(now - timedelta(seconds=OVERDUE_SECONDS)),))
    return len(rows) == _EXPIRED_MAX


def _check_lives(tx: Transaction, owner: str) -> None:
    if tx.connection.execute("SELECT 1 FROM owner WHERE id = ?", (owner,)).fetchone() is None:
        raise DeclaredDead


def _lease(tx: Transaction, row: InferenceRow, owner: str, token: str) -> Claim:
    is_lost = row.inference.state is InferenceState.RUNNING
    # Before it is RUNNING: its last lease may have had a token that came late and is another one's now.
    tx.connection.execute(
        "UPDATE inference SET owner = ?, lease = ?, was_lost = ?, is_handed_back = 0 WHERE key = ?",
        (owner, token, is_lost, row.key),
    )
    if not is_lost:
        row = _begin(tx, row)
    return read_claim(tx.connection, replace(row, lease=token, was_lost=is_lost))


def _begin(tx: Transaction, row: InferenceRow) -> InferenceRow:
    now, command = tx.now(), read_command(tx.connection, row)
    opened = open_turn(tx, row, command, now) if row.inference.turn_index is None else None
    begun = move(tx, row, lifecycle.begin(row.inference, command["engine"], opened, now))
    return replace(row, inference=begun, holds_through=begun.last_sequence)


def read_claim(connection: sqlite3.Connection, row: InferenceRow) -> Claim:
    """Return the claim of an inference that runs."""
    command = read_command(connection, row)
    return Claim(
        lease=Lease(row.principal, row.inference.inference_id, row.lease or ""),
        inference=row.inference,
        engine=command["engine"],
        overrides=decode_overrides(command["overrides"]),
        position=row.position,
        step=row.step,
        holds_through=row.holds_through,
        checkpoint=read_checkpoint(connection, row.key),
        effects=read_effects(connection, row.key),
        is_lost=row.was_lost,
    )


def _heed_cancel(tx: Transaction, lease: Lease, inference: Inference) -> Inference:
    """End an inference that nobody runs any more, if that was requested."""
    if inference.cancel_requested_time is None or inference.state is InferenceState.RUNNING:
        return inference
    row = find_inference(tx.connection, lease.principal, lease.inference_id)
    assert row is not None  # it was written above
    return end(tx, row, Ending(Cancelled()))
