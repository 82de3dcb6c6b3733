"""File systems of their own, for tests that need one to be full or read-only. Only root may mount."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.partition("\n")[0])


@contextmanager
def mounted_tmpfs(folder: Path, kib: int) -> Generator[Path]:
    """Mount a small file system in memory; skip the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    """Make a mounted file system read-only (`ro`), which takes that no file is open for writing, or not (`rw`)."""
    _mount("-o", f"remount,{how}", str(folder))
