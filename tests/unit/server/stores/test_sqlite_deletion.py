"""What is left in the file of sessions that were deleted: what forks still share, and not a row more."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from contract.store_harness import Harness, llm, open_sqlite, texts, user
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.base import Base
from turnwire_server.stores.lease import Step

# What is not about a session that is there.
_OTHER = {"meta", "schema_script", "sqlite_sequence", "token", "idempotency", "owner"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnwire.db"


def _counts(path: Path) -> Mapping[str, int]:
    """Return how many rows each table has that has any."""
    with closing(sqlite3.connect(path)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} - _OTHER
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    return {name: count for name, count in counts.items() if count}


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return [tuple(row) for row in connection.execute(query)]


async def test_of_an_origin_only_shared_turns_are_left(path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s", labels={"a": "b"}, metadata={"app.x@v1": "1"}, display_name="a secret")
    for number in range(4):
        await harness.turn("s", f"q{number}", f"a{number}")
        await harness.cancel(await harness.start("s", user("never")), "a secret as well")
    claim = await harness.running("s", user("open"))
    await harness.store.commit_step(claim.lease, 0, Step(1, (llm("still"),), checkpoint=b"secret"))
    await harness.store.compact("local", "s", Base(5, b"secret fold"))
    await harness.fork("f", index=1)
    await harness.delete("s", force=True)
    await harness.sweep()
    assert _counts(path) == {
        "session": 2,
        "description": 1,
        "turn": 2,
        "inference": 2,
        "block": 4,
        "payload": 4 + 1,  # and the empty map that the two have as metadata and as data
    }
    assert _rows(path, "SELECT record FROM inference") == [(b"",)] * 2
    assert texts(await harness.full("f", None)) == ["q0", "a0", "q1", "a1"]
    await harness.delete("f")
    await harness.sweep()
    assert _counts(path) == {}
    await harness.store.close()


async def test_what_the_last_fork_kept_goes_with_it(path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    for number in range(6):
        await harness.turn("s", f"q{number}")
    for name, index in (("high", 4), ("low", 1), ("mid", 2), ("as low", 1)):
        await harness.fork(name, index=index)
    left: list[int] = []
    for name in ("s", "high", "mid", "low", "as low"):
        await harness.delete(name)
        await harness.sweep()
        left.append(_counts(path).get("turn", 0))
    assert left == [5, 3, 2, 2, 0]
    assert _counts(path) == {}
    await harness.store.close()


async def test_a_sweep_writes_nothing_for_what_is_kept(path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.turn("s", "q", "a")
    await harness.fork("f")
    await harness.delete("s")
    await harness.sweep()
    before = _rows(path, "SELECT * FROM session")
    with closing(sqlite3.connect(path)) as watcher:
        [[version]] = watcher.execute("PRAGMA data_version")
        for _ in range(3):
            assert not await harness.store.sweep(harness.now)
        assert list(watcher.execute("PRAGMA data_version")) == [(version,)]
    assert _rows(path, "SELECT * FROM session") == before
    await harness.store.close()


async def test_an_expired_session_that_is_busy_is_looked_at_once(path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s", ttl=timedelta(seconds=1))
    inference = await harness.start("s")
    harness.now += timedelta(seconds=2)
    assert _rows(path, "SELECT count(*) FROM session WHERE due_time IS NOT NULL") == [(1,)]
    await harness.sweep()
    assert _rows(path, "SELECT count(*) FROM session WHERE due_time IS NOT NULL") == [(0,)]
    await harness.cancel(inference)
    assert _rows(path, "SELECT count(*) FROM session WHERE due_time = expire_time") == [(1,)]
    await harness.store.close()


def _needed(origins: Mapping[str, tuple[str, int] | None], counts: Mapping[str, int], living: set[str]) -> int:
    """Return how many turns living sessions show, each counted once, by where it was made."""
    shown: set[tuple[str, int]] = set()
    for name in living:
        at, index = name, counts[name] - 1
        while True:
            origin = origins[at]
            floor = origin[1] if origin else -1
            shown |= {(at, number) for number in range(floor + 1, index + 1)}
            if origin is None:
                break
            at, index = origin[0], min(index, floor)
    return len(shown)


@pytest.mark.parametrize("seed", range(12))
async def test_random_forks_and_deletions_leave_what_is_needed(path: Path, seed: int) -> None:
    random, harness = Random(seed), Harness()
    await harness.open(open_sqlite(path))
    await harness.session("n0")
    origins: dict[str, tuple[str, int] | None] = {"n0": None}
    counts, living = {"n0": 0}, {"n0"}
    told: dict[str, list[list[str]]] = {"n0": []}
    for number in range(1, 60):
        at = random.choice(sorted(living))
        what = random.choice(("turn", "turn", "turn", "fork", "fork", "delete"))
        if what == "turn" or (what == "fork" and not counts[at]):
            parent = random.choice([None, *range(counts[at])])
            before = told[at][counts[at] - 1 if parent is None else parent] if counts[at] else []
            await harness.turn(at, f"q{number}", f"a{number}", parent=parent)
            told[at].append([*before, f"q{number}", f"a{number}"])
            counts[at] += 1
        elif what == "fork":
            name, index = f"n{number}", random.randrange(counts[at])
            await harness.fork(name, at, index)
            origins[name], counts[name] = (at, index), index + 1
            told[name] = told[at][: index + 1]
            living.add(name)
        elif len(living) > 1:
            await harness.delete(at)
            living.remove(at)
        if random.random() < 0.4:
            await harness.sweep()
            assert _counts(path).get("turn", 0) == _needed(origins, counts, living)
    await harness.sweep()
    assert _counts(path).get("turn", 0) == _needed(origins, counts, living)
    for name in sorted(living):
        page = await harness.store.list_turns("local", name, TurnView.FULL, 100, None, newest_first=False)
        assert [texts(turn) for turn in page.items] == told[name]
    for name in random.sample(sorted(living), len(living)):
        await harness.delete(name)
    await harness.sweep()
    assert _counts(path) == {}
    await harness.store.close()
