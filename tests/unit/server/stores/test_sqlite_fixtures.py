"""Files that released versions wrote are opened, and nothing in them is lost: tests/support/store_fixture.py."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from support.proto_docs import ROOT
from support.store_fixture import DEAD_OWNER, EPOCH, Json, clock, differences, opened, read, restore
from turnwire_server.domain.errors import AttemptLostError, SessionNotFoundError
from turnwire_server.domain.event import Cancelled, DebuggerPause, Event, Failed, Succeeded
from turnwire_server.domain.inference import FinishClass, InferenceConfig, InferenceState
from turnwire_server.domain.session import NewSession, PauseAction, SessionChange, SessionOrigin, StepMode
from turnwire_server.domain.turn import Block, LlmText, SnapshotMark, SnapshotPhase, TurnView
from turnwire_server.stores.base import Amendment, Base, Due, Retired, SessionStore
from turnwire_server.stores.lease import Claim, DeclaredDead, Ending, Step
from turnwire_server.stores.sqlite_migration import read_scripts
from turnwire_server.wire.event import encode_event

FIXTURES = sorted((ROOT / "tests" / "fixtures" / "store").glob("schema*.sql"))
NEWEST = len(read_scripts())

MODE = StepMode(timedelta(hours=1), PauseAction.ABORT)
DATA = {"app.of@v1": "1"}
ANSWER = (Block("", LlmText("Done")),)
LATER = EPOCH + timedelta(days=1)

every_fixture = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.stem)


def _version(fixture: Path) -> int:
    return int(fixture.stem.removeprefix("schema"))


def _expected(fixture: Path) -> Json:
    expected: Json = json.loads(fixture.with_suffix(".json").read_text(encoding="utf-8"))
    return expected


def _complaints(path: Path) -> list[tuple[object, ...]]:
    """Return what SQLite finds wrong with a file."""
    with closing(sqlite3.connect(path)) as connection:
        checks = [*connection.execute("PRAGMA integrity_check"), *connection.execute("PRAGMA foreign_key_check")]
    return [row for row in checks if row != ("ok",)]


def _backups(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*.backup")]


def _event(claim: Claim) -> bytes:
    inference = claim.inference
    return encode_event(Event(inference.session_id, inference.inference_id, EPOCH, DebuggerPause("p", "after_tools")))


async def _end(store: SessionStore, claim: Claim) -> None:
    ending = Ending(Succeeded(FinishClass.COMPLETED), blocks=ANSWER)
    ended = await store.finish(claim.lease, claim.position, ending)
    assert ended.state is InferenceState.SUCCEEDED


def test_there_is_a_fixture_of_every_schema_before_the_newest() -> None:
    assert set(range(1, NEWEST)) <= {_version(fixture) for fixture in FIXTURES} <= set(range(1, NEWEST + 1))


def test_what_is_missing_is_noticed() -> None:
    assert differences({"a": 1, "b": [{"c": 2, "new": 3}]}, {"a": 1, "b": [{"c": 2}]}) == []
    assert differences({"a": 1, "b": [{"c": 2}]}, {"a": 1, "b": [{"c": 3}]}) == [".b[0].c: 2, expected 3"]
    assert differences({"b": []}, {"a": 1, "b": [1]}) == [".a: None, expected 1", ".b: [], expected [1]"]


@every_fixture
async def test_everything_in_it_is_read(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    restore(fixture, path)
    for _ in range(2):  # migrated, and as it is after that
        async with opened(path, clock()) as store:
            assert differences(await read(store), _expected(fixture)) == []
            labelled = await store.list_sessions("local", {"team": "ü"}, 9, None)
            assert [session.session_id for session in labelled.items] == ["talk"]
        assert _complaints(path) == []
    is_old = _version(fixture) < NEWEST
    assert _backups(tmp_path) == ([f"turnwire.db.schema{_version(fixture)}.backup"] if is_old else [])


@every_fixture
async def test_what_is_newer_than_it_works(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    restore(fixture, path)
    async with opened(path, clock(), ids_from=1000) as store:
        await store.register("new")
        await store.set_step_mode("local", "talk", MODE, "mode")
        change = SessionChange(config=InferenceConfig(seed=7))
        changed = await store.update_session("local", "talk", change, None, "change")
        assert (changed.step_mode, changed.config) == (MODE, change.config)
        [_, alone] = await store.claim("new", ["a", "b"])
        marks = tuple(SnapshotMark(phase, 1, count, EPOCH) for count, phase in enumerate(SnapshotPhase))
        step = Step(
            1, ANSWER, events=(_event(alone),), then=InferenceState.PAUSED, wake_time=LATER, data=DATA, marks=marks
        )
        waiting = await store.commit_step(alone.lease, 0, step)
        assert Due("someone", waiting.inference_id) in await store.find_due(LATER, 9)
        page = await store.list_waiting("someone", "waiting", InferenceState.PAUSED, 9, None)
        assert [each.inference for each in page.items] == [waiting]
        snapshots = await store.list_turn_snapshots("someone", waiting.inference_id, None, 9, None)
        assert [len(each.turn.blocks) for each in snapshots.items] == [0, 1, 2, 2]
        assert [each.turn.data for each in snapshots.items] == [DATA] * 4
        amendment = Amendment(b"", outcome=Cancelled())
        ended = await store.amend("someone", waiting.inference_id, "token", lambda _: amendment)
        assert ended.state is InferenceState.CANCELLED
        assert Due("someone", waiting.inference_id) not in await store.find_due(LATER, 9)
        await store.delete_session("someone", "waiting", None, force=False)
        while await store.sweep(EPOCH):
            pass
    assert _complaints(path) == []


@every_fixture
async def test_what_had_not_ended_goes_on(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    restore(fixture, path)
    async with opened(path, clock(), ids_from=1000) as store:
        await store.register("new")
        with pytest.raises(DeclaredDead):
            await store.heartbeat(DEAD_OWNER)
        lost, alone = await store.claim("new", ["a", "b", "c"])
        assert (lost.inference.session_id, lost.position, lost.engine) == ("talk", 6, "scripted")
        assert (lost.is_lost, alone.is_lost, alone.inference.session_id) == (True, False, "waiting")
        assert alone.overrides.engine_options == '{"a": 1}'
        await _end(store, alone)
        error = AttemptLostError(attempt=lost.inference.attempt).failure()
        await store.finish(lost.lease, lost.position, Ending(Failed(error)))
        [behind] = await store.claim("new", ["c"])
        assert behind.inference.session_id == "talk"
        await _end(store, behind)
        assert await store.claim("new", ["d"]) == ()
        turns = await store.list_turns("local", "talk", TurnView.BASIC, 9, None, newest_first=False)
        assert [(turn.index, turn.parent) for turn in turns.items] == [(0, None), (1, 0), (2, 0), (3, 2), (4, 3)]
        await store.delete_session("local", "talk", None, force=False)
    assert _complaints(path) == []


@every_fixture
async def test_what_is_old_in_it_is_found(fixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    restore(fixture, path)
    async with opened(path, clock()) as store:
        done = (await store.list_inferences("local", "talk", (), 9, None)).items[:1:-1]
        assert [inference.state.is_terminal for inference in done] == [True, True, True]
        for inference, end in zip(done, (19, 28, 37), strict=True):
            assert inference.end_time is not None
            found = await store.find_retired(inference.end_time + timedelta(seconds=1), 9, 0)
            assert found == (Retired("local", "talk", end),)
            assert inference.last_sequence == end
        await store.compact("local", "talk", Base(37, b"fold"))
        assert await store.find_retired(clock()() + timedelta(days=1000), 9, 0) == ()


@every_fixture
async def test_a_session_of_it_is_forked_and_expires(fixture: Path, tmp_path: Path) -> None:
    path, now = tmp_path / "turnwire.db", clock()
    restore(fixture, path)
    async with opened(path, now, ids_from=1000) as store:
        fork, _ = await store.fork_session("local", "talk", None, NewSession("fork"), "token", None)
        assert (fork.origin, fork.turn_count) == (SessionOrigin("talk", 2), 3)
        listed = (await store.list_turns("local", "fork", TurnView.FULL, 9, None, newest_first=False)).items
        await store.sweep(now() + timedelta(days=31))  # it has not ended what it runs
        await store.delete_session("local", "talk", None, force=True)
        await store.create_session("local", NewSession("talk", ttl=timedelta(days=1)), "another token", None)
        while await store.sweep(now() + timedelta(days=31)):
            pass
        with pytest.raises(SessionNotFoundError):
            await store.get_session("local", "talk")
        page = await store.list_turns("local", "fork", TurnView.FULL, 9, None, newest_first=False)
        assert (page.items, len(listed)) == (listed, 3)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM session WHERE principal = ''").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM chunk WHERE session IN (1, 3)").fetchone() == (0,)
    assert _complaints(path) == []
