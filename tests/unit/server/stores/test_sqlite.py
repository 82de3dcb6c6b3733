"""What only a store on disk can promise: it survives, it shares, and its size grows with what is in it."""

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from contract.store_harness import DONE, Harness, check_gapless, llm, open_sqlite, texts, user
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores import sqlite_inferences as inferences
from turnwire_server.stores import sqlite_sessions as sessions
from turnwire_server.stores import sqlite_turns as turns
from turnwire_server.stores.base import Ending, Lease, Running
from turnwire_server.stores.sqlite_file import connect
from turnwire_server.stores.sqlite_writer import Transaction
from turnwire_server.wire.event import encode_event

# Appends for ever, one event a time, and says of each that it was acknowledged.
_APPENDER = """
import asyncio, sys
from pathlib import Path
from contract.store_harness import Harness, open_sqlite

async def main() -> None:
    harness = await Harness().open(open_sqlite(Path(sys.argv[1])))
    await harness.session("s")
    claim = await harness.running("s")
    print(claim.lease.inference_id, claim.lease.token, flush=True)
    for position in range(1_000_000):
        await harness.store.append(claim.lease, position, harness.deltas(claim, f"{position}"))
        print(position + 1, flush=True)

asyncio.run(main())
"""


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return [tuple(row) for row in connection.execute(query)]


def _count(path: Path, table: str) -> int:
    [(count,)] = _rows(path, f"SELECT count(*) FROM {table}")
    assert isinstance(count, int)
    return count


async def _dump(harness: Harness) -> tuple[object, ...]:
    """Return everything about session s that can be read."""
    return (
        await harness.store.get_session("local", "s"),
        await harness.store.list_inferences("local", "s", (), 100, None),
        [await harness.full("s", index) for index in range(2)],
        b"".join(chunk.data for chunk in await harness.chunks("s")),
    )


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.turn("s", "a", "A")
    claim = await harness.running("s", user("b"))
    await harness.store.append(claim.lease, 0, harness.deltas(claim, "x"))
    await harness.start("s", user("c"))
    before = await _dump(harness)
    await harness.store.close()
    await harness.open(open_sqlite(path))
    assert await _dump(harness) == before
    [taken] = await harness.store.reap("new")
    assert taken.position == 1
    await harness.finish(taken, 1, llm("B"))
    assert texts(await harness.full("s", None)) == ["a", "A", "b", "B"]
    assert (await harness.claim()).inference.turn_index == 2
    await harness.end()


async def test_a_copy_of_a_file_in_use_is_a_store(tmp_path: Path) -> None:
    path, copy = tmp_path / "turnwire.db", tmp_path / "copy.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.turn("s", "a", "A")
    await harness.turn("s", "b", "B")
    for suffix in ("", "-wal"):  # as a crash leaves them: nothing was checkpointed, the log's index is lost
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    before = await _dump(harness)
    await harness.end()
    restored = await Harness().open(open_sqlite(copy))
    assert await _dump(restored) == before
    await restored.end()


async def test_every_acknowledged_append_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _APPENDER, str(path),
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout
    inference_id, token = (await child.stdout.readline()).decode().split()
    for _ in range(200):
        await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    rest = (await child.stdout.read()).decode()
    await child.wait()
    acknowledged = 200 + rest.count("\n")
    harness = await Harness().open(open_sqlite(path))
    chunks = await harness.chunks("s")
    check_gapless(chunks)
    assert chunks[-1].last_sequence - 3 in (acknowledged, acknowledged + 1)
    assert await harness.store.heartbeat("me") == (Running(inference_id, is_cancel_requested=False),)
    lease, position = Lease("local", inference_id, token), chunks[-1].last_sequence - 3
    await harness.store.append(lease, position, [encode_event(replace((await harness.events("s"))[-1], sequence=0))])
    ended = await harness.store.finish(lease, position + 1, Ending(DONE))
    assert ended.state is InferenceState.SUCCEEDED
    await harness.store.close()


