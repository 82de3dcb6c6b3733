"""Real servers on a disk that loses its power, is full, hangs or breaks: what they told stays true, and they go on."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import grpc
import pytest
import pytest_asyncio

from fault.disk import REWRITABLE, Disk
from fault.disk_load import Load, SessionSeen, check_beginning, check_nothing_lost, read_log
from support.rpc import Stubs, connect, refusal, script
from support.server import server_on
from turnwire.v1 import inference_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb

pytestmark = pytest.mark.skipif(bool(Disk.is_possible()), reason=Disk.is_possible())

FILE = "turnwire.db"

# Servers end soon; what is not over by then is left as it is.
HASTY = ("--drain-grace-seconds", "1")

# How often the power of one disk is cut while a server starts, and as often while it works; how long a start takes.
POWER_CUTS = 2
START_SECONDS = 1.2

# How many servers are started at a time on what power cuts left.
RESTARTS_MAX = 2

# How many inferences that end show that a server works, and how many refusals that its store does not.
ENDS = 4

# Within that an inference ends that was cancelled: 2 s, and what a busy machine takes.
CANCEL_SECONDS = 4.0


# How long the disk hangs: longer than an owner may be silent before others take it for dead.
STALL_SECONDS = 5.0


@pytest_asyncio.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    """A disk for the store."""
    async with Disk(tmp_path / "disk") as opened:
        yield opened


@asynccontextmanager
async def _restarted(servers: ExitStack, path: Path, *arguments: str) -> AsyncGenerator[Stubs]:
    """A server beside others, which `servers` ends if the test does not get to its end."""
    server = server_on(path, *arguments)
    server.launch()
    servers.push(server)
    await asyncio.to_thread(server.wait_until_listening)
    async with connect(server.address) as stubs:
        yield stubs
    assert await asyncio.to_thread(server.stop) == 0


# --- power cuts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("synchronous", "cuts"), [("full", 3), ("normal", 2)])
async def test_a_power_cut_takes_nothing_that_was_told(
    disk: Disk, servers: ExitStack, synchronous: str, cuts: int
) -> None:
    """Unless the server was told that it may; then what is left is how it began, and nothing else."""
    draw, setting = Random(synchronous), (*HASTY, "--synchronous", synchronous)
    server = servers.enter_context(server_on(disk.folder / FILE, *setting))
    instants: list[tuple[list[SessionSeen], Path]] = []
    async with connect(server.address) as stubs:
        async with Load(stubs) as load:
            for _ in range(cuts):
                await asyncio.sleep(draw.random())
                seen = load.seen()
                instants.append((seen, await disk.power_cut()))
        logs = {seen.watch.session_id: await read_log(stubs, seen.watch.session_id) for seen in load.seen()}
        ended, room = time.time(), asyncio.Semaphore(RESTARTS_MAX)

        async def look(seen: list[SessionSeen], left: Path) -> bool:
            async with room, _restarted(servers, left / FILE, *setting) as after:
                await check_beginning(after, logs, ended)
                try:
                    await check_nothing_lost(after, seen)
                except (AssertionError, grpc.aio.AioRpcError):
                    if synchronous == "full":
                        raise
                    return True
            await disk.drop(left)
            return False

        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(look(*instant)) for instant in instants]
        losses = sum(each.result() for each in looks)
        await check_nothing_lost(stubs, load.seen())
    assert sum(len(seen.watch.events) for seen in instants[-1][0]) > 100
    assert (losses > 0) == (synchronous == "normal"), "else these checks, or these cuts, are for nothing"


async def test_power_cuts_one_after_the_other_take_nothing_that_was_told(disk: Disk, servers: ExitStack) -> None:
    """Every second one hits a server that starts, or recovers what the one before has left."""
    draw, path, seen = Random(1), disk.folder / FILE, list[SessionSeen]()
    for seed in range(POWER_CUTS):
        early = server_on(path)
        early.launch()
        servers.push(early)
        await asyncio.sleep(draw.random() * START_SECONDS)
        await disk.lose_power()
        await asyncio.to_thread(early.kill)
        await disk.restore_power()
        server = servers.enter_context(server_on(path, *HASTY))
        async with connect(server.address) as stubs, Load(stubs, seed=seed) as load:
            await check_nothing_lost(stubs, seen)
            await asyncio.sleep(draw.random())
            await disk.lose_power()
            await asyncio.sleep(draw.random())  # what is told now has to be there as well
            seen += load.seen()
        await asyncio.to_thread(server.kill)
        await disk.restore_power()
    async with _restarted(servers, path, *HASTY) as stubs:
        await check_nothing_lost(stubs, seen)
    assert sum(len(each.ends) for each in seen) > POWER_CUTS


# --- a disk that takes nothing ------------------------------------------------------------------------


async def test_a_full_disk_loses_nothing_and_all_goes_on_when_it_has_room(disk: Disk, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(disk.folder / FILE, *HASTY))
    async with connect(server.address) as stubs:
        async with Load(stubs) as load:
            await load.wait_for("ends", ENDS)
            await disk.fill()
            await load.wait_for("refused", ENDS)
            await _check_reads(stubs, load)
            await disk.free()
            await load.wait_for("ends", ENDS)
        assert not load.counts["unanswered"]
        await check_nothing_lost(stubs, load.seen())
    assert server.stop() == 0
    async with _restarted(servers, disk.folder / FILE) as stubs:
        await check_nothing_lost(stubs, load.seen())


async def test_a_disk_that_breaks_is_told_and_has_kept_what_was_told_when_it_is_repaired(
    disk: Disk, servers: ExitStack
) -> None:
    server = servers.enter_context(server_on(disk.folder / FILE, *HASTY))
    async with connect(server.address) as stubs, Load(stubs) as load:
        await load.wait_for("ends", ENDS)
        await disk.break_off()
        await load.wait_for("refused", ENDS)
        await _check_reads(stubs, load)
        said = await _refused(stubs)
        assert str(disk.folder) not in said
        assert "see whether the disk is mounted and takes writes" in said
    assert server.stop() == 0
    await disk.repair()
    async with _restarted(servers, disk.folder / FILE) as stubs:
        await check_nothing_lost(stubs, load.seen())


async def test_what_is_told_after_failed_writes_was_written(tmp_path: Path, servers: ExitStack) -> None:
    """A write that failed is written again, before anyone hears of it: an fsync that succeeds says nothing about it."""
    async with Disk(tmp_path / "disk", options=(REWRITABLE,)) as disk:
        server = servers.enter_context(server_on(disk.folder / FILE, *HASTY))
        async with connect(server.address) as stubs:
            async with Load(stubs) as load:
                for _ in range(2):
                    await load.wait_for("ends", ENDS)
                    await disk.fail_for(0.7)
                await load.wait_for("ends", ENDS)
                seen = load.seen()
                left = await disk.power_cut()
            await check_nothing_lost(stubs, load.seen())
        assert "the store takes no writes" in "".join(server.log), "no write failed"
        assert await asyncio.to_thread(server.stop) == 0
        async with _restarted(servers, left / FILE, *HASTY) as stubs:
            await check_nothing_lost(stubs, seen)


async def _check_reads(stubs: Stubs, load: Load) -> None:
    """What was written can be read, while nothing can be written."""
    for seen in load.seen():
        request = session_service_pb2.GetSessionRequest(session_id=seen.watch.session_id)
        read = (await stubs.session.GetSession(request)).session
        assert read.head_sequence >= seen.watch.position


async def _refused(stubs: Stubs) -> str:
    """Return what a client is told that wants to write."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stubs.create_session()
    assert refusal(error.value) == ("UNAVAILABLE", "STORE_UNAVAILABLE", {})
    return error.value.details() or ""


