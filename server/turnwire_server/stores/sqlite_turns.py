"""Turns and blocks of a SqliteSessionStore: a turn is its parent plus the blocks of its inference."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice

from turnwire_server.domain.errors import TurnNotFoundError
from turnwire_server.domain.event import TurnOpened
from turnwire_server.domain.turn import Block, Turn, TurnState, TurnView, inherit_data
from turnwire_server.stores.intake import block_content, complete_blocks, decode_map, encode_map, turn_metadata
from turnwire_server.stores.line import Parent
from turnwire_server.stores.page import Page, TurnPage, take_page
from turnwire_server.stores.sqlite_rows import (
    InferenceRow,
    from_micros,
    optional_moment,
    store_payload,
    to_micros,
)
from turnwire_server.stores.sqlite_sessions import load_session
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.wire.turn import decode_block

# What makes up the turns of a session, the newest first: its own, then what it shares, by the session that has it.
_SELECT_SEGMENTS = """
    WITH RECURSIVE segment (key, first, last, trunk) AS (
        SELECT key, coalesce(trunk_index + 1, 0), turn_count - 1, trunk FROM session WHERE key = ?
        UNION ALL
        SELECT s.key, coalesce(s.trunk_index + 1, 0), g.first - 1, s.trunk FROM segment g
            JOIN session s ON s.key = g.trunk
    )
    SELECT key, first, last FROM segment"""

_SELECT_PLACE = """
    WITH RECURSIVE place (key, trunk, trunk_index) AS (
        SELECT key, trunk, trunk_index FROM session WHERE key = :session
        UNION ALL
        SELECT s.key, s.trunk, s.trunk_index FROM place p JOIN session s ON s.key = p.trunk
            WHERE p.trunk_index >= :index
    )
    SELECT key FROM place WHERE trunk IS NULL OR trunk_index < :index"""

# `place` is the session that has the turn, `session` the one that it is shown in.
_SELECT_TURN = """
    SELECT t.*, s.session_id, i.inference_id, i.block_count AS own_count,
        m.content AS metadata_text, d.content AS data_text
    FROM turn t JOIN session s ON s.key = :session JOIN inference i ON i.key = t.inference
        JOIN payload m ON m.key = t.metadata JOIN payload d ON d.key = t.data
    WHERE t.session = :place AND t.turn_index BETWEEN :first AND :last ORDER BY t.turn_index"""

_SELECT_CHAIN = """
    WITH RECURSIVE chain (session, parent, inference, first_block) AS (
        SELECT coalesce(parent_session, session), parent, inference, first_block
            FROM turn WHERE session = :session AND turn_index = :index
        UNION ALL
        SELECT coalesce(t.parent_session, t.session), t.parent, t.inference, t.first_block FROM chain c
            JOIN turn t ON t.session = c.session AND t.turn_index = c.parent WHERE c.first_block > :start
    )
    SELECT inference, first_block FROM chain WHERE first_block < :stop ORDER BY first_block"""

_SELECT_BLOCKS = """
    SELECT b.id, p.content FROM block b JOIN payload p ON p.key = b.payload
    WHERE b.inference = ? AND b.ordinal >= ? AND b.ordinal < ? ORDER BY b.ordinal"""


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn to open: its place in the session with the key `session`, what it builds on, and what it carries.

    `given_count` counts the blocks of the parent and the input; `metadata` is that of the request, encoded.
    """

    session: int
    index: int
    parent_index: int | None
    parent: "TurnRow | None"
    given_count: int
    metadata: bytes
    data: Mapping[str, str]

    @property
    def inherited_count(self) -> int:
        """How many blocks it has from its parent."""
        return self.parent.turn.block_count if self.parent else 0

    def opened(self) -> TurnOpened:
        """Return the event that tells of it."""
        return TurnOpened(self.index, self.given_count, self.parent_index)


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A turn as it is stored, without blocks. `first_block` counts those that it has from its parent.

    `session` is the key of the session that has it; `turn` shows it as one of a session that may share it.
    """

    session: int
    first_block: int
    turn: Turn
    size: int

    def bounds(self, view: TurnView) -> tuple[int, int]:
        """Return which of the turn's blocks a view has."""
        if view is TurnView.BASIC:
            return 0, 0
        return self.first_block if view is TurnView.DELTA else 0, self.turn.block_count


def find_place(connection: sqlite3.Connection, session: int, index: int) -> int:
    """Return the key of the session that has a turn of a session: itself, or one that it shares the turn with."""
    row = connection.execute(_SELECT_PLACE, {"session": session, "index": index}).fetchone()
    return int(row["key"])


