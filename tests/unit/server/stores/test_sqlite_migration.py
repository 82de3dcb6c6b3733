"""Bringing the file of a SqliteSessionStore to the newest schema, and the backup before that."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.store_harness import Harness, open_sqlite
from support.mounts import mounted_tmpfs
from turnwire_server.domain.ids import mint_id
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_file import StoreOpenError, connect
from turnwire_server.stores.sqlite_migration import migrate, read_scripts

A, B, C = "CREATE TABLE a (x);", "CREATE TABLE b (x); INSERT INTO b VALUES (1);", "CREATE TABLE c (x); -- the last one"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnwire.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path, "normal")) as connection:
        yield connection


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that the scripts have made."""
    select = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_script' ORDER BY name"
    return [row[0] for row in connection.execute(select)]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _content(path: Path) -> list[str]:
    """Return everything that a file has."""
    with closing(sqlite3.connect(path)) as connection:
        return [f"version {_version(connection)}", *connection.iterdump()]


def _backups(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if "backup" in file.name)


def test_a_new_file_gets_the_newest_schema(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, read_scripts())
    assert _version(connection) == len(read_scripts())
    assert {"session", "inference", "turn", "block", "payload", "chunk", "idempotency"} <= set(_tables(connection))
    assert _backups(path) == []


def test_migrating_again_changes_nothing(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, read_scripts())
    before = _content(path)
    migrate(connection, read_scripts())
    assert _content(path) == before
    assert _backups(path) == []


def test_only_the_missing_scripts_are_run(connection: sqlite3.Connection) -> None:
    migrate(connection, [A])
    assert _version(connection) == 1
    migrate(connection, [A, B, C])
    assert (_version(connection), _tables(connection)) == (3, ["a", "b", "c"])
    rows = connection.execute("SELECT version FROM schema_script ORDER BY version")
    assert [row["version"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("wrong", ["INSERT INTO gone VALUES (1);", "CREATE TABLE a (x);", "no SQL"])
def test_a_script_that_fails_leaves_the_file_as_it_was(connection: sqlite3.Connection, path: Path, wrong: str) -> None:
    migrate(connection, [A])
    before = _content(path)
    with pytest.raises(StoreOpenError, match="cannot be brought from schema 1 to 3, and is as it was: "):
        migrate(connection, [A, B, wrong])
    assert _content(path) == before
    migrate(connection, [A, B, C])
    assert (_version(connection), _tables(connection)) == (3, ["a", "b", "c"])


def test_a_script_that_fails_leaves_a_new_file_empty(connection: sqlite3.Connection, path: Path) -> None:
    with pytest.raises(StoreOpenError, match="from schema 0 to 2"):
        migrate(connection, [A, "no SQL"])
    assert (_version(connection), _tables(connection), _backups(path)) == (0, [], [])


def test_a_newer_file_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, [A, B])
    before = _content(path)
    with pytest.raises(StoreOpenError, match=r"newer turnwire wrote the file \(schema 2, this one knows 1\); upgrade"):
        migrate(connection, [A])
    assert _content(path) == before
    assert _backups(path) == []


def test_a_file_of_another_schema_of_the_same_version_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, [A])
    with pytest.raises(StoreOpenError, match=r"a development version .* another schema"):
        migrate(connection, ["CREATE TABLE a (x, y);", B])
    assert _version(connection) == 1
    assert _backups(path) == []


def test_a_file_of_something_else_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("CREATE TABLE turns (x)")
    with pytest.raises(StoreOpenError, match="not a turnwire store"):
        migrate(connection, read_scripts())
    assert _tables(connection) == ["turns"]
    assert _backups(path) == []


async def test_a_file_of_something_else_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("CREATE TABLE turns (x)")
    before = path.read_bytes()
    with pytest.raises(StoreOpenError, match="not a turnwire store"):
        await SqliteSessionStore.open(path, lambda _: None, SystemClock().now, mint_id)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["theirs.db", "theirs.db.lock"]  # noqa: ASYNC240


def test_an_older_file_is_backed_up_first(
    connection: sqlite3.Connection, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(connection, [A])
    connection.execute("INSERT INTO a VALUES ('in the log only')")
    before = _content(path)
    migrate(connection, [A, B])
    backup = path.with_name("turnwire.db.schema1.backup")
    assert _backups(path) == [backup.name]
    assert backup.stat().st_mode & 0o777 == 0o600
    assert _content(backup) == before
    assert str(backup) in capsys.readouterr().out
    with closing(connect(backup, "normal")) as restored:
        migrate(restored, [A, B])
        assert _tables(restored) == ["a", "b"]


def test_a_backup_takes_the_place_of_the_one_before(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, [A])
    with pytest.raises(StoreOpenError, match="syntax error"):
        migrate(connection, [A, "no SQL"])
    connection.execute("INSERT INTO a VALUES ('since')")
    migrate(connection, [A, B])
    migrate(connection, [A, B, C])
    assert _backups(path) == ["turnwire.db.schema1.backup", "turnwire.db.schema2.backup"]
    assert any("since" in line for line in _content(path.with_name("turnwire.db.schema1.backup")))


def test_what_is_left_of_a_backup_that_was_cut_off_is_replaced(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, [A])
    path.with_name("turnwire.db.schema1.backup.part").write_bytes(b"half")
    migrate(connection, [A, B])
    assert _backups(path) == ["turnwire.db.schema1.backup"]


def test_without_a_backup_there_is_no_migration(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, [A])
    before = _content(path)
    path.with_name("turnwire.db.schema1.backup").mkdir()
    with pytest.raises(StoreOpenError, match=r"schema1\.backup cannot be made, .* not migrated: Is a directory"):
        migrate(connection, [A, B])
    assert _content(path) == before
    assert _backups(path) == ["turnwire.db.schema1.backup"]


def test_a_backup_that_the_disk_has_no_room_for_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", kib=1024) as disk:
        path = disk / "turnwire.db"
        with closing(connect(path, "normal")) as connection:
            migrate(connection, [A])
            connection.execute("INSERT INTO a VALUES (zeroblob(300000))")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
            before = _content(path)
            with pytest.raises(StoreOpenError, match=r"cannot be made, .*: database or disk is full; make room"):
                migrate(connection, [A, B])
            assert _content(path) == before
            assert _backups(path) == []
            (disk / "others").unlink()
            migrate(connection, [A, B])
            assert (_tables(connection), _backups(path)) == (["a", "b"], ["turnwire.db.schema1.backup"])


async def test_a_store_is_opened_with_the_newest_schema_from_a_backup(tmp_path: Path) -> None:
    path, copy = tmp_path / "turnwire.db", tmp_path / "copy.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    await harness.turn("s", "a", "A")
    before = await harness.chunks("s")
    with closing(connect(path, "normal")) as connection:
        migrate(connection, [*read_scripts(), "CREATE TABLE of_the_future (x);"])
    await harness.end()
    with pytest.raises(StoreOpenError, match="newer turnwire"):
        await harness.open(open_sqlite(path))
    shutil.copy(path.with_name(f"turnwire.db.schema{len(read_scripts())}.backup"), copy)
    restored = await Harness().open(open_sqlite(copy))
    assert await restored.chunks("s") == before
    await restored.end()
