"""Group commit: what a batch, a failure, a cancelled caller and a full queue do."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from contract.store_harness import EPOCH, gather
from turnwire_server.domain.errors import SessionBusyError, StoreUnavailableError
from turnwire_server.stores import sqlite_writer
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sqlite_file import connect
from turnwire_server.stores.sqlite_writer import GroupCommitWriter, Operation, Transaction

_SCHEMA = """
    CREATE TABLE session (key INTEGER PRIMARY KEY, principal TEXT, session_id TEXT, head_sequence INTEGER);
    CREATE TABLE chunk (session INTEGER REFERENCES session DEFERRABLE INITIALLY DEFERRED, first_sequence, last_sequence,
        inference_id, state, frames);
    INSERT INTO session VALUES (1, 'p', 'a', 0), (2, 'p', 'b', 0);
"""


class Writer:
    """A writer on a file with two sessions, and what it published."""

    def __init__(self, path: Path) -> None:
        self.commits: list[list[Commit]] = []
        self.connection = connect(path, "normal")
        self.connection.executescript(_SCHEMA)
        self.writer = GroupCommitWriter(
            self.connection, lambda commits: self.commits.append(list(commits)), lambda: EPOCH, str
        )

    async def append(self, session: int, *events: bytes) -> int:
        return (await self.writer.run(lambda tx: tx.append(session, "i", events))).first_sequence

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM chunk").fetchone()[0])


class Gate:
    """An operation that holds up the writer's thread until it is opened, so that a batch gathers behind it."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, _: Transaction) -> None:
        self._entered.set()
        assert self._opened.wait(10)

    async def hold(self, writer: GroupCommitWriter) -> asyncio.Task[None]:
        """Return once the thread is held up."""
        held = asyncio.create_task(writer.run(self))
        assert await asyncio.to_thread(self._entered.wait, 10)
        return held

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    writer = Writer(tmp_path / "writer.db")
    with closing(writer.connection):
        yield writer
        await writer.writer.close()


async def _behind_a_gate(writer: Writer, *calls: Coroutine[Any, Any, object]) -> list[object]:
    """Make calls that end up in the same transaction."""
    gate = Gate()
    held = await gate.hold(writer.writer)
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    gate.open()
    await held
    return [*await gather(*tasks)]


async def test_what_arrives_together_is_committed_together(writer: Writer) -> None:
    firsts = await _behind_a_gate(writer, *(writer.append(1, b"x") for _ in range(3)), writer.append(2, b"y", b"z"))
    assert firsts == [1, 2, 3, 1]
    assert len(writer.commits) == 1
    assert [(c.session_id, [(k.first_sequence, k.last_sequence) for k in c.chunks]) for c in writer.commits[0]] == [
        ("a", [(1, 3)]),
        ("b", [(1, 2)]),
    ]
    assert writer.count() == 2


async def test_a_refused_operation_is_undone_alone(writer: Writer) -> None:
    def refuse(tx: Transaction) -> None:
        tx.append(1, "i", [b"never"])
        raise SessionBusyError(session_id="a", inference_id="i")

    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.writer.run(refuse), writer.append(1, b"y"))
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], SessionBusyError)
    assert outcomes[2] == 2
    assert b"never" not in b"".join(chunk.data for chunk in writer.commits[0][0].chunks)


async def test_an_operation_that_breaks_is_undone_alone(writer: Writer) -> None:
    outcomes = await _behind_a_gate(
        writer,
        writer.writer.run(lambda tx: tx.connection.execute("INSERT INTO nothing VALUES (1)")),
        writer.append(1, b"x"),
    )
    assert isinstance(outcomes[0], StoreUnavailableError)
    assert isinstance(outcomes[0].__cause__, sqlite3.OperationalError)
    assert outcomes[1] == 1


async def test_a_commit_that_fails_fails_for_all_and_publishes_nothing(writer: Writer) -> None:
    def orphan(tx: Transaction) -> None:
        tx.connection.execute("INSERT INTO chunk VALUES (99, 1, 1, '', NULL, '')")  # refused at COMMIT

    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.writer.run(orphan), writer.append(2, b"y"))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert writer.commits == []
    assert await writer.append(1, b"x") == 1
    assert writer.count() == 1


