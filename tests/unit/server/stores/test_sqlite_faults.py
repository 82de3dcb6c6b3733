"""What a store on disk does while its file cannot be used, and once it can again: real files, and real faults.

A file system that is made read-only under an open file is not here, because the kernel refuses that; one that turns
read-only by itself, after an error of its disk, fails every write as a file size limit does, which
tests/integration/test_store_faults.py sets.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.store_harness import Harness, check_gapless, llm, open_sqlite, texts, user
from support.mounts import mounted_tmpfs, remount
from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.stores.lease import Claim
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_file import FileLock, StoreOpenError

MOVED = "the file was moved or deleted while it is open; put it back or restart the server"
FULL = "database or disk is full; make room on the disk"
LOCKED = "database is locked; another process is in the middle of a transaction; let it end"
DAMAGED = "database disk image is malformed; the file is damaged: stop the server and restore a backup"

# Writes to a file from another process: one that opens and closes it in ours takes SQLite's locks away.
_OVERWRITE = (
    "import sys; file = open(sys.argv[1], 'r+b'); file.seek(int(sys.argv[2])); file.write(sys.stdin.buffer.read())"
)


class Impatient(sqlite3.Connection):
    """Does not wait for long while the file is locked."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{**named, "timeout": 0.01})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "turnwire.db"


@pytest.fixture
async def harness(path: Path) -> AsyncIterator[Harness]:
    """A store with a session that has a turn, and an inference that runs."""
    harness = await Harness().open(partial(SqliteSessionStore.open, path, connection_class=Impatient))
    await _fill(harness)
    yield harness
    await harness.store.close()


async def _fill(harness: Harness) -> None:
    await harness.session("s")
    await harness.turn("s", "a", "A")


async def _refused(call: Awaitable[object], cause: str, path: Path) -> None:
    """Check that a call fails, definitely, with a cause, and that the client does not learn where the file is."""
    with pytest.raises(StoreUnavailableError) as refused:
        await call
    assert refused.value.is_definite
    assert f"the store did not answer ({cause})" in refused.value.message
    assert str(path.parent) not in refused.value.message
    assert len(refused.value.message.encode()) < 256  # what a status has of it


async def _go_on(harness: Harness, claim: Claim, position: int) -> None:
    """Check that what was running goes on where it was, and that nothing is missing, here and after a restart."""
    await harness.store.append(claim.lease, position, harness.deltas(claim, "after"))
    await harness.finish(claim, position + 1, llm("B"))
    await harness.check()
    assert texts(await harness.full("s", None)) == ["a", "A", "b", "B"]


async def _restarted(harness: Harness, path: Path) -> None:
    before = await harness.chunks("s")
    check_gapless(before)
    await harness.store.close()
    await harness.open(open_sqlite(path), owner="")
    assert await harness.chunks("s") == before
    await harness.session("another")


