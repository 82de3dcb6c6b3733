"""The host of the servers bears a server that has ended by itself: that it has is what the checks are to say."""

import asyncio
import signal
from pathlib import Path

import pytest

from fault.history import History
from fault.host import Host
from fault.link import Link
from fault.schedule import draw_round
from fault.stage import Stage


async def test_a_server_that_ended_by_itself_is_reported_as_such(tmp_path: Path) -> None:
    with History(tmp_path / "history.jsonl") as history:
        stage = Stage(2, Link(history))
        host = Host(tmp_path / "turnwire.db", stage, "", None)
        stage.weigh()  # there is none yet
        try:
            life = await host.open(draw_round(2, 1))
            assert host.server
            stage.weigh()
            assert host.peak_kib > 0
            host.server.signal(signal.SIGSEGV)
            await asyncio.sleep(0.5)
            stage.weigh()
            with pytest.raises(AssertionError, match=r"^Available: a server ended with -11"):
                await host.end(life, None)
        finally:
            await host.aclose()
