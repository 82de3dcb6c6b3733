"""A server whose store cannot be written for a while: it says so, stays up, and goes on as if nothing had been."""

import os
import resource
from collections.abc import AsyncIterable, Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.mounts import mounted_tmpfs
from support.rpc import Stubs, connect, refusal, script, start_request
from support.server import ServerProcess, server_on
from turnwire.v1 import event_pb2, inference_pb2, session_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log

WORDS = "one two three four five six seven eight nine ten "
ENDLESS = script({"thinking": {"text": "hm "}}, {"text": {"text": WORDS, "repeat": 10_000}}, pace="0.001s")

# The fault lasts as long as the block.
Fault = Callable[[ServerProcess, Path], AbstractContextManager[None]]


@contextmanager
def moved(_: ServerProcess, path: Path) -> Generator[None]:
    """The file is moved away, and put back."""
    elsewhere = path.with_name("elsewhere.db")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextmanager
def limited(server: ServerProcess, _: Path) -> Generator[None]:
    """No write to any file succeeds, as on a disk that has failed; needs no rights that a user does not have."""
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def full(_: ServerProcess, path: Path) -> Generator[None]:
    """The disk is full, and has room again."""
    others = path.with_name("others")
    descriptor = os.open(others, os.O_WRONLY | os.O_CREAT)
    size = 1 << 20
    while size:
        try:
            size = min(size, os.write(descriptor, bytes(size)))
        except OSError:
            size //= 2
    os.close(descriptor)
    try:
        yield
    finally:
        others.unlink()


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path, servers: ExitStack) -> Path:
    """A folder for the store: on a disk of its own, which may be filled, if the test asks for that."""
    return servers.enter_context(mounted_tmpfs(tmp_path / "disk", kib=16 * 1024)) if request.param else tmp_path


@pytest.mark.parametrize(
    ("disk", "fault", "cause"),
    [
        (False, moved, "the file was moved or deleted while it is open; put it back or restart the server"),
        (False, limited, "disk I/O error; see whether the disk is mounted and takes writes, and which file size"),
        (True, full, "database or disk is full; make room on the disk"),
    ],
    indirect=["disk"],
    ids=["moved", "limited", "full"],
)
async def test_a_server_outlives_a_fault_of_its_store(disk: Path, servers: ExitStack, fault: Fault, cause: str) -> None:
    path = disk / "turnwire.db"
    server = servers.enter_context(server_on(path, "--inferences-running-max", "4"))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        running = await stubs.start(session_id, "go", script=ENDLESS)
        watch, stream = _watch(stubs, session_id)
        await _take(stream, watch, deltas=50)
        with fault(server, path):
            acknowledged, refused = await _start_until_refused(stubs)
            assert refusal(refused) == ("UNAVAILABLE", "STORE_UNAVAILABLE", {})
            said = refused.details() or ""
            assert f"the store did not answer ({cause}" in said
            assert str(disk) not in said
            assert "Traceback" not in said
            read = await stubs.session.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id))
            assert read.session.active.inference_id == running.inference_id
        following = await stubs.start(await stubs.create_session(), "and now?")
        for inference_id in (*acknowledged, following.inference_id):
            ended = (await stubs.finish(inference_id)).inference
            assert ended.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
        await _take(stream, watch, deltas=watch.position + 50)
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=running.inference_id))
        await _take_rest(stream, watch)
        check_inference(watch.events)
        log = await _read_log(stubs, session_id)
    check_agreement(log, [watch])
    assert server.stop() == 0
    with server_on(path) as server:
        async with connect(server.address) as stubs:
            assert await _read_log(stubs, session_id) == log


def _watch(stubs: Stubs, session_id: str) -> tuple[Watch, AsyncIterable[pb.SubscribeEventsResponse]]:
    watch = Watch(session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
    return watch, aiter(stubs.inference.SubscribeEvents(request))


async def _take(stream: AsyncIterable[pb.SubscribeEventsResponse], watch: Watch, deltas: int) -> None:
    """Watch on the same stream until so many deltas of text have come."""
    async for response in stream:
        watch.take(response)
        if sum(event.HasField("llm_delta") for event in watch.events) >= deltas:
            return


async def _take_rest(stream: AsyncIterable[pb.SubscribeEventsResponse], watch: Watch) -> None:
    """Watch on the same stream until the inference has ended."""
    async for response in stream:
        watch.take(response)
        if watch.events[-1].HasField("inference_finished"):
            return


async def _start_until_refused(stubs: Stubs) -> tuple[list[str], grpc.aio.AioRpcError]:
    """Start inferences; return those that were accepted, and why the next one was not."""
    accepted: list[str] = []
    for _ in range(2000):  # what a disk that is called full may still have room for
        request = start_request("", "there may be room for this one")
        request.new_session.CopyFrom(session_pb2.NewSession())
        try:
            accepted.append((await stubs.inference.StartInference(request)).inference.inference_id)
        except grpc.aio.AioRpcError as error:
            return accepted, error
    msg = "the fault refuses nothing"
    raise AssertionError(msg)


async def _read_log(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    """Return the whole log of a session in which everything has ended."""
    watch = Watch(session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
    check_log(watch.events)
    return watch.events


async def test_health_tells_that_the_store_is_away_and_that_it_is_back(tmp_path: Path, servers: ExitStack) -> None:
    path = tmp_path / "turnwire.db"
    server = servers.enter_context(server_on(path))
    status = health_pb2.HealthCheckResponse
    async with connect(server.address) as stubs, grpc.aio.insecure_channel(server.address) as channel:
        running = await stubs.start(await stubs.create_session(), script=script({"hang": {}}))
        health = health_pb2_grpc.HealthStub(channel)
        states = aiter(health.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(states)).status == status.SERVING
        with moved(server, path):
            assert (await anext(states)).status == status.NOT_SERVING
        assert (await anext(states)).status == status.SERVING
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=running.inference_id))
        await stubs.finish(running.inference_id)
