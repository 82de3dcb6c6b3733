"""Holding and opening the file of a SqliteSessionStore, and watching it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contract.store_harness import Harness, open_sqlite
from support.mounts import mounted_tmpfs, remount
from turnwire_server.stores.sqlite_file import FileLock, StoreOpenError


def _modes_for_others(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o077 for file in folder.iterdir()}


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "turnwire.db"
    path.write_text("something else entirely, and long enough to be looked at" * 100)
    with pytest.raises(StoreOpenError, match="cannot be opened: file is not a database"):
        await Harness().open(open_sqlite(path))
    FileLock(path).release()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreOpenError, match="cannot be opened: No such file or directory"):
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


def test_a_lock_that_cannot_be_written_says_of_which_store(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", kib=16) as disk:
        path, filler = disk / "turnwire.db", os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(filler, 0, 16 * 1024)
        os.close(filler)
        with pytest.raises(StoreOpenError, match=f"the store {path} cannot be written: No space left on device"):
            FileLock(path)
        (disk / "filler").unlink()
        FileLock(path).release()


def test_a_lock_that_cannot_be_made_says_of_which_store(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", kib=64) as disk:
        path = disk / "turnwire.db"
        remount(disk, "ro")
        with pytest.raises(StoreOpenError, match=f"the store {path} cannot be opened: Read-only file system"):
            FileLock(path)
        remount(disk, "rw")
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
