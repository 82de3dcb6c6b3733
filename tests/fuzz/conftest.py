"""Fixtures of the fuzz tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.stage import FOLDER


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A folder for a server's files."""
    with tempfile.TemporaryDirectory(prefix="turnwire-fuzz-", dir=FOLDER) as folder:
        yield Path(folder)