def find_turn(connection: sqlite3.Connection, session: int, index: int) -> TurnRow | None:
    """Return a turn without its blocks, None if there is none."""
    bounds = {"session": session, "place": find_place(connection, session, index), "first": index, "last": index}
    row = connection.execute(_SELECT_TURN, bounds).fetchone()
    return None if row is None else _turn_from_row(row)


def get_turn(
    connection: sqlite3.Connection,
    principal: str,
    session_id: str,
    index: int | None,
    view: TurnView,
    offset: int,
    limit: int,
) -> TurnPage:
    """See SessionStore."""
    found = load_session(connection, principal, session_id)
    wanted = found.session.turn_count - 1 if index is None else index
    row = find_turn(connection, found.key, wanted)
    if row is None:
        raise TurnNotFoundError(session_id=session_id, index=max(wanted, 0))
    first, stop = row.bounds(view)
    start = first + offset
    blocks, _ = take_page(_read_blocks(connection, row, start, min(stop, start + limit)))
    reached = offset + len(blocks)
    turn = replace(row.turn, blocks=tuple(blocks))
    return TurnPage(turn, reached if first + reached < stop else None)


def list_turns(
    connection: sqlite3.Connection,
    principal: str,
    session_id: str,
    view: TurnView,
    limit: int,
    cursor: int | None,
    *,
    newest_first: bool,
) -> Page[Turn]:
    """See SessionStore."""
    found = load_session(connection, principal, session_id)
    rows = _select_turns(connection, found.key, cursor, newest_first=newest_first)
    sized = (_with_blocks(connection, _turn_from_row(row), view) for row in islice(rows, limit))
    turns, is_cut = take_page(sized)
    has_more = is_cut or next(rows, None) is not None
    step = -1 if newest_first else 1
    return Page(tuple(turns), turns[-1].index + step if has_more else None)


def cut_turn(connection: sqlite3.Connection, row: TurnRow, block_count: int) -> Turn:
    """Return a turn in the view DELTA with the blocks that it had when it had so many, bounded as in list_turns."""
    cut = replace(row, turn=replace(row.turn, block_count=block_count))
    return _with_blocks(connection, cut, TurnView.DELTA)[0]


def _select_turns(
    connection: sqlite3.Connection, session: int, cursor: int | None, *, newest_first: bool
) -> Iterator[sqlite3.Row]:
    """Yield the turns of a session from a cursor on, reading only as far as they are taken."""
    segments = connection.execute(_SELECT_SEGMENTS, (session,)).fetchall()
    for place, first, last in segments if newest_first else reversed(segments):
        bounds = {"session": session, "place": place, "first": first, "last": last}
        if cursor is not None:
            bounds |= {"last": min(last, cursor)} if newest_first else {"first": max(first, cursor)}
        if bounds["first"] <= bounds["last"]:
            yield from connection.execute(_SELECT_TURN + (" DESC" if newest_first else ""), bounds)


def add_blocks(tx: Transaction, principal: str, inference: int, count: int, blocks: Sequence[Block]) -> int:
    """Add blocks to the `count` that an inference has; return how many it has now."""
    if blocks:
        insert_blocks(tx, principal, inference, count, complete_blocks(blocks, tx.mint))
        tx.connection.execute("UPDATE inference SET block_count = ? WHERE key = ?", (count + len(blocks), inference))
    return count + len(blocks)


def insert_blocks(tx: Transaction, principal: str, inference: int, first: int, blocks: Sequence[Block]) -> None:
    """Write blocks of an inference, from the ordinal `first` on, that it counts itself."""
    for ordinal, block in enumerate(blocks, first):
        payload = store_payload(tx.connection, principal, block_content(block))
        tx.connection.execute(
            "INSERT INTO block (inference, ordinal, id, payload) VALUES (?, ?, ?, ?)",
            (inference, ordinal, block.id, payload),
        )


def replace_data(tx: Transaction, row: InferenceRow, data: Mapping[str, str]) -> None:
    """Replace the data of the turn that an inference has."""
    payload = store_payload(tx.connection, row.principal, encode_map(data))
    tx.connection.execute("UPDATE turn SET data = ? WHERE inference = ?", (payload, row.key))


