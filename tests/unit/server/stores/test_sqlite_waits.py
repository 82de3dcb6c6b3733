"""How a store on disk finds what waits for its client: by indexes that have nothing else."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from contract.store_harness import WAITS, Harness, open_sqlite
from turnwire_server.stores import sqlite_waits as waits
from turnwire_server.stores.sqlite_file import connect


def _plan(connection: sqlite3.Connection, asked: list[str]) -> list[str]:
    return [row["detail"] for query in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]


async def test_what_waits_is_found_without_reading_or_sorting_the_rest(tmp_path: Path) -> None:
    path, asked = tmp_path / "turnwire.db", list[str]()
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    with closing(connect(path, "normal")) as connection:
        connection.set_trace_callback(asked.append)
        waits.find_due(connection, harness.now, 9)
        for state in WAITS:
            for session_id in ("s", ""):
                waits.list_waiting(connection, "local", session_id, state, 9, None)
        connection.set_trace_callback(None)
        plan = _plan(connection, asked)
    assert len(asked) == 1 + 2 * (2 + 1)  # a listing of one session looks that up first
    assert [step for step in plan if re.match(r"SCAN|USE TEMP B-TREE|.*\(rowid>\?\)", step)] == []
    await harness.end()


async def test_the_indexes_of_what_waits_have_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    for session_id in ("queued", "ended", "running", "tools", "paused", "due"):
        await harness.session(session_id)
    await harness.turn("ended", "q", "a")
    await harness.running("running")
    for session_id, state in (("tools", WAITS[0]), ("paused", WAITS[1])):
        await harness.leaseless(session_id, state)
    await harness.leaseless("due", WAITS[0], wake_time=harness.now)
    await harness.start("queued")
    with closing(sqlite3.connect(path)) as connection:
        count = "SELECT count(*) FROM inference INDEXED BY"
        [waiting] = connection.execute(f"{count} inference_client WHERE state = 3 OR state = 4").fetchone()
        [due] = connection.execute(f"{count} inference_due WHERE wake IS NOT NULL").fetchone()
    assert (waiting, due) == (3, 1)
    await harness.end()
