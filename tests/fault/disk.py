"""A disk of its own for a store: one that fills up, hangs, breaks, and loses its power.

An ext4 file system on a loop device, on a disk that a process in user space serves (fault.disk_device). That process
knows what was flushed and what was not, so that a power cut takes what a power cut takes: nothing of what fsync
promised, and any part of the rest. A copy of the files would be torn by the copying, and have what the page cache has.
"""

import asyncio
import errno
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

from fault.disk_device import BLOCK_BYTES, CLOSE_SECONDS, IMAGE, MOUNT_POINT

TOOLS = ("mount", "umount", "mkfs.ext4", "e2fsck", "debugfs")

# How long a tool may take, and the device for an answer, on a machine that has other things to do.
TOOL_SECONDS = 60.0
ANSWER_SECONDS = 60.0

# Where they are, also for those whose PATH is a user's.
TOOL_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

# The number of CAP_SYS_ADMIN, which mounting takes, in linux/capability.h.
SYS_ADMIN = 21

MAKE = ("-q", "-F", "-b", str(BLOCK_BYTES), "-m", "0", "-N", "512", "-E", "nodiscard,lazy_itable_init=0")
MOUNT = ("-t", "ext4", "-o")
OPTIONS = "loop,noatime,errors=remount-ro"

# An option with which ext4 keeps what is written to a block to which the first write failed.
REWRITABLE = "dioread_lock"

# What e2fsck answers if the file system is in order, or was put in order.
REPAIRED = (0, 1)


