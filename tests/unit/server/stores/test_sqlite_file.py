"""Holding, opening and migrating the file of a SqliteSessionStore."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from contract.store_harness import Harness, open_sqlite
from turnwire_server.stores.sqlite_file import FileLock, StoreOpenError, connect, migrate, read_scripts


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "turnwire.db", "normal")) as connection:
        yield connection


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that the scripts have made."""
    select = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_script' ORDER BY name"
    return [row[0] for row in connection.execute(select)]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _modes_for_others(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o077 for file in folder.iterdir()}


def test_a_new_file_gets_the_newest_schema(connection: sqlite3.Connection) -> None:
    migrate(connection, read_scripts())
    assert _version(connection) == len(read_scripts())
    assert {"session", "inference", "turn", "block", "payload", "chunk", "idempotency"} <= set(_tables(connection))


def test_migrating_again_changes_nothing(connection: sqlite3.Connection) -> None:
    migrate(connection, read_scripts())
    before = list(connection.execute("SELECT * FROM meta"))
    migrate(connection, read_scripts())
    assert list(connection.execute("SELECT * FROM meta")) == before


def test_only_the_missing_scripts_are_run(connection: sqlite3.Connection) -> None:
    scripts = ["CREATE TABLE a (x);", "CREATE TABLE b (x); INSERT INTO b VALUES (1);"]
    migrate(connection, scripts[:1])
    assert _version(connection) == 1
    migrate(connection, scripts)
    assert (_version(connection), _tables(connection)) == (2, ["a", "b"])


def test_a_script_that_fails_leaves_the_version_before(connection: sqlite3.Connection) -> None:
    scripts = ["CREATE TABLE a (x);", "CREATE TABLE b (x); INSERT INTO nothing VALUES (1);"]
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, scripts)
    assert (_version(connection), _tables(connection)) == (1, ["a"])
    migrate(connection, [scripts[0], "CREATE TABLE b (x);"])
    assert (_version(connection), _tables(connection)) == (2, ["a", "b"])


def test_a_newer_file_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, ["CREATE TABLE a (x);", "CREATE TABLE b (x);"])
    with pytest.raises(StoreOpenError, match=r"newer turnwire wrote the file .* upgrade"):
        migrate(connection, ["CREATE TABLE a (x);"])


def test_a_file_of_another_schema_of_the_same_version_is_refused(connection: sqlite3.Connection) -> None:
    migrate(connection, ["CREATE TABLE a (x);"])
    with pytest.raises(StoreOpenError, match=r"a development version .* another schema"):
        migrate(connection, ["CREATE TABLE a (x, y);", "CREATE TABLE b (x);"])
    assert _version(connection) == 1


def test_a_file_of_something_else_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE turns (x)")
    with pytest.raises(StoreOpenError, match="not a turnwire store"):
        migrate(connection, read_scripts())
    assert _tables(connection) == ["turns"]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    path.write_text("something else entirely, and long enough to be looked at" * 100)
    with pytest.raises(StoreOpenError, match="cannot be opened: file is not a database"):
        await Harness().open(open_sqlite(path))
    FileLock(path).release()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Harness().open(open_sqlite(tmp_path / "nowhere" / "turnwire.db"))


async def test_only_the_owner_may_look_into_the_files(tmp_path: Path) -> None:
    harness = await Harness().open(open_sqlite(tmp_path / "turnwire.db"))
    await harness.session("s")
    modes = _modes_for_others(tmp_path)
    assert modes == dict.fromkeys(("turnwire.db", "turnwire.db-wal", "turnwire.db-shm", "turnwire.db.lock"), 0)
    await harness.end()


def test_a_file_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    lock = FileLock(path)
    with pytest.raises(StoreOpenError, match=f"process {os.getpid()} uses the store .*; stop it"):
        FileLock(path)
    lock.release()
    FileLock(path).release()


async def test_a_store_that_cannot_be_opened_gives_its_file_back(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    first = await Harness().open(open_sqlite(path))
    with pytest.raises(StoreOpenError, match="uses the store"):
        await Harness().open(open_sqlite(path))
    await first.end()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreOpenError, match="newer"):
        await Harness().open(open_sqlite(path))
    FileLock(path).release()
