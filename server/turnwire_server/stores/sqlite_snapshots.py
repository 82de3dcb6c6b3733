"""Snapshots of the turns of a SqliteSessionStore: a turn only grows, so how many blocks it had is all that is kept."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from turnwire_server.domain.turn import SnapshotMark, SnapshotPhase, TurnSnapshot
from turnwire_server.stores.intake import snapshot_bytes
from turnwire_server.stores.page import Page, take_listing
from turnwire_server.stores.sqlite_rows import InferenceRow, from_micros, to_micros
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.stores.sqlite_turns import cut_turn, find_turn

_INSERT_MARK = """
    INSERT INTO mark (inference, ordinal, phase, iteration, block_count, create_time)
    SELECT :inference, count(*), :phase, :iteration, :block_count, :create_time
    FROM mark WHERE inference = :inference"""

_INSERT_FINAL = """
    INSERT INTO mark (inference, ordinal, phase, iteration, block_count, create_time)
    SELECT inference, ordinal + 1, :phase, iteration, :block_count, :create_time
    FROM mark WHERE inference = :inference ORDER BY ordinal DESC LIMIT 1"""

_SELECT_MARKS = """
    SELECT ordinal, phase, iteration, block_count, create_time FROM mark
    WHERE inference = :inference AND ordinal > :after AND (:phase IS NULL OR phase = :phase)
    ORDER BY ordinal LIMIT :limit"""


def add_marks(tx: Transaction, inference: int, marks: Sequence[SnapshotMark]) -> None:
    """Keep marks of the turn of an inference, after those that there are."""
    for mark in marks:
        values = {
            "inference": inference,
            "phase": int(mark.phase),
            "iteration": mark.iteration,
            "block_count": mark.block_count,
            "create_time": to_micros(mark.create_time),
        }
        tx.connection.execute(_INSERT_MARK, values)


def add_final_mark(tx: Transaction, inference: int, block_count: int, now: datetime) -> None:
    """Mark the end of the turn of an inference, if it has any marks."""
    values = {
        "inference": inference,
        "phase": int(SnapshotPhase.FINAL),
        "block_count": block_count,
        "create_time": to_micros(now),
    }
    tx.connection.execute(_INSERT_FINAL, values)


def list_turn_snapshots(
    connection: sqlite3.Connection, row: InferenceRow, phase: SnapshotPhase | None, limit: int, after: int | None
) -> Page[TurnSnapshot]:
    """See SessionStore. `row` is the inference."""
    index = row.inference.turn_index
    turn = None if index is None else find_turn(connection, row.session, index)
    if turn is None:
        return Page((), None)
    bounds = {"inference": row.key, "after": -1 if after is None else after, "phase": phase, "limit": limit + 1}
    marked = ((mark["ordinal"], _mark_from_row(mark)) for mark in connection.execute(_SELECT_MARKS, bounds))
    found = ((key, TurnSnapshot(mark, cut_turn(connection, turn, mark.block_count))) for key, mark in marked)
    return take_listing(found, limit, snapshot_bytes)


def _mark_from_row(row: sqlite3.Row) -> SnapshotMark:
    return SnapshotMark(
        SnapshotPhase(row["phase"]), row["iteration"], row["block_count"], from_micros(row["create_time"])
    )