class Disk:
    """A disk with a file system, from `async with` on; `folder` is where the store is put.

    `home` must not exist: everything in it is the disk's. At the end it is unmounted and removed; when the test is
    killed, it is unmounted. `seed` decides what power cuts leave of what was not flushed, and `lost_block_count` counts
    what they took; `options` are further ones of mount.

    All methods may be called at any time and from any task, unless they say otherwise. Raises OSError where the machine
    does not play along.
    """

    def __init__(self, home: Path, *, mebibytes: int = 128, seed: int = 0, options: Sequence[str] = ()) -> None:
        self._home = home.absolute()
        self._mebibytes = mebibytes
        self._random = Random(seed)
        self._mounting = (*MOUNT, ",".join((OPTIONS, *options)))
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._device: subprocess.Popen[str] | None = None
        self._content_block = 0
        self.lost_block_count = 0

    @staticmethod
    def is_possible() -> str:
        """Return why there can be no such disk on this machine; empty, if there can."""
        if os.geteuid() != 0:
            return "only root may mount a file system"
        status = Path("/proc/self/status")
        rights = (
            dict(line.split(":\t", 1) for line in status.read_text("utf-8").splitlines()) if status.exists() else {}
        )
        if not int(rights.get("CapEff", "0"), 16) >> SYS_ADMIN & 1:
            return "mounting a file system is not allowed here"
        missing = [path for path in ("/dev/fuse", "/dev/loop-control") if not os.access(path, os.R_OK | os.W_OK)]
        missing += [tool for tool in TOOLS if not shutil.which(tool, path=TOOL_PATH)]
        return f"not here: {', '.join(missing)}" if missing else ""

    @property
    def folder(self) -> Path:
        """The folder of the store, on the disk."""
        return self._root / "store"

    @property
    def _root(self) -> Path:
        return self._home / "root"

    @property
    def _image(self) -> Path:
        return self._home / MOUNT_POINT / IMAGE

    async def __aenter__(self) -> "Disk":
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    def _open(self) -> None:
        self._home.mkdir(parents=True)
        for folder in (self._image.parent, self._root):
            folder.mkdir()
        program = Path(__file__).with_name("disk_device.py")
        # In a session of its own: Ctrl-C is for the test, whose end is then the end of the disk.
        self._device = subprocess.Popen(
            [sys.executable, "-I", str(program), str(self._home), str(self._mebibytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._hear()
            _run("mkfs.ext4", *MAKE, str(self._image))
            # The file system has one group of blocks: what describes it, its journal, and then the content of files.
            self._content_block = int(_run("debugfs", "-R", "blocks <8>", str(self._image)).split()[-1]) + 1
            _run("mount", *self._mounting, str(self._image), str(self._root))
            self.folder.mkdir()
            _flush(self._root)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        """Have the device unmount everything; whatever still uses the disk gets errors."""
        device, self._device = self._device, None
        if not device or not device.stdin or not device.stdout:
            return
        device.stdin.close()
        try:
            device.wait(CLOSE_SECONDS * 2)
        except subprocess.TimeoutExpired:
            device.kill()
            device.wait()
        device.stdout.close()
        shutil.rmtree(self._home)

    def _tell(self, what: str, **details: Any) -> dict[str, Any]:
        """Have the device do something; return what it answers."""
        with self._lock:
            assert self._device, "the disk is not open"
            assert self._device.stdin
            self._device.stdin.write(json.dumps({"do": what, **details}) + "\n")
            self._device.stdin.flush()
            return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._device
        assert self._device.stdout
        # One answer to one question, in one line: nothing is left in a buffer that select would not see.
        if not select.select([self._device.stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"the disk has said nothing for {ANSWER_SECONDS:.0f} s")
        line = self._device.stdout.readline()
        if not line:
            msg = f"the disk is gone, with exit code {self._device.wait()}"
            raise OSError(errno.ENODEV, msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    # --- no room --------------------------------------------------------------------------------------

    @property
    def _filler(self) -> Path:
        return self._root / "filler"

    async def fill(self) -> None:
        """Leave no block free. What is allocated already may still be written."""
        await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        with _opened(self._filler, os.O_WRONLY | os.O_CREAT) as file:
            size, end = self._mebibytes << 20, 0
            while size >= BLOCK_BYTES:
                try:
                    os.posix_fallocate(file, end, size)
                    end += size
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    end = max(end, os.fstat(file).st_size)  # a part of it may have been allocated
                    size //= 2
            os.fsync(file)

    async def free(self) -> None:
        """Give room again; without effect if there is."""
        await asyncio.to_thread(self._free)

    def _free(self) -> None:
        self._filler.unlink(missing_ok=True)
        _flush(self._root)  # blocks can be used again once it is in the journal that they are free

    # --- no answer ------------------------------------------------------------------------------------

    async def stall(self, seconds: float) -> None:
        """Answer nothing for so long, and return then: whoever waits for the disk is served as if nothing had been.

        What is in memory can be read meanwhile. Ends at once if it is cancelled.
        """
        try:
            await asyncio.to_thread(self._tell, "stall", seconds=seconds)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.shield(asyncio.to_thread(self._tell, "stall", seconds=0))

    async def slow_down(self, seconds: float, flush_seconds: float) -> None:
        """Take so long for every flush, for so many seconds, and return then; all else waits for it meanwhile."""
        try:
            await asyncio.to_thread(self._tell, "slow", seconds=flush_seconds)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.shield(asyncio.to_thread(self._tell, "slow", seconds=0))

    # --- no disk --------------------------------------------------------------------------------------

    async def break_off(self) -> None:
        """Fail every write and every flush from now on. The file system notices and becomes read-only."""
        await asyncio.to_thread(self._break_off)

    def _break_off(self) -> None:
        self._tell("break", block=0)
        try:
            with _opened(self._root / "broken", os.O_WRONLY | os.O_CREAT) as file:
                os.fsync(file)
        except OSError as error:
            if error.errno not in {errno.EIO, errno.EROFS}:
                raise

    async def fail_for(self, seconds: float) -> None:
        """Fail every write of a file's content for so long, and return then.

        The file system goes on. It tells of each failure once, by the next fsync, and forgets what it could not write:
        an fsync that succeeds afterwards says nothing about that.

        Unless REWRITABLE is among the options, ext4 (of Linux 6.18) forgets even more. Where the first write to a block
        failed, a later one to the same place succeeds, and so does fsync, but the block still counts as never written:
        it is empty after a power cut. No database that writes its log again in the same place can stand that.
        """
        try:
            await asyncio.to_thread(self._tell, "break", block=self._content_block)
            await asyncio.sleep(seconds)
        finally:
            await asyncio.shield(asyncio.to_thread(self._tell, "mend"))

    async def repair(self) -> None:
        """Make the broken disk work again, and its file system too. Nobody may have a file open on it."""
        await asyncio.to_thread(self._repair)

    def _repair(self) -> None:
        _run("umount", str(self._root))  # while it takes nothing: what is in memory is lost
        self._tell("mend")
        _run("e2fsck", "-f", "-y", str(self._image), due=REPAIRED)
        _run("mount", *self._mounting, str(self._image), str(self._root))

    # --- no power -------------------------------------------------------------------------------------

    async def power_cut(self) -> Path:
        """Return the folder of the store as a cut of the power at one instant of this call would have left it.

        What was flushed is there. Of the blocks that the disk took and was not told to flush some are there, and some
        are as they were before; which ones, the seed decides. The file system has replayed its journal. The disk itself
        goes on as if nothing had been.
        """
        return await asyncio.to_thread(self._power_cut)

    def _power_cut(self) -> Path:
        number = next(self._numbers)
        image, root = self._home / f"cut-{number}.img", self._home / f"cut-{number}"
        root.mkdir()
        self._lose("cut", path=str(image))
        _run("mount", *self._mounting, str(image), str(root))
        return root / self.folder.name

    def _lose(self, how: str, **details: Any) -> None:
        share = self._random.choice((0.0, self._random.random(), 1.0))
        self.lost_block_count += self._tell(how, share=share, seed=self._random.random(), **details)["lost"]

    async def drop(self, folder: Path) -> None:
        """Remove what a power cut left. Nobody may have a file open there."""
        await asyncio.to_thread(self._drop, folder.parent)

    def _drop(self, root: Path) -> None:
        _run("umount", str(root))
        root.rmdir()
        root.with_suffix(".img").unlink()

    async def lose_power(self) -> None:
        """Cut the power of the disk itself: what a power cut takes is lost, and nothing is taken from this instant on.

        Whoever uses it gets errors, and has to end before the power is restored.
        """
        await asyncio.to_thread(self._lose, "lose")

    async def restore_power(self) -> None:
        """Let the disk go on with what was left. Nobody may have a file open on it."""
        await asyncio.to_thread(self._restore_power)

    def _restore_power(self) -> None:
        _run("umount", str(self._root))  # while it takes nothing: what is in memory is lost as well
        self._tell("mend")
        _run("mount", *self._mounting, str(self._image), str(self._root))


def write_file(path: Path, content: bytes, *, is_flushed: bool) -> None:
    """Write a file, and flush it if that is asked for: then it is there after a power cut."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if is_flushed:
            os.fsync(file)


def _run(tool: str, *arguments: str, due: Collection[int] = (0,)) -> str:
    found = shutil.which(tool, path=TOOL_PATH) or tool
    try:
        done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False, timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(errno.ETIMEDOUT, str(error)) from None
    if done.returncode not in due:
        msg = f"{tool} {' '.join(arguments)} failed with {done.returncode}: {done.stdout}{done.stderr}"
        raise OSError(errno.EIO, msg)
    return done.stdout


@contextmanager
def _opened(path: Path, flags: int) -> Generator[int]:
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _flush(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY) as file:
        os.fsync(file)