def open_turn(tx: Transaction, row: InferenceRow, command: sqlite3.Row, now: datetime) -> TurnOpened:
    """Open the turn of an inference that runs for the first time; return the event that tells of it."""
    [session] = tx.connection.execute(
        "UPDATE session SET turn_count = turn_count + 1 WHERE key = ? RETURNING turn_count", (row.session,)
    ).fetchall()
    index = session["turn_count"] - 1
    chosen = Parent(bool(command["is_parent_fixed"]), command["parent"])
    parent_index = chosen.index if chosen.is_fixed else (index - 1 if index else None)
    parent = None if parent_index is None else find_turn(tx.connection, row.session, parent_index)
    data = decode_map(command["data"])
    new = new_turn(row.session, index, parent_index, parent, row.block_count, command["metadata"], data)
    insert_turn(tx, row.principal, row.key, new, now)
    return new.opened()


def new_turn(  # one argument per thing that a turn has
    session: int,
    index: int,
    parent_index: int | None,
    parent: TurnRow | None,
    own_count: int,
    metadata: bytes,
    data: Mapping[str, str],
) -> NewTurn:
    """Return the turn to open of an inference whose input has `own_count` blocks and brings `data`."""
    given_count = own_count + (parent.turn.block_count if parent else 0)
    carried = inherit_data(parent.turn.data if parent else {}, data)
    return NewTurn(session, index, parent_index, parent, given_count, metadata, carried)


def insert_turn(tx: Transaction, principal: str, inference: int, new: NewTurn, now: datetime) -> str:
    """Open a turn that its session counts already, and whose inference is there; return its id."""
    turn_id = tx.mint()
    tx.connection.execute(
        "INSERT INTO turn"
        " (session, turn_index, parent, parent_session, id, inference, first_block, given_count, metadata, data,"
        " create_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.session,
            new.index,
            new.parent_index,
            new.parent.session if new.parent and new.parent.session != new.session else None,
            turn_id,
            inference,
            new.inherited_count,
            new.given_count,
            store_payload(tx.connection, principal, new.metadata),
            store_payload(tx.connection, principal, encode_map(new.data)),
            to_micros(now),
        ),
    )
    return turn_id


def close_turn(tx: Transaction, row: InferenceRow, block_count: int, now: datetime) -> int:
    """Close the turn of an inference, if it has one; return how many blocks it has."""
    closed = tx.connection.execute(
        "UPDATE turn SET close_time = ? WHERE inference = ? RETURNING first_block", (to_micros(now), row.key)
    ).fetchall()
    if closed:
        return int(closed[0]["first_block"]) + block_count
    tx.connection.execute("DELETE FROM block WHERE inference = ?", (row.key,))  # input that no turn will have
    return 0


def _turn_from_row(row: sqlite3.Row) -> TurnRow:
    own = decode_map(row["metadata_text"])
    turn = Turn(
        session_id=row["session_id"],
        inference_id=row["inference_id"],
        index=row["turn_index"],
        id=row["id"],
        state=TurnState.OPEN if row["close_time"] is None else TurnState.CLOSED,
        create_time=from_micros(row["create_time"]),
        parent=row["parent"],
        block_count=row["first_block"] + row["own_count"],
        metadata=turn_metadata(own, row["session_id"], row["inference_id"]),
        data=decode_map(row["data_text"]),
        close_time=optional_moment(row["close_time"]),
        inherited_block_count=row["first_block"],
        given_block_count=row["given_count"],
    )
    return TurnRow(row["session"], row["first_block"], turn, len(row["metadata_text"]) + len(row["data_text"]))


def _with_blocks(connection: sqlite3.Connection, row: TurnRow, view: TurnView) -> tuple[Turn, int]:
    blocks = _read_blocks(connection, row, *row.bounds(view))
    taken, _ = take_page(((block, size), size) for block, size in blocks)
    turn = replace(row.turn, blocks=tuple(block for block, _ in taken))
    return turn, row.size + sum(size for _, size in taken)


def _read_blocks(connection: sqlite3.Connection, row: TurnRow, start: int, stop: int) -> Iterator[tuple[Block, int]]:
    """Yield the blocks at the positions [start, stop) of a turn, with their sizes, walking only as far as needed."""
    if start >= stop:
        return
    bounds = {"session": row.session, "index": row.turn.index, "start": start, "stop": stop}
    for link in connection.execute(_SELECT_CHAIN, bounds):
        first = link["first_block"]
        for block in connection.execute(_SELECT_BLOCKS, (link["inference"], max(start - first, 0), stop - first)):
            yield replace(decode_block(block["content"]), id=block["id"]), len(block["content"])
