"""A disk in user space, as a process: one file `disk.img` in a FUSE file system, to be mounted by loop.

`python disk_device.py FOLDER MEBIBYTES`. It knows what a disk knows and nobody above it: which blocks were written
since the last flush. They are what a power cut takes. Commands come as lines of JSON on its standard input, and each is
answered by a line. When its input ends, also because whoever started it was killed, it unmounts all that is mounted in
FOLDER.
"""

import contextlib
import ctypes
import errno
import json
import os
import re
import select
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from math import inf
from pathlib import Path
from random import Random
from typing import Any

# What a disk writes as a whole or not at all.
BLOCK_BYTES = 4096
ZEROS = bytes(BLOCK_BYTES)

# The name of the only file, in the folder `device` of FOLDER.
IMAGE = "disk.img"
MOUNT_POINT = "device"

# How long unmounting may take, and how long whoever has a file open then may go on; after that they get errors.
CLOSE_SECONDS = 10.0
BUSY_SECONDS = 1.0

# How often, at the very end, it is looked whether a mount that a killed test had begun has come through after all.
LAST_LOOKS = 3
LOOK_SECONDS = 0.05

ROOT_NODE, IMAGE_NODE = 1, 2
REQUEST_BYTES_MAX = 128 * 1024
ENTRY_SECONDS = 3600

