"""The disk of the fault suite fills up, hangs and breaks as disks do, and leaves nothing behind."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from fault import disk as disk_module
from fault.disk import REWRITABLE, Disk, write_file
from fault.disk_device import BLOCK_BYTES, mounted_in

pytestmark = pytest.mark.skipif(bool(Disk.is_possible()), reason=Disk.is_possible())


@pytest_asyncio.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    """A disk to which nothing is written but what is flushed: the file system does not write by itself, in the test."""
    async with Disk(tmp_path / "disk", options=("commit=600",)) as opened:
        yield opened


# Long enough for a machine that has other things to do to read a file meanwhile.
STALL_SECONDS = 3.0


# --- no room, no answer, no disk ----------------------------------------------------------------------


async def test_a_full_disk_takes_nothing_until_it_has_room(disk: Disk) -> None:
    path = disk.folder / "file"
    await disk.fill()
    with pytest.raises(OSError, match="No space left") as full:
        write_file(path, b"x" * BLOCK_BYTES, is_flushed=True)
    assert full.value.errno == errno.ENOSPC
    await disk.free()
    write_file(path, b"x" * (64 << 20), is_flushed=True)
    await disk.free()
    assert path.stat().st_size == 64 << 20


async def test_a_stalled_disk_answers_nothing_and_then_goes_on(disk: Disk) -> None:
    path = disk.folder / "file"
    write_file(path, b"before", is_flushed=True)
    stall = asyncio.create_task(disk.stall(STALL_SECONDS))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    write = asyncio.create_task(asyncio.to_thread(write_file, path.with_name("other"), b"during", is_flushed=True))
    assert await asyncio.to_thread(path.read_bytes) == b"before"
    assert not stall.done(), "what is in memory can be read"
    await asyncio.sleep(0.3)
    assert not write.done()
    await asyncio.gather(stall, write)
    assert time.monotonic() - began > STALL_SECONDS - 0.5
    left = await disk.power_cut()
    assert (left / "other").read_bytes() == b"during"


async def test_a_slow_disk_takes_its_time_for_each_flush_and_is_quick_again(disk: Disk) -> None:
    slow = asyncio.create_task(disk.slow_down(60.0, 0.2))
    await asyncio.sleep(0.1)
    began = time.monotonic()
    for number in range(3):
        await asyncio.to_thread(write_file, disk.folder / str(number), b"slow", is_flushed=True)
    assert time.monotonic() - began >= 0.6
    slow.cancel()
    await asyncio.wait({slow})
    left = await disk.power_cut()
    assert [(left / str(number)).read_bytes() for number in range(3)] == [b"slow"] * 3
    await disk.drop(left)


async def test_a_stall_ends_when_whoever_waits_for_it_is_cancelled(disk: Disk) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await disk.stall(60)
    async with asyncio.timeout(30):  # half of what it would take if the stall went on
        await asyncio.to_thread(write_file, disk.folder / "file", b"after", is_flushed=True)


async def test_a_broken_disk_takes_nothing_and_keeps_what_it_took_when_it_is_repaired(disk: Disk) -> None:
    flushed, late = disk.folder / "flushed", disk.folder / "late"
    write_file(flushed, b"flushed", is_flushed=True)
    write_file(late, b"late" * BLOCK_BYTES, is_flushed=False)
    await disk.break_off()
    with pytest.raises(OSError, match="Read-only file system"):
        write_file(disk.folder / "file", b"x", is_flushed=True)
    assert flushed.read_bytes() == b"flushed"
    await disk.repair()
    assert [path.name for path in disk.folder.iterdir()] == ["flushed"]
    assert flushed.read_bytes() == b"flushed"
    write_file(late, b"late", is_flushed=True)
    left = await disk.power_cut()
    assert (left / "late").read_bytes() == b"late"


@pytest.mark.parametrize("is_new", [False, True])
async def test_a_failed_write_is_told_once_and_forgotten(tmp_path: Path, *, is_new: bool) -> None:
    async with Disk(tmp_path / "disk", options=(REWRITABLE,)) as disk:
        path = disk.folder / "file"
        write_file(path, b"" if is_new else b"old" * BLOCK_BYTES, is_flushed=True)
        failure = asyncio.create_task(disk.fail_for(0.5))
        await asyncio.sleep(0.1)
        with path.open("r+b", buffering=0) as file:
            file.write(b"new" * BLOCK_BYTES)
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(file)
            await failure
            os.fsync(file)
            assert path.read_bytes() == b"new" * BLOCK_BYTES
            left = await disk.power_cut()
            assert (left / "file").read_bytes().strip(b"\0") == (b"" if is_new else b"old" * BLOCK_BYTES)
            file.seek(0)
            file.write(b"now" * BLOCK_BYTES)
            os.fsync(file)
        left = await disk.power_cut()
        assert (left / "file").read_bytes() == b"now" * BLOCK_BYTES


# --- where it is possible, and what it leaves ---------------------------------------------------------


def test_it_says_why_it_is_not_possible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(disk_module, "TOOL_PATH", str(tmp_path))
        assert Disk.is_possible() == "not here: mount, umount, mkfs.ext4, e2fsck, debugfs"
    os.seteuid(65534)
    try:
        assert Disk.is_possible() == "only root may mount a file system"
    finally:
        os.seteuid(0)


@contextmanager
def _neighbour(folder: Path) -> Generator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _loops(home: Path) -> list[str]:
    """Return the files in a folder that loop devices are made of."""
    said = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True, check=True
    )
    return [line for line in said.stdout.decode().splitlines() if line.strip().startswith(f"{home}/")]


async def test_it_leaves_nothing_behind_whatever_happens_and_touches_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "disk"
    with _neighbour(tmp_path / "disk-of-another"):
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what is in the block is what has to be left
            async with Disk(home) as disk:
                await disk.power_cut()
                await disk.break_off()
                assert len(mounted_in(home)) == len(_loops(home)) + 1 == 3
                raise ZeroDivisionError
        assert mounted_in(tmp_path) == [str(tmp_path / "disk-of-another")]
    assert _loops(home) == []
    assert not home.exists()


async def test_what_is_still_open_keeps_nothing_from_being_removed(tmp_path: Path) -> None:
    home = tmp_path / "disk"
    async with Disk(home) as disk:
        write_file(disk.folder / "file", b"content", is_flushed=True)
        reader = (disk.folder / "file").open("rb")
    with reader:
        assert mounted_in(home) == []
        assert not home.exists()
    assert _loops(home) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_is_unmounted_when_the_test_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "disk"
    program = f"""
        import asyncio, pathlib
        from fault.disk import Disk
        async def hold():
            async with Disk(pathlib.Path({str(home)!r})) as disk:
                await disk.power_cut()
                print("there", flush=True)
                await disk.stall(60)
        asyncio.run(hold())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"there\n"
        assert len(mounted_in(home)) == 3
        holder.send_signal(number)
    deadline = time.monotonic() + 60
    while mounted_in(home) or _loops(home):
        assert time.monotonic() < deadline, (mounted_in(home), _loops(home))
        time.sleep(0.05)


async def test_a_device_that_says_nothing_is_not_waited_for_for_ever(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hurried:
        hurried.setattr(disk_module, "ANSWER_SECONDS", 0.2)
        with pytest.raises(TimeoutError, match="the disk has said nothing"):
            disk._hear()  # pyright: ignore[reportPrivateUsage] - nothing was asked, so nothing comes
