"""What snapshots and data of turns cost in a file: a row for each mark, and nothing for data that were replaced."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contract.store_harness import DONE, Harness, llm, marks, open_sqlite, user
from turnwire_server.stores.lease import Ending, Step
from turnwire_server.stores.sqlite_file import connect
from turnwire_server.stores.sqlite_inferences import load_inference
from turnwire_server.stores.sqlite_snapshots import list_turn_snapshots


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        [count] = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert isinstance(count, int)
    return count


async def test_data_that_were_replaced_give_their_space_back(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    claim = await harness.running("s", user("q"), data={"app.n@v1": "0"})
    counts = [_count(path, "payload")]
    for number in range(1, 6):
        data = {"app.n@v1": f"{number % 3}"}
        await harness.store.commit_step(claim.lease, 0, Step(number, data=data))
        counts.append(_count(path, "payload"))
    ending = Ending(DONE, blocks=(llm("a"),), data={"app.n@v1": "9"})
    await harness.store.finish(claim.lease, 0, ending)
    assert counts == [3] * 6  # the question, the metadata, the data
    assert _count(path, "payload") == 4
    await harness.end()


async def test_data_that_somebody_else_has_stay_when_they_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    for session_id in ("a", "b"):
        await harness.session(session_id)
        await harness.turn(session_id, "q", "a")  # data and metadata are one payload, which all of them have
    claim = await harness.running("a", user("q"))
    for number, data in enumerate(({"app.n@v1": "1"}, {}, {"app.n@v1": "1"}), 1):
        await harness.store.commit_step(claim.lease, 0, Step(number, data=data))
    assert _count(path, "payload") == 4
    await harness.delete("a", force=True)
    await harness.sweep()
    assert _count(path, "payload") == 3
    assert (await harness.full("b", 0)).data == {}
    await harness.end()


@pytest.mark.parametrize("is_forced", [False, True], ids=["ended", "running"])
async def test_marks_go_with_their_session(tmp_path: Path, is_forced: bool) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    claim = await harness.running("s", user("q"))
    await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),), marks=marks(harness, 1, 2)))
    if not is_forced:
        await harness.store.finish(claim.lease, 0, Ending(DONE, marks=marks(harness, 2)))
    assert _count(path, "mark") == (2 if is_forced else 4)  # one more for the end
    await harness.delete("s", force=is_forced)
    await harness.sweep()
    assert _count(path, "mark") == 0
    await harness.end()


async def test_a_page_of_snapshots_reads_its_own_blocks(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    steps: list[int] = []
    with closing(connect(path, "normal")) as connection:
        for number in range(60):
            claim = await harness.running("s", user(f"q{number}"))
            ending = Ending(DONE, blocks=(llm("a"), llm("b")), marks=marks(harness, 3 * number + 2, 3 * number + 3))
            await harness.store.finish(claim.lease, 0, ending)
            inference_id = claim.inference.inference_id
            steps.append(_steps(connection, inference_id))
    assert max(steps) <= 1.1 * steps[1], f"what was there before costs nothing: {steps}"
    await harness.end()


def _steps(connection: sqlite3.Connection, inference_id: str) -> int:
    """Return how many instructions of SQLite's machine a page of three snapshots takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    row = load_inference(connection, "local", inference_id)
    connection.set_progress_handler(tick, 1)
    page = list_turn_snapshots(connection, row, None, 9, None)
    connection.set_progress_handler(None, 1)
    assert [len(snapshot.turn.blocks) for snapshot in page.items] == [2, 3, 3]
    return count