async def test_turns_take_space_in_proportion_to_their_number(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    pages: list[int] = []
    rows: list[Sequence[int]] = []
    for number in range(1, 401):
        await harness.turn("s", f"question {number} " * 20, f"answer {number} " * 20)
        if number % 100 == 0:
            [(count,)] = _rows(path, "PRAGMA page_count")
            assert isinstance(count, int)
            pages.append(count)
            rows.append([_count(path, table) for table in ("turn", "block", "payload")])
    assert rows == [[n, 2 * n, 2 * n + 1] for n in (100, 200, 300, 400)]  # one payload: the metadata and data of all
    growth = [right - left for left, right in pairwise(pages)]
    assert max(growth) <= 1.3 * min(growth)
    assert (await harness.full("s", 399)).block_count == 800
    await harness.end()


async def test_equal_contents_are_stored_once_until_nobody_has_them(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    for session_id in ("a", "b"):
        await harness.session(session_id)
        for _ in range(3):
            await harness.turn(session_id, "the same", "and the same")
    assert (_count(path, "block"), _count(path, "payload")) == (12, 3)
    await harness.session("a", principal="other")
    await harness.start("a", user("the same"), principal="other")
    assert _count(path, "payload") == 4  # principals share nothing
    await harness.store.delete_session("local", "a", None, force=False)
    assert (_count(path, "block"), _count(path, "payload")) == (7, 4)
    await harness.store.delete_session("local", "b", None, force=False)
    assert (_count(path, "block"), _count(path, "payload")) == (1, 1)
    await harness.store.delete_session("other", "a", None, force=True)
    empty = ("session", "description", "label", "inference", "command", "turn", "block", "payload", "chunk")
    assert {table: _count(path, table) for table in empty} == dict.fromkeys(empty, 0)
    await harness.end()


async def test_what_ended_without_a_turn_leaves_no_content(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    inference = await harness.start("s", user("never answered"))
    await harness.store.request_cancel("local", inference.inference_id, "", is_session=False)
    assert {table: _count(path, table) for table in ("block", "payload", "command")} == {
        "block": 0,
        "payload": 0,
        "command": 0,
    }
    await harness.end()


async def test_the_schema_itself_refuses_a_second_active_inference(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.running("s")
    await harness.start("s")
    with closing(sqlite3.connect(path)) as connection:
        try:
            connection.execute("UPDATE inference SET is_active = 1")
        except sqlite3.IntegrityError as error:
            refused = str(error)
        else:
            refused = ""
    assert "UNIQUE" in refused
    await harness.end()


async def test_a_heartbeat_reads_no_record(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    claim = await harness.running("s")
    await harness.store.request_cancel("local", claim.inference.inference_id, "", is_session=False)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM command")
        connection.execute("UPDATE inference SET record = x'ff'")
    assert await harness.store.heartbeat("me") == (Running(claim.inference.inference_id, is_cancel_requested=True),)
    await harness.store.close()


async def test_no_query_reads_all_inferences_or_sorts_a_listing(tmp_path: Path) -> None:
    path, asked = tmp_path / "turnwire.db", list[str]()
    harness = await Harness().open(open_sqlite(path))
    with closing(connect(path, "normal")) as connection:
        tx = Transaction(connection, lambda: harness.now, harness.mint)
        sessions.insert_session(tx, "local", NewSession("s", labels={"a": "b"}))
        connection.set_trace_callback(asked.append)
        sessions.list_sessions(connection, "local", {}, 9, None)
        sessions.list_sessions(connection, "local", {"a": "b", "c": "d"}, 9, None)
        for states in ((), (InferenceState.QUEUED,), (InferenceState.RUNNING, InferenceState.SUCCEEDED)):
            inferences.list_inferences(connection, "local", "s", states, 9, None)
        turns.list_turns(connection, "local", "s", TurnView.FULL, 9, None, newest_first=True)
        inferences.list_running(connection, "me")
        inferences.claim(tx, "me", 9)
        inferences.expire(tx, harness.now)
        inferences.reap(tx, "me", ["i"])
        connection.set_trace_callback(None)
        plans = [(row["detail"], query) for query in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert len(asked) >= 13
    bad = [(step, query) for step, query in plans if re.fullmatch(r"SCAN \w+|USE TEMP B-TREE.*", step)]
    assert bad == []
    await harness.end()


async def test_one_tick_of_appends_is_one_chunk(tmp_path: Path) -> None:
    harness = await Harness().open(open_sqlite(tmp_path / "turnwire.db"))
    await harness.session("s")
    claim = await harness.running("s")
    bodies = harness.deltas(claim, *map(str, range(200)))
    await asyncio.gather(*(harness.store.append(claim.lease, n, [body]) for n, body in enumerate(bodies)))
    chunks = await harness.chunks("s")
    assert chunks[-1].last_sequence == 203
    assert len(chunks) < 50
    events = await harness.events("s")
    assert [encode_event(replace(event, sequence=0)) for event in events[3:]] == bodies
    await harness.end()