# include/uapi/linux/fuse.h, version 7.31. Native byte order, and no padding but what is named.
VERSION = (7, 31)
ASYNC_READ, BIG_WRITES, ASYNC_DIRECT_IO = 1 << 0, 1 << 5, 1 << 15
OPEN_DIRECT_IO = 1 << 0
REQUEST = struct.Struct("=IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, extensions, padding
REPLY = struct.Struct("=IiQ")  # length, minus errno, unique
TRANSFER = struct.Struct("=QQIIQII")  # handle, offset, size, flags, owner, flags, padding


class Opcode(IntEnum):
    """The requests that a disk gets; all others are answered with ENOSYS, which the kernel remembers."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    BATCH_FORGET = 42


# Requests that have no reply.
UNANSWERED = {Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET}

# From the number of a file and what a request has after its header, to what the reply has there.
Operation = Callable[[int, bytes], bytes]


class Blocks:
    """The content of the disk. It remembers, for each block written since the last flush, what it was before."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._blocks: dict[int, bytes] = {}
        self._before: dict[int, bytes] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Return what is at a place."""
        first, last = offset // BLOCK_BYTES, (min(offset + size, self.size) - 1) // BLOCK_BYTES
        content = b"".join(self._blocks.get(number, ZEROS) for number in range(first, last + 1))
        skipped = offset - first * BLOCK_BYTES
        return content[skipped : skipped + size]

    def write(self, offset: int, content: bytes) -> None:
        """Write at a place, without flushing."""
        position = 0
        while position < len(content):
            number, skipped = divmod(offset + position, BLOCK_BYTES)
            piece = content[position : position + BLOCK_BYTES - skipped]
            old = self._blocks.get(number, ZEROS)
            self._before.setdefault(number, old)
            self._blocks[number] = old[:skipped] + piece + old[skipped + len(piece) :]
            position += len(piece)

    def flush(self) -> None:
        """Whatever was written stays."""
        self._before.clear()

    def cut(self, path: Path, share: float, draw: Random) -> int:
        """Write to a file what a power cut leaves, with a share of what was not flushed; return how much was lost."""
        lost = self._draw_lost(share, draw)
        with path.open("xb", buffering=1 << 20) as file:
            for number, block in sorted((self._blocks | lost).items()):
                if block != ZEROS:
                    file.seek(number * BLOCK_BYTES)
                    file.write(block)
            file.truncate(self.size)
        return len(lost)

    def lose(self, share: float, draw: Random) -> int:
        """Become what a power cut leaves; return how much was lost."""
        lost = self._draw_lost(share, draw)
        self._blocks |= lost
        self._before.clear()
        return len(lost)

    def _draw_lost(self, share: float, draw: Random) -> dict[int, bytes]:
        return {number: old for number, old in self._before.items() if draw.random() >= share}


class Device:
    """Serves the file system of one file, one request at a time."""

    def __init__(self, fuse: int, blocks: Blocks) -> None:
        self._fuse = fuse
        self._blocks = blocks
        self._broken_from: float = inf  # the first block that takes no writes; if it is 0, flushes fail as well
        self._silent_until = 0.0
        self._flush_seconds = 0.0
        self._operations: dict[int, Operation] = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._stat,
            Opcode.SETATTR: self._stat,
            Opcode.OPEN: _constant(struct.pack("=QIi", 0, OPEN_DIRECT_IO, 0)),
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.STATFS: _constant(struct.pack("=5Q10I", 1, 0, 0, 2, 0, BLOCK_BYTES, 255, BLOCK_BYTES, *[0] * 7)),
            Opcode.RELEASE: _constant(b""),
            Opcode.FSYNC: self._flush,
            Opcode.FLUSH: _constant(b""),  # it means close(), which makes nothing durable
        }

    def serve(self) -> None:
        """Serve until the file system is unmounted."""
        is_input_open = True
        while True:
            silence = self._silent_until - time.monotonic()
            watched = [self._fuse] * (silence <= 0) + [sys.stdin.fileno()] * is_input_open
            ready, _, _ = select.select(watched, [], [], silence if silence > 0 else None)
            if sys.stdin.fileno() in ready and not (is_input_open := self._command()):
                self._silent_until = 0.0
                threading.Thread(target=_close, daemon=True).start()
            if self._fuse in ready and not self._request():
                return

    def _command(self) -> bool:
        """Carry out a command; return whether there was one."""
        line = sys.stdin.buffer.readline()  # a line is written at once
        if not line:
            return False
        command: dict[str, Any] = json.loads(line)
        answer = {}
        match command["do"]:
            case "cut":
                answer["lost"] = self._blocks.cut(Path(command["path"]), command["share"], Random(command["seed"]))
            case "lose":
                answer["lost"] = self._blocks.lose(command["share"], Random(command["seed"]))
                self._broken_from = 0
            case "stall":
                self._silent_until = time.monotonic() + command["seconds"]
            case "slow":
                self._flush_seconds = command["seconds"]
            case "break":
                self._broken_from = command["block"]
            case "mend":
                self._broken_from = inf
            case unknown:
                raise ValueError(unknown)
        with contextlib.suppress(BrokenPipeError):  # whoever asked is gone, which the end of the input tells
            os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
        return True

    def _request(self) -> bool:
        """Answer a request; return whether there may be more."""
        try:
            request = os.read(self._fuse, REQUEST_BYTES_MAX + BLOCK_BYTES)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # it was taken back
                return True
            if error.errno == errno.ENODEV:
                return False
            raise
        _, opcode, unique, node, *_ = REQUEST.unpack_from(request)
        if opcode in UNANSWERED:
            return True
        number, content = 0, b""
        try:
            content = self._operations[opcode](node, request[REQUEST.size :])
        except KeyError:
            number = errno.ENOSYS
        except OSError as error:
            number = error.errno or errno.EIO
        os.write(self._fuse, REPLY.pack(REPLY.size + len(content), -number, unique) + content)
        return True

    def _init(self, _: int, __: bytes) -> bytes:
        flags = ASYNC_READ | BIG_WRITES | ASYNC_DIRECT_IO
        # version, read ahead, flags, in the background, congestion at, write at most, granularity of times, the rest
        return struct.pack("=IIIIHHII36x", *VERSION, REQUEST_BYTES_MAX, flags, 16, 12, REQUEST_BYTES_MAX, 1)

    def _lookup(self, _: int, name: bytes) -> bytes:
        if name.rstrip(b"\0") != IMAGE.encode():
            raise OSError(errno.ENOENT, "no such file")
        return struct.pack("=QQQQII", IMAGE_NODE, 0, ENTRY_SECONDS, ENTRY_SECONDS, 0, 0) + self._attributes(IMAGE_NODE)

    def _stat(self, node: int, _: bytes) -> bytes:
        return struct.pack("=QII", ENTRY_SECONDS, 0, 0) + self._attributes(node)

    def _attributes(self, node: int) -> bytes:
        is_image = node == IMAGE_NODE
        mode = stat.S_IFREG | 0o600 if is_image else stat.S_IFDIR | 0o700
        size = self._blocks.size if is_image else 0
        # inode, size, sectors, times, mode, links, owner and group, device, size of blocks, flags
        return struct.pack("=6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, BLOCK_BYTES, 0)

    def _read(self, _: int, request: bytes) -> bytes:
        offset, size = TRANSFER.unpack_from(request)[1:3]
        return self._blocks.read(offset, size)

    def _write(self, _: int, request: bytes) -> bytes:
        offset, size = TRANSFER.unpack_from(request)[1:3]
        if (offset + size - 1) // BLOCK_BYTES >= self._broken_from:
            raise OSError(errno.EIO, "broken")
        self._blocks.write(offset, request[TRANSFER.size : TRANSFER.size + size])
        return struct.pack("=II", size, 0)

    def _flush(self, _: int, __: bytes) -> bytes:
        if not self._broken_from:
            raise OSError(errno.EIO, "broken")
        time.sleep(self._flush_seconds)
        self._blocks.flush()
        return b""


def _constant(reply: bytes) -> Operation:
    def answer(_: int, __: bytes) -> bytes:
        return reply

    return answer


def _mount(folder: Path) -> int:
    """Mount the file system; return what it is served by."""
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"turnwire-disk", os.fsencode(folder), b"fuse", 0, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    return fuse


def _close() -> None:
    """Unmount all that is mounted in the folder, while the disk is still served, but not for ever."""
    _end_after(CLOSE_SECONDS)
    if not _unmount(is_patient=True):
        _end_after(BUSY_SECONDS)


def _unmount(*, is_patient: bool) -> bool:
    """Unmount all that is mounted in the folder; return whether nobody used any of it. What is used is only hidden."""
    is_idle = True
    for point in reversed(mounted_in(Path(sys.argv[1]))):
        if not is_patient or subprocess.run(["umount", point], stderr=subprocess.DEVNULL, check=False).returncode:
            is_idle = False
            subprocess.run(["umount", "--lazy", point], check=False)
    return is_idle


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    """End at once: whatever still uses the disk gets errors."""
    _unmount(is_patient=False)
    os._exit(1)


def mounted_in(folder: Path) -> list[str]:
    """Return what is mounted in a folder, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    points = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines]
    return [point for point in points if folder in Path(point).parents]


def main() -> None:
    """Serve a disk until its input ends."""
    fuse = _mount(Path(sys.argv[1]) / MOUNT_POINT)
    try:
        device = Device(fuse, Blocks(int(sys.argv[2]) << 20))
        print(json.dumps({}), flush=True)
        device.serve()
    finally:
        os.close(fuse)  # what still waits for the disk gets errors, so that it can be unmounted
        _end_after(CLOSE_SECONDS)
        for _ in range(LAST_LOOKS):
            _unmount(is_patient=True)
            time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
