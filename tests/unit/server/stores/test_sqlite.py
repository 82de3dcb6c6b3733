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
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from contract.store_harness import Harness, check_gapless, key, llm, marks, open_sqlite, texts, user
from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.inference import InferenceConfig, InferenceState
from turnwire_server.domain.session import NewSession, SessionChange, StepMode
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores import sqlite_deletion as deletion
from turnwire_server.stores import sqlite_inferences as inferences
from turnwire_server.stores import sqlite_leases as leases
from turnwire_server.stores import sqlite_log as log
from turnwire_server.stores import sqlite_sessions as sessions
from turnwire_server.stores import sqlite_turns as turns
from turnwire_server.stores.base import TOKEN_AGE_MIN, Base
from turnwire_server.stores.lease import DeclaredDead, Effect, Fenced, Lease, Running, Step
from turnwire_server.stores.sqlite_file import connect
from turnwire_server.stores.sqlite_transaction import Transaction
from turnwire_server.wire.event import encode_event

# Appends for ever, one event a time, and says of each that it was acknowledged.
_APPENDER = """
import asyncio, sys
from pathlib import Path
from contract.store_harness import Harness, open_sqlite
async def main() -> None:
    harness = await Harness().open(open_sqlite(Path(sys.argv[1])))
    await harness.store.register("the child")
    await harness.session("s")
    await harness.start("s")
    claim = await harness.claim("the child")
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


def _filled(path: Path) -> dict[str, int]:
    """Return how many rows each table has that has rows, but for what belongs to no session: tokens, owners."""
    tables = [str(name) for (name,) in _rows(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    kept = {"meta", "owner", "schema_script", "sqlite_sequence", "token"}
    return {table: count for table in tables if table not in kept and (count := _count(path, table))}


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.store.register("before")
    await harness.session("w")
    waiting = await harness.waiting("w", llm("a"), wake_time=harness.now)
    await harness.session("s", config=InferenceConfig(temperature=0.1))
    await harness.store.set_step_mode("local", "s", StepMode(), harness.mint())
    await harness.turn("s", "a", "A")
    await harness.store.compact("local", "s", Base(4, b"fold"))
    await harness.start("s", user("b"))
    claim = await harness.claim("before")
    step = Step(1, (llm("B"),), events=tuple(harness.deltas(claim, "x")), checkpoint=b"one", marks=marks(harness, 3, 4))
    await harness.store.commit_step(claim.lease, 0, step)
    await harness.store.record_effects(claim.lease, 1, [Effect("open"), Effect("done")])
    await harness.store.record_effects(claim.lease, 1, [Effect("done", b"result")])
    await harness.start("s", user("c"))
    before, held = (await harness.everything(), await harness.look(waiting)), await harness.again(claim, "before")
    await harness.store.close()
    await harness.open(open_sqlite(path))
    assert (await harness.everything(), await harness.look(waiting)) == before
    with pytest.raises(DeclaredDead):  # whoever was here before is dead
        await harness.store.heartbeat("before")
    with pytest.raises(Fenced):
        await harness.store.append(claim.lease, 1, harness.deltas(claim, "x"))
    taken = await harness.claim()
    assert taken == replace(held, lease=taken.lease, is_lost=True)
    await harness.finish(taken, 1, llm("C"))
    assert texts(await harness.full("s", None)) == ["a", "A", "b", "B", "C"]
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
    before = await harness.everything()
    await harness.end()
    restored = await Harness().open(open_sqlite(copy))
    assert await restored.everything() == before
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
    position = chunks[-1].last_sequence - 3
    assert position in (acknowledged, acknowledged + 1)
    last = encode_event(replace((await harness.events("s"))[-1], sequence=0))
    with pytest.raises(Fenced):  # its owner is dead
        await harness.store.append(Lease("local", inference_id, token), position, [last])
    lost = await harness.claim()
    assert (lost.lease.inference_id, lost.position, lost.is_lost) == (inference_id, position, True)
    assert (await harness.finish(lost, position, events=[last])).state is InferenceState.SUCCEEDED
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
    await harness.delete("a")
    await harness.sweep()
    assert (_count(path, "block"), _count(path, "payload")) == (7, 4)
    await harness.delete("b")
    await harness.sweep()
    assert (_count(path, "block"), _count(path, "payload")) == (1, 1)
    await harness.store.delete_session("other", "a", None, force=True)
    await harness.sweep()
    assert _filled(path) == {}
    await harness.end()


async def _fill(harness: Harness, session_id: str) -> None:
    """Make a session that has rows of every kind."""
    await harness.session(session_id, labels={"a": "b"})
    await harness.turn(session_id, "q", "a")
    await harness.store.compact("local", session_id, Base(4, b"fold"))
    claim = await harness.running(session_id, idempotency=key(session_id), metadata={"a.b@v1": "1"})
    await harness.store.commit_step(claim.lease, 0, Step(1, (llm("A"),), checkpoint=b"one", marks=marks(harness, 2, 3)))
    await harness.store.record_effects(claim.lease, 0, [Effect("open"), Effect("done")])
    for _ in range(3):
        await harness.start(session_id)


async def test_a_deletion_leaves_only_keys_and_those_for_their_time(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await _fill(harness, "s")
    tables = set(_filled(path))
    assert tables >= {"session", "description", "label", "inference", "command", "turn", "block", "payload"}
    assert tables >= {"chunk", "base", "checkpoint", "effect", "idempotency", "mark"}
    await harness.store.update_session("local", "s", SessionChange("x"), None, harness.mint())
    await harness.delete("s", force=True)
    await harness.sweep()
    assert _filled(path) == {"idempotency": 1}
    assert _count(path, "token") > 1
    for age, left in ((TOKEN_AGE_MIN, {"idempotency": 1}), (timedelta(hours=24), {})):
        harness.now += age + timedelta(seconds=1)
        await harness.sweep()
        assert (_filled(path), _count(path, "token")) == (left, 0)
    await harness.end()


async def test_a_large_session_is_removed_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("large")
    for number in range(150):
        await harness.turn("large", "q", "a", "b", "c", idempotency=key(f"{number}"))
    await harness.running("large")
    rows = _count(path, "chunk")
    await harness.delete("large", force=True)
    assert _count(path, "chunk") == rows  # it is gone for everyone, but not from the file
    assert await harness.store.sweep(harness.now)
    assert 0 < _count(path, "chunk") < rows
    await harness.store.close()
    await harness.open(open_sqlite(path))  # it goes on after a restart
    with pytest.raises(SessionNotFoundError):
        await harness.start("large", idempotency=key("0"))
    await harness.session("large")
    await harness.turn("large", "in", "between")
    before = await harness.everything()
    await harness.sweep()
    assert await harness.everything() == before
    await harness.delete("large")
    await harness.sweep()
    assert _filled(path) == {"idempotency": 150}
    await harness.end()


async def test_a_cut_gives_its_space_back(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    for _ in range(3):
        await harness.turn("s", "q", "a")
    assert _count(path, "chunk") == 9
    for cut, chunks in ((1, 8), (4, 7), (5, 6), (14, 1), (15, 0)):
        await harness.store.compact("local", "s", Base(cut, b"fold"))
        assert (_count(path, "chunk"), _count(path, "base")) == (chunks, 1)
    await harness.end()


async def test_what_has_ended_leaves_nothing_but_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.cancel(await harness.start("s", user("never answered")))
    assert _filled(path).keys() == {"session", "description", "inference", "chunk"}
    claim = await harness.running("s")
    await harness.store.commit_step(claim.lease, 0, Step(1, checkpoint=b"one"))
    await harness.store.record_effects(claim.lease, 0, [Effect("open")])
    await harness.finish(claim, 0)
    await harness.cancel((await harness.waiting("s")).inference)
    assert not _filled(path).keys() & {"command", "checkpoint", "effect"}
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
    await harness.cancel(claim.inference)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM command")
        connection.execute("UPDATE inference SET record = x'ff'")
    [running] = (await harness.store.heartbeat("me")).running
    assert running == Running(claim.inference.inference_id, claim.lease.token, is_cancel_requested=True)
    await harness.store.close()


async def test_no_query_reads_all_inferences_or_sorts_a_listing(tmp_path: Path) -> None:
    path, asked = tmp_path / "turnwire.db", list[str]()
    harness = await Harness().open(open_sqlite(path))
    with closing(connect(path, "normal")) as connection:
        tx = Transaction(connection, lambda: harness.now, harness.mint)
        sessions.insert_session(tx, "local", NewSession("s", labels={"a": "b"}), "token")
        connection.set_trace_callback(asked.append)
        sessions.list_sessions(connection, "local", {}, 9, None)
        sessions.list_sessions(connection, "local", {"a": "b", "c": "d"}, 9, None)
        for states in ((), (InferenceState.QUEUED,), (InferenceState.RUNNING, InferenceState.SUCCEEDED)):
            inferences.list_inferences(connection, "local", "s", states, 9, None)
        turns.list_turns(connection, "local", "s", TurnView.FULL, 9, None, newest_first=True)
        log.find_retired(connection, harness.now, 9, 0)
        listings = list(asked)
        leases.heartbeat(tx, "me")
        leases.claim(tx, "me", ["t"], only_lost=False)
        leases.claim(tx, "me", ["t"], only_lost=True)
        inferences.list_unfinished(connection, 1)
        leases.expire(tx, harness.now)
        leases.revoke(tx, "me", ["i"])
        leases.declare_dead(tx, "me", 0)
        sessions.forget_keys(tx)
        deletion.expire_sessions(tx, harness.now)
        deletion.delete_session(tx, "local", "s", None, force=False, log="")
        deletion.purge(tx)
        connection.set_trace_callback(None)
        read = [row["detail"] for query in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
        sorted_ = [row["detail"] for query in listings for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert len(listings) >= 6
    assert len(asked) >= len(listings) + 9
    few = "owner|g|segment|p|place"  # there are few owners, and few sessions that share the turns of one
    assert [step for step in read if re.fullmatch(rf"SCAN (?!({few})$)\w+", step)] == []
    assert [step for step in sorted_ if step.startswith("USE TEMP B-TREE")] == []
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
