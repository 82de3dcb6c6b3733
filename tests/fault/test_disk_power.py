"""Power cuts of the fault suite's disk take from files and databases what was not flushed, and nothing else."""

import asyncio
import mmap
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from fault.disk import Disk, write_file
from fault.disk_device import BLOCK_BYTES, Blocks

pytestmark = pytest.mark.skipif(bool(Disk.is_possible()), reason=Disk.is_possible())

# At how many random instants the power is cut under a database.
CUTS = 30

# The rows that a database under load has.
LINES_MAX = 100


@pytest_asyncio.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    """A disk to which nothing is written but what is flushed: the file system does not write by itself, in the test."""
    async with Disk(tmp_path / "disk", options=("commit=600",)) as opened:
        yield opened


async def test_a_power_cut_keeps_what_was_flushed_and_nothing_else(disk: Disk) -> None:
    write_file(disk.folder / "flushed", b"flushed" * 10_000, is_flushed=True)
    write_file(disk.folder / "unflushed", b"unflushed" * 10_000, is_flushed=False)
    (disk.folder / "flushed").rename(disk.folder / "renamed")
    left = await disk.power_cut()
    assert {path.name: path.read_bytes() for path in left.iterdir()} == {"flushed": b"flushed" * 10_000}
    assert {path.name for path in disk.folder.iterdir()} == {"renamed", "unflushed"}, "the disk itself goes on"


async def test_a_power_cut_may_keep_what_the_disk_took_and_did_not_flush(disk: Disk) -> None:
    """Each block by itself: old, or new, and never a part of both."""
    path, blocks = disk.folder / "blocks", 16
    write_file(path, b"o" * BLOCK_BYTES * blocks, is_flushed=True)
    file = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, BLOCK_BYTES * blocks) as new:  # what is written past the page cache has to be aligned
        new.write(b"n" * BLOCK_BYTES * blocks)
        os.pwrite(file, new, 0)
    kept: list[int] = []
    for _ in range(20):
        left = await disk.power_cut()
        content = (left / "blocks").read_bytes()
        pieces = Counter(content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES))
        assert set(pieces) <= {b"o" * BLOCK_BYTES, b"n" * BLOCK_BYTES}
        assert pieces.total() == blocks
        kept.append(pieces[b"n" * BLOCK_BYTES])
        await disk.drop(left)
    assert {0, blocks} < set(kept), "none, all, and some of them"
    os.fsync(file)
    os.close(file)
    left = await disk.power_cut()
    assert (left / "blocks").read_bytes() == b"n" * BLOCK_BYTES * blocks


async def test_a_disk_goes_on_with_what_was_left_when_its_power_is_restored(disk: Disk) -> None:
    for number in range(1, 4):
        write_file(disk.folder / f"flushed-{number}", b"flushed", is_flushed=True)
        write_file(disk.folder / f"unflushed-{number}", b"unflushed", is_flushed=False)
        await disk.lose_power()
        with pytest.raises(OSError, match=r"Input/output error|Read-only"):
            write_file(disk.folder / "late", b"late", is_flushed=True)
        await disk.restore_power()
        kept = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
        assert kept == {f"flushed-{each}": b"flushed" for each in range(1, number + 1)}


def test_blocks_that_are_written_in_part_or_across_are_read_as_written() -> None:
    blocks, model, draw = Blocks(1 << 16), bytearray(1 << 16), Random(1)
    for _ in range(500):
        offset, size = draw.randrange(1 << 16), draw.randrange(3 * BLOCK_BYTES)
        content = draw.randbytes(min(size, (1 << 16) - offset))
        blocks.write(offset, content)
        model[offset : offset + len(content)] = content
        offset, size = draw.randrange(1 << 16), draw.randrange(3 * BLOCK_BYTES)
        assert blocks.read(offset, size) == model[offset : offset + size]


# --- databases ----------------------------------------------------------------------------------------


class _Writer:
    """Commits one row after the other, from a thread, and removes the oldest; `acknowledged` is the last one."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.acknowledged = 0
        self._path = path
        self._synchronous = synchronous
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "_Writer":
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE line (number INTEGER PRIMARY KEY, content BLOB)")
        _flush_all(self._path.parent)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        self._thread.join()

    def _run(self) -> None:
        draw = Random(1)
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute(f"PRAGMA synchronous={self._synchronous}")
            database.execute("PRAGMA wal_autocheckpoint=50")  # so that cuts hit checkpoints as well
            for number in range(1, 1_000_000):
                if self._is_ending.is_set():
                    return
                database.execute("BEGIN")
                database.execute("INSERT INTO line VALUES (?, ?)", (number, draw.randbytes(draw.randrange(9000))))
                database.execute("DELETE FROM line WHERE number <= ?", (number - LINES_MAX,))
                database.execute("COMMIT")
                self.acknowledged = number


def _flush_all(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


def _read(path: Path) -> tuple[str, int]:
    """Return what is wrong with a database, and the number of its last row."""
    try:
        with closing(sqlite3.connect(path)) as database:
            (said,), *_ = database.execute("PRAGMA integrity_check(1)").fetchall()
            numbers = [number for (number,) in database.execute("SELECT number FROM line ORDER BY number")]
    except sqlite3.DatabaseError as error:
        return str(error), 0
    last = numbers[-1] if numbers else 0
    due = [*range(max(last - LINES_MAX, 0) + 1, last + 1)]
    return "" if (said, numbers) == ("ok", due) else f"{said}: {numbers}", last


@pytest.mark.parametrize(("synchronous", "cuts"), [("FULL", CUTS), ("NORMAL", CUTS // 3), ("OFF", CUTS)])
async def test_power_cuts_take_from_a_database_what_its_setting_does_not_protect(
    disk: Disk, synchronous: str, cuts: int
) -> None:
    path, draw = disk.folder / "lines.db", Random(synchronous)
    lost, torn, last = 0, 0, 0
    with _Writer(path, synchronous) as writer:
        for _ in range(cuts):
            await asyncio.sleep(draw.random() * 0.05)
            acknowledged = writer.acknowledged
            left = await disk.power_cut()
            wrong, last = await asyncio.to_thread(_read, left / path.name)
            lost += last < acknowledged
            torn += bool(wrong)
            await disk.drop(left)
    print(f"{synchronous}: {writer.acknowledged} commits, {lost=}, {torn=} of {cuts}, {disk.lost_block_count=}")
    assert writer.acknowledged > cuts, "the load went on"
    match synchronous:
        case "FULL":
            assert (lost, torn) == (0, 0)
            assert last > 0
            assert disk.lost_block_count > 0, "the cuts took nothing that was under way"
        case "NORMAL":
            assert torn == 0
        case _:
            assert lost > cuts // 2


async def test_a_power_cut_is_quick(disk: Disk) -> None:
    write_file(disk.folder / "much", bytes(range(256)) * (32 << 12), is_flushed=True)
    took: list[float] = []
    for _ in range(5):
        began = time.monotonic()
        left = await disk.power_cut()
        took.append(time.monotonic() - began)
        await disk.drop(left)
    print(f"a power cut of a disk with 32 MiB on it: {', '.join(f'{seconds:.3f}' for seconds in took)} s")
    assert min(took) < 2  # 0.1 s on an idle machine