# --- a disk that hangs --------------------------------------------------------------------------------


async def test_nobody_is_taken_for_dead_while_the_disk_hangs(disk: Disk, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(disk.folder / FILE, *HASTY))
    async with connect(server.address) as stubs:
        running = await stubs.start(await stubs.create_session(), script=script({"hang": {}}))
        async with Load(stubs, rpc_seconds=2.0) as load:
            await load.wait_for("ends", ENDS)
            stall = asyncio.create_task(disk.stall(STALL_SECONDS))
            await asyncio.sleep(0.5)
            await _check_reads(stubs, load)
            cancelling = asyncio.create_task(_cancel(stubs, running.inference_id))
            await asyncio.sleep(0.5)
            assert not cancelling.done()
            await stall
            thawed = time.monotonic()
            assert await cancelling - thawed < CANCEL_SECONDS
            await load.wait_for("ends", ENDS)
        assert load.counts["unanswered"] > 0
        assert load.counts["refused"] == 0
        await check_nothing_lost(stubs, load.seen())
        for seen in load.seen():
            log = await read_log(stubs, seen.watch.session_id)
            assert not [event for event in log if event.HasField("inference_attempt_lost")]


async def _cancel(stubs: Stubs, inference_id: str) -> float:
    """Cancel an inference; return when it had ended."""
    await stubs.inference.Cancel(pb.CancelRequest(inference_id=inference_id))
    ended = (await stubs.finish(inference_id)).inference
    assert ended.state == inference_pb2.INFERENCE_STATE_CANCELLED
    return time.monotonic()