async def test_a_file_that_was_moved_takes_no_writes_until_it_is_back(
    harness: Harness, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = await harness.running("s", user("b"))
    await harness.store.append(claim.lease, 0, harness.deltas(claim, "before"))
    os.rename(path, tmp_path / "elsewhere.db")
    for _ in range(2):
        await _refused(harness.store.append(claim.lease, 1, harness.deltas(claim, "during")), MOVED, path)
        await _refused(harness.session("t"), MOVED, path)
    assert [session.session_id for session in (await harness.store.list_sessions("local", {}, 9, None)).items] == ["s"]
    _write(path, b"something else")
    await _refused(harness.session("t"), MOVED, path)
    os.rename(tmp_path / "elsewhere.db", path)
    logged = capsys.readouterr().out
    assert f"{path} is gone" in logged
    assert f"{path} is another file" in logged
    await _go_on(harness, claim, 1)
    assert "the store takes writes again" in capsys.readouterr().out
    await _restarted(harness, path)


async def test_a_folder_that_was_moved_is_found_again(harness: Harness, path: Path, tmp_path: Path) -> None:
    claim = await harness.running("s", user("b"))
    elsewhere = tmp_path.with_name("elsewhere")
    os.rename(tmp_path, elsewhere)
    await _refused(harness.session("t"), MOVED, path)
    os.rename(elsewhere, tmp_path)
    await _go_on(harness, claim, 0)
    await _restarted(harness, path)


async def test_a_log_that_was_moved_takes_no_writes_until_it_is_back(harness: Harness, path: Path) -> None:
    claim = await harness.running("s", user("b"))
    log, elsewhere = path.with_name("turnwire.db-wal"), path.with_name("elsewhere")
    os.rename(log, elsewhere)
    await _refused(harness.session("t"), MOVED, path)
    os.rename(elsewhere, log)
    await _go_on(harness, claim, 0)
    await _restarted(harness, path)


async def test_what_was_in_a_log_that_was_deleted_is_saved(harness: Harness, path: Path, tmp_path: Path) -> None:
    claim = await harness.running("s", user("b"))
    await harness.store.append(claim.lease, 0, harness.deltas(claim, "before"))
    before = await harness.chunks("s")
    path.with_name("turnwire.db-wal").unlink()
    await _refused(harness.session("t"), MOVED, path)
    copy = tmp_path / "as_after_a_kill.db"
    shutil.copy(path, copy)
    killed = await Harness().open(open_sqlite(copy))
    assert await killed.chunks("s") == before
    await killed.store.close()
    await _restarted(harness, path)
    await _go_on(harness, claim, 1)


async def test_a_file_that_is_locked_is_told_and_waited_for(harness: Harness, path: Path) -> None:
    claim = await harness.running("s", user("b"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await _refused(harness.session("t"), LOCKED, path)
        assert (await harness.store.get_session("local", "s")).turn_count == 2
        other.execute("ROLLBACK")
    await _go_on(harness, claim, 0)
    await _restarted(harness, path)


async def test_a_damaged_page_is_told_and_read_again_once_it_is_put_right(path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await _fill(harness)
    claim = await harness.running("s", user("b"))
    await harness.store.close()
    with closing(sqlite3.connect(path)) as connection:
        [[size]] = connection.execute("PRAGMA page_size")
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'chunk'")
    offset = (page - 1) * size
    good = _read(path)[offset : offset + size]
    _overwrite(path, offset, b"\xff" * size)
    await harness.open(open_sqlite(path), owner="")
    for _ in range(6):  # each of the connections that read, and the writer
        await _refused(harness.chunks("s"), DAMAGED, path)
        await _refused(harness.store.append(claim.lease, 0, harness.deltas(claim, "during")), DAMAGED, path)
    assert texts(await harness.full("s", 0)) == ["a", "A"]
    _overwrite(path, offset, good)
    await _go_on(harness, claim, 0)
    await _restarted(harness, path)
    await harness.store.close()


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _overwrite(path: Path, offset: int, content: bytes) -> None:
    subprocess.run([sys.executable, "-c", _OVERWRITE, str(path), str(offset)], input=content, check=True)


async def test_a_full_disk_takes_writes_again_once_there_is_room(tmp_path: Path) -> None:
    """A file system of its own: PRAGMA max_page_count would stop neither the write-ahead log nor its index."""
    with mounted_tmpfs(tmp_path / "disk", kib=2048) as disk:
        path, others = disk / "turnwire.db", disk / "others"
        harness = await Harness().open(open_sqlite(path))
        await _fill(harness)
        claim = await harness.running("s", user("b"))
        others.write_bytes(bytes(shutil.disk_usage(disk).free))
        position = await _append_until_full(harness, claim, path)
        assert texts(await harness.full("s", 0)) == ["a", "A"]
        await harness.store.close()  # a restart does not need room
        await harness.open(open_sqlite(path), owner="")
        position = await _append_until_full(harness, claim, path, position)
        others.unlink()
        await _go_on(harness, claim, position)
        await _restarted(harness, path)
        await harness.store.close()


async def _append_until_full(harness: Harness, claim: Claim, path: Path, position: int = 0) -> int:
    """Append until there is no room; return how many events were acknowledged."""
    while True:
        append = harness.store.append(claim.lease, position, harness.deltas(claim, "x" * 5000))
        try:
            await append
        except StoreUnavailableError:
            await _refused(harness.store.append(claim.lease, position, harness.deltas(claim, "x" * 5000)), FULL, path)
            return position
        position += 1


async def test_a_file_system_that_is_read_only_is_told(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", kib=1024) as disk:
        path = disk / "turnwire.db"
        harness = await Harness().open(open_sqlite(path))
        await _fill(harness)
        await harness.store.close()
        remount(disk, "ro")
        with pytest.raises(OSError, match="Read-only file system"):
            await harness.open(open_sqlite(path))
        remount(disk, "rw")
        await harness.open(open_sqlite(path))
        await _restarted(harness, path)
        await harness.store.close()


@pytest.mark.parametrize("what", ["turnwire.db", "."])
async def test_a_file_that_may_not_be_written_is_told(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "turnwire.db"
    harness = await Harness().open(open_sqlite(path))
    await harness.store.close()
    mode = _set_mode(folder / what, 0o500)
    if os.access(folder / what, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OSError, match=r"Permission denied|make the file and its folder writable"):
        await harness.open(open_sqlite(path))
    _set_mode(folder / what, mode)
    await harness.open(open_sqlite(path))
    await harness.store.close()


def _set_mode(path: Path, mode: int) -> int:
    """Set who may do what with a file; return what it was before."""
    before = path.stat().st_mode
    path.chmod(mode)
    return before


async def test_a_new_file_is_not_made_beside_the_log_of_one_that_is_gone(path: Path, tmp_path: Path) -> None:
    harness = await Harness().open(open_sqlite(path))
    await harness.session("s")
    shutil.copy(tmp_path / "turnwire.db-wal", tmp_path / "copy.db-wal")
    shutil.copy(path, tmp_path / "elsewhere.db")
    await harness.store.close()
    copy = tmp_path / "copy.db"
    with pytest.raises(StoreOpenError, match=r"copy\.db is gone, .* in copy\.db-wal; put it back"):
        await harness.open(open_sqlite(copy))
    assert not copy.exists()
    FileLock(copy).release()
    os.rename(tmp_path / "elsewhere.db", copy)
    await harness.open(open_sqlite(copy))
    await _restarted(harness, copy)
    await harness.store.close()


async def test_a_link_to_a_file_is_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link, path = tmp_path / "link.db", folder / "turnwire.db"
    link.symlink_to(path)
    harness = await Harness().open(open_sqlite(link))
    with pytest.raises(StoreOpenError, match="uses the store"):
        await Harness().open(open_sqlite(path))
    await _fill(harness)
    os.rename(path, folder / "elsewhere.db")
    await _refused(harness.session("t"), MOVED, path)
    os.rename(folder / "elsewhere.db", path)
    await harness.session("t")
    await harness.end()
