"""The launcher starts the real server, with a wall clock that can jump while it runs."""

import asyncio
import time
import uuid
from pathlib import Path

from fault.host import launched_server
from fault.launcher import write_shift
from support.rpc import connect
from turnwire.v1.session_service_pb2 import CreateSessionRequest

DAY_SECONDS = 86_400


async def test_the_wall_clock_of_a_server_jumps(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    server = launched_server("memory", clock, "", "--drain-grace-seconds", "0")
    await asyncio.to_thread(server.start)
    try:
        async with connect(server.address) as stubs:
            for shift in (0, DAY_SECONDS, -DAY_SECONDS):
                write_shift(clock, shift)
                session = (await stubs.session.CreateSession(CreateSessionRequest())).session
                minted = uuid.UUID(session.session_id).int >> 80  # milliseconds: the identities tell the time as well
                for seconds in (session.create_time.ToMicroseconds() / 1e6, minted / 1e3):
                    assert abs(seconds - time.time() - shift) < DAY_SECONDS / 2
    finally:
        assert await asyncio.to_thread(server.stop) == 0
