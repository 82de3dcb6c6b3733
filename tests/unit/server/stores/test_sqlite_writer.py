"""Group commit: what a batch, a failure, a cancelled caller and a full queue do."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.store_harness import EPOCH, gather
from support.faulty_sqlite import Commits, FaultyConnection, faulty_connection, sqlite_error
from turnwire_server.domain.errors import SessionBusyError, StoreUnavailableError
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores import sqlite_writer
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sqlite_file import OpenFiles, connect
from turnwire_server.stores.sqlite_transaction import Joint, Transaction
from turnwire_server.stores.sqlite_writer import GroupCommitWriter

_SCHEMA = """
    CREATE TABLE session (key INTEGER PRIMARY KEY, principal TEXT, session_id TEXT, head_sequence INTEGER,
        turn_count INTEGER);
    CREATE TABLE chunk (session INTEGER REFERENCES session DEFERRABLE INITIALLY DEFERRED, first_sequence, last_sequence,
        inference_id, state, frames);
    INSERT INTO session VALUES (1, 'p', 'a', 0, 0), (2, 'p', 'b', 0, 0);
"""


class Writer:
    """A writer on a file with two sessions, and what it published."""

    def __init__(self, path: Path) -> None:
        self.commits: list[list[Commit]] = []
        self.connection_class: type[FaultyConnection] = faulty_connection()
        self.connection = connect(path, "normal", self.connection_class)
        self.connection.executescript(_SCHEMA)
        self.writer = GroupCommitWriter(
            self.connection, OpenFiles(path), lambda commits: self.commits.append(list(commits)), lambda: EPOCH, str
        )

    async def append(self, session: int, *events: bytes) -> int:
        return (await self.writer.run(lambda tx: tx.append(session, "i", events))).first_sequence

    async def fail(self, commits: Commits) -> None:
        """From the COMMIT of the transaction on that this call is in."""

        def fail(_: Transaction) -> None:
            self.connection_class.commits = commits

        await self.writer.run(fail)

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
        writer.writer.run(lambda tx: tx.connection.execute("INSERT INTO gone VALUES (1)")),
        writer.append(1, b"x"),
    )
    assert isinstance(outcomes[0], StoreUnavailableError)
    assert isinstance(outcomes[0].__cause__, sqlite3.OperationalError)
    assert outcomes[0].is_definite
    assert "(no such table: gone)" in outcomes[0].message
    assert outcomes[1] == 1


async def test_joint_operations_are_done_together_with_their_neighbours(writer: Writer) -> None:
    done: list[list[int]] = []

    def append(tx: Transaction, sessions: Sequence[int]) -> list[Exception | None]:
        done.append([*sessions])
        for session in sessions:
            if session == 1:
                tx.append(session, "i", [b"x"])
        return [None if session == 1 else LookupError(session) for session in sessions]

    joint = [writer.writer.run_joint(Joint(append, session)) for session in (1, 2, 1, 2, 1)]
    outcomes = await _behind_a_gate(writer, *joint[:3], writer.append(1, b"alone"), *joint[3:])
    assert done == [[1, 2, 1], [2, 1]]
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        LookupError,
        type(None),
        int,
        LookupError,
        type(None),
    ]
    assert [(c.session_id, [k.last_sequence for k in c.chunks]) for c in writer.commits[0]] == [("a", [4])]


@pytest.mark.parametrize("error", [sqlite_error("it is broken", sqlite3.SQLITE_CORRUPT), KeyError("a defect")])
async def test_of_joint_operations_only_the_one_that_breaks_is_undone(writer: Writer, error: Exception) -> None:
    def append(tx: Transaction, sessions: Sequence[int]) -> list[Exception | None]:
        for session in sessions:
            tx.append(session, "i", [b"x"])
            if session == 2:
                raise error
        return [None for _ in sessions]

    joint = [writer.writer.run_joint(Joint(append, session)) for session in (1, 2, 1)]
    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), *joint, writer.append(1, b"y"))
    told = StoreUnavailableError if isinstance(error, sqlite3.Error) else KeyError
    assert [type(outcome) for outcome in outcomes] == [int, type(None), told, type(None), int]
    assert [(c.session_id, [k.last_sequence for k in c.chunks]) for c in writer.commits[0]] == [("a", [4])]


@pytest.mark.parametrize("count", [1, 2, 7, 64, 65, 200])
async def test_any_number_of_logs_is_written_at_once(writer: Writer, count: int) -> None:
    for number in range(3, count + 1):
        writer.connection.execute("INSERT INTO session VALUES (?, 'p', ?, 0, 0)", (number, f"s{number}"))
    await _behind_a_gate(writer, *(writer.append(number, b"x") for number in range(1, count + 1)))
    assert writer.count() == count
    stored = writer.connection.execute("SELECT session, frames FROM chunk ORDER BY session").fetchall()
    assert [row["session"] for row in stored] == list(range(1, count + 1))
    assert [row["frames"] for row in stored] == [chunk.data for commit in writer.commits[0] for chunk in commit.chunks]


async def test_what_was_appended_before_a_deletion_is_published_and_not_stored(writer: Writer) -> None:
    def delete(tx: Transaction) -> None:
        tx.append(2, "i", [b"the", b"end"])
        tx.connection.execute("DELETE FROM session WHERE key = 2")
        tx.forget(2, "p", "b")

    await _behind_a_gate(writer, writer.append(2, b"x"), writer.append(1, b"y"), writer.writer.run(delete))
    [commits] = writer.commits
    assert [(c.session_id, [(k.first_sequence, k.last_sequence) for k in c.chunks], c.is_deleted) for c in commits] == [
        ("b", [(1, 3)], True),
        ("a", [(1, 1)], False),
    ]
    assert b"end" in commits[0].chunks[0].data
    assert writer.count() == 1


async def test_a_commit_that_fails_fails_for_all_and_publishes_nothing(writer: Writer) -> None:
    def orphan(tx: Transaction) -> None:
        tx.connection.execute("INSERT INTO chunk VALUES (99, 1, 1, '', NULL, '')")  # refused at COMMIT

    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.writer.run(orphan), writer.append(2, b"y"))
    assert _definite(outcomes) == [True] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert writer.commits == []
    assert await writer.append(1, b"x") == 1
    assert writer.count() == 1


def _definite(outcomes: Sequence[object]) -> list[bool]:
    """Check that all failed because of the store; return which failures are definite."""
    assert all(isinstance(outcome, StoreUnavailableError) for outcome in outcomes), outcomes
    return [outcome.is_definite for outcome in outcomes if isinstance(outcome, StoreUnavailableError)]


async def test_a_commit_that_landed_succeeds_whatever_was_reported(writer: Writer) -> None:
    def refuse(_: Transaction) -> None:
        raise SessionBusyError(session_id="a", inference_id="i")

    def delete(tx: Transaction) -> None:
        tx.append(2, "i", [b"end"])
        tx.forget(2, "p", "b")

    calls = (writer.fail(Commits.LAND_UNHEARD), *map(writer.writer.run, (refuse, delete)))
    landed, refused, deleted, first = await _behind_a_gate(writer, *calls, writer.append(1, b"x", b"y"))
    assert (landed, type(refused), deleted, first) == (None, SessionBusyError, None, 1)
    [commits] = writer.commits
    assert [(c.session_id, c.chunks[-1].last_sequence, c.is_deleted) for c in commits] == [
        ("b", 1, True),
        ("a", 2, False),
    ]


@pytest.mark.parametrize("fate", [Commits.ARE_LOST, Commits.LAND_UNHEARD])
async def test_what_left_no_trace_in_a_log_may_have_landed_or_not(writer: Writer, fate: Commits) -> None:
    def create_and_delete(tx: Transaction) -> None:
        tx.append(2, "i", [b"x"])
        tx.forget(2, "p", "b")

    outcomes = await _behind_a_gate(writer, writer.fail(fate), writer.writer.run(create_and_delete))
    assert _definite(outcomes) == [False, False]
    assert writer.commits == []


@pytest.mark.parametrize(
    ("fate", "is_definite", "says"),
    [
        (Commits.ARE_REFUSED, True, "database is locked; another process is in the middle of a transaction"),
        (Commits.DO_NOT_FIT, True, "database or disk is full; make room on the disk"),
        (Commits.ARE_LOST, False, "disk I/O error; see whether the disk"),
    ],
)
async def test_a_commit_that_did_not_land_is_definite_if_nothing_is_left(
    writer: Writer, fate: Commits, is_definite: bool, says: str
) -> None:
    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.fail(fate), writer.append(2, b"y"))
    assert _definite(outcomes) == [is_definite] * 3
    assert all(f"the store did not answer ({says}" in str(outcome) for outcome in outcomes)
    assert writer.commits == []
    writer.connection_class.commits = Commits.SUCCEED
    assert await writer.append(1, b"x") == 1
    assert writer.count() == 1


@pytest.mark.parametrize(("fate", "is_kept"), [(Commits.ARE_REFUSED, True), (Commits.ARE_LOST, False)])
async def test_what_may_have_changed_is_not_at_hand_any_more(writer: Writer, fate: Commits, is_kept: bool) -> None:
    inference = Inference("a", "i", InferenceState.RUNNING, EPOCH)
    recent = writer.writer.recent
    await writer.writer.run(lambda tx: tx.wrote("p", inference))
    assert recent.get("p", "i") is inference

    def refuse(tx: Transaction) -> None:
        tx.wrote("p", replace(inference, state=InferenceState.SUCCEEDED))
        raise SessionBusyError(session_id="a", inference_id="i")

    with pytest.raises(SessionBusyError):
        await writer.writer.run(refuse)
    assert recent.get("p", "i") is inference
    await _behind_a_gate(writer, writer.append(1, b"x"), writer.fail(fate))
    assert recent.get("p", "i") is (inference if is_kept else None)


async def test_nothing_is_at_hand_once_somebody_else_writes_to_the_file(
    writer: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inference = Inference("a", "i", InferenceState.RUNNING, EPOCH)
    for _ in range(2):
        await writer.writer.run(lambda tx: tx.wrote("p", inference))
        await writer.append(1, b"x")
    assert writer.writer.recent.get("p", "i") == replace(inference, last_sequence=2)
    with closing(connect(tmp_path / "writer.db", "normal")) as other:
        other.execute("UPDATE session SET turn_count = turn_count + 1")
    await writer.append(2, b"y")
    assert writer.writer.recent.get("p", "i") is None
    await writer.writer.run(lambda tx: tx.wrote("p", inference))
    assert writer.writer.recent.get("p", "i") is None
    assert capsys.readouterr().out.count("another process writes to the store") == 1


async def test_a_transaction_that_sqlite_gave_up_fails_for_all(writer: Writer) -> None:
    def give_up(tx: Transaction) -> None:
        tx.connection.execute("ROLLBACK")
        raise sqlite_error("database or disk is full", sqlite3.SQLITE_FULL)

    outcomes = await _behind_a_gate(writer, writer.append(1, b"x"), writer.writer.run(give_up), writer.append(1, b"y"))
    assert _definite(outcomes) == [True] * 3
    assert writer.commits == []
    assert await writer.append(1, b"x") == 1


async def test_a_file_that_may_not_grow_is_told_and_survived(writer: Writer) -> None:
    async def limit(pages: int) -> None:
        await writer.writer.run(lambda tx: tx.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    await writer.append(1, b"before")
    await limit(1)  # no page more than there are
    outcomes = await gather(*(writer.append(1, b"x" * 100_000) for _ in range(3)))
    assert _definite(outcomes) == [True] * 3
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
    with pytest.raises(StoreUnavailableError, match=r"\(it is closed\)") as refused:
        await writer.append(1, b"y")
    assert refused.value.is_definite
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
        writer = GroupCommitWriter(connection, OpenFiles(tmp_path / "writer.db"), fail, lambda: EPOCH, str)
        appended = await writer.run(lambda tx: tx.append(1, "i", [b"x"]))
        await writer.close()
    assert appended.first_sequence == 1
    assert reported == ["a defect of the listener"]
