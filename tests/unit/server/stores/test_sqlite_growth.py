"""What a turn costs in a session that has many: the same rows and bytes as the first, and a read of its own size."""

import sqlite3
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from turnwire_server.domain.event import Event, LlmDelta, Succeeded
from turnwire_server.domain.ids import LOCAL, mint_id
from turnwire_server.domain.inference import ConflictPolicy, FinishClass, InferenceConfig
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import Block, LlmText, TurnView, User
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_file import connect
from turnwire_server.stores.sqlite_turns import get_turn
from turnwire_server.stores.start import Admission, StartCommand
from turnwire_server.wire.event import encode_event

TURNS = 1000
SAMPLE = 100
DONE = Ending(Succeeded(FinishClass.COMPLETED))


async def _run_turn(store: SqliteSessionStore, number: int) -> None:
    """Run one turn whose input, output and events are as long as those of any other."""
    said = f"{number:06d} " * 20
    command = StartCommand(
        LOCAL, mint_id(), "s", (Block("", User(said)),), conflict_policy=ConflictPolicy.ENQUEUE, metadata={"n": said}
    )
    await store.start(command, lambda _c, _s: Admission("p", "scripted", InferenceConfig()))
    [claim] = await store.claim("me", [mint_id()])
    inference = claim.inference
    delta = encode_event(Event("s", inference.inference_id, SystemClock().now(), LlmDelta(said, 0)))
    await store.append(claim.lease, 0, [delta] * 3)
    answer = (Block(mint_id(), LlmText(f"answer {said}")),)
    await store.finish(claim.lease, 3, Ending(DONE.outcome, blocks=answer))


def _size(connection: sqlite3.Connection) -> Mapping[str, int]:
    """Return the rows of each table, and the bytes of the file under `bytes`."""
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    [pages], [page] = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return {**rows, "bytes": pages * page}


def _steps(connection: sqlite3.Connection, index: int, view: TurnView, session_id: str = "s") -> tuple[int, int]:
    """Return how many instructions of SQLite's machine a read of a turn takes, and how many blocks it returns."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1)
    page = get_turn(connection, LOCAL, session_id, index, view, 0, 10 * TURNS)
    connection.set_progress_handler(None, 1)
    return count, len(page.turn.blocks)


@pytest.mark.timeout(300)
async def test_a_thousand_turns_cost_a_thousand_times_one(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    store = await SqliteSessionStore.open(path, lambda _commits: None, SystemClock().now, mint_id, synchronous="normal")
    await store.register("me")
    await store.create_session(LOCAL, NewSession("s"), mint_id(), None)
    reader = connect(path, "normal")
    sizes = [_size(reader)]
    for number in range(TURNS):
        await _run_turn(store, number)
        if (number + 1) % SAMPLE == 0:
            sizes.append(_size(reader))
    before = _size(reader)
    await store.fork_session(LOCAL, "s", None, NewSession("f"), mint_id(), None)
    after = _size(reader)
    await store.close()
    written = {name: after[name] - before[name] for name in after if name != "bytes" and after[name] != before[name]}
    assert written == {"session": 1, "description": 1, "token": 1}
    assert after["bytes"] - before["bytes"] <= 3 * 4096

    growth = [{name: after[name] - before[name] for name in after} for before, after in pairwise(sizes)]
    for name in growth[0].keys() - {"bytes"}:
        assert {sample[name] for sample in growth[1:]} == {growth[1][name]}, f"rows of {name} per {SAMPLE} turns"
    first, last = growth[1]["bytes"], growth[-1]["bytes"]
    assert last <= 1.1 * first, f"bytes per {SAMPLE} turns: {first} at first, {last} at last"

    deltas = [_steps(reader, index, TurnView.DELTA) for index in (1, 10, 100, 500, TURNS - 1)]
    assert {blocks for _, blocks in deltas} == {2}
    assert max(steps for steps, _ in deltas) <= 1.1 * deltas[0][0], f"a DELTA reads its own rows: {deltas}"
    forked = [_steps(reader, index, TurnView.DELTA, "f") for index in (1, 500, TURNS - 1)]
    assert max(steps for steps, _ in forked) <= 1.3 * deltas[0][0], f"a DELTA of a fork as well: {forked}"
    fulls = [_steps(reader, index, TurnView.FULL) for index in (9, 99, TURNS - 1)]
    assert [blocks for _, blocks in fulls] == [20, 200, 2 * TURNS]
    per_block = [(steps - deltas[0][0]) / blocks for steps, blocks in fulls]
    assert max(per_block) <= 1.2 * min(per_block[1:]), f"a FULL reads rows in proportion: {fulls}"
    reader.close()
