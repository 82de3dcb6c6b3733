"""Every store passes the one suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.store_harness import Harness, open_memory, open_sqlite
from contract.store_suite import StoreSuite


class TestMemory(StoreSuite):
    """MemorySessionStore."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[Harness]:
        harness = await Harness().open(open_memory)
        yield harness
        await harness.end()


class TestSqlite(StoreSuite):
    """SqliteSessionStore."""

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[Harness]:
        harness = await Harness().open(open_sqlite(tmp_path / "turnwire.db"))
        yield harness
        await harness.end()