class _Ambiguous(sqlite3.Connection):
    """Reports an error of every COMMIT, also of the one that lands."""

    lands = True

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return super().execute(sql, *arguments)
        super().execute(sql if self.lands else "ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("lands", [True, False])
async def test_a_commit_that_landed_is_published_whatever_was_reported(tmp_path: Path, lands: bool) -> None:
    path, commits = tmp_path / "writer.db", list[Commit]()
    with closing(connect(path, "normal")) as connection:
        connection.executescript(_SCHEMA)

    def delete(tx: Transaction) -> None:
        tx.connection.execute("DELETE FROM session WHERE key = 2")
        tx.forget(2, "p", "b")

    def append_and_delete_what_was_just_created(tx: Transaction) -> None:
        tx.append(1, "i", [b"z"])
        tx.forget(9, "p", "c")

    with closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=_Ambiguous)
    ) as connection:
        connection.row_factory = sqlite3.Row
        connection.lands = lands
        writer = GroupCommitWriter(connection, commits.extend, lambda: EPOCH, str)
        operations: list[Operation[object]] = [lambda tx: tx.append(1, "i", [b"x", b"y"]), delete, lambda tx: None]
        operations.append(append_and_delete_what_was_just_created)
        for operation in operations:
            with pytest.raises(StoreUnavailableError):
                await writer.run(operation)
        await writer.close()
    published = [(c.session_id, [k.last_sequence for k in c.chunks], c.is_deleted) for c in commits]
    assert published == ([("a", [2], False), ("b", [], True), ("a", [3], False), ("c", [], True)] if lands else [])


async def test_a_transaction_that_sqlite_gave_up_fails_for_all(writer: Writer) -> None:
    def give_up(tx: Transaction) -> None:
        tx.connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.writer.run(give_up), writer.append(1, b"y"))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 3
    assert writer.commits == []
    assert await writer.append(1, b"x") == 1


async def test_a_full_disk_is_told_and_survived(writer: Writer) -> None:
    async def limit(pages: int) -> None:
        await writer.writer.run(lambda tx: tx.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    await writer.append(1, b"before")
    await limit(1)  # no page more than there are
    outcomes = await gather(*(writer.append(1, b"x" * 100_000) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 3
    assert writer.count() == 1
    await limit(1_000_000)
    assert await writer.append(1, b"after") == 2
    assert len(writer.commits) == 2


async def test_a_cancelled_caller_does_not_undo_its_operation(writer: Writer) -> None:
    gate = Gate()
    held = await gate.hold(writer.writer)
    queued = asyncio.create_task(writer.append(1, b"x"))
    await asyncio.sleep(0)
    queued.cancel()
    held.cancel()
    gate.open()
    assert await writer.append(1, b"y") == 2
    assert queued.cancelled()
    assert held.cancelled()
    assert [chunk.last_sequence for commits in writer.commits for c in commits for chunk in c.chunks][-1] == 2


async def test_callers_wait_while_the_queue_is_full(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_writer, "_BATCH_MAX", 2)
    gate = Gate()
    held = await gate.hold(writer.writer)
    calls = [asyncio.create_task(writer.append(1, b"x")) for _ in range(sqlite_writer.OPERATIONS_MAX + 9)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(writer.append(2, b"never"))
    await asyncio.sleep(0)
    waiting.cancel()  # it did not get in, so it never happens
    gate.open()
    await held
    assert sorted(await asyncio.gather(*calls)) == list(range(1, len(calls) + 1))
    assert await writer.append(2, b"first") == 1


async def test_close_commits_what_was_queued_and_refuses_what_comes_after(writer: Writer) -> None:
    gate = Gate()
    held = await gate.hold(writer.writer)
    queued = asyncio.create_task(writer.append(1, b"x"))
    await asyncio.sleep(0)
    closing_writer = asyncio.create_task(writer.writer.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await writer.append(1, b"y")
    gate.open()
    await closing_writer
    await held
    assert await queued == 1
    assert writer.count() == 1


async def test_a_publication_that_fails_does_not_strand_the_callers(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise ValueError("a defect of the listener")

    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    with closing(connect(tmp_path / "writer.db", "normal")) as connection:
        connection.executescript(_SCHEMA)
        writer = GroupCommitWriter(connection, fail, lambda: EPOCH, str)
        appended = await writer.run(lambda tx: tx.append(1, "i", [b"x"]))
        await writer.close()
    assert appended.first_sequence == 1
    assert reported == ["a defect of the listener"]
