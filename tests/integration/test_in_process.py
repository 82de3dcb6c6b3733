"""What only shows from inside a running server: that nothing is left behind, and that it is right without any hint."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from support.rpc import Stubs, connect, refusal, script
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_server.bootstrap import Server, running_server
from turnwire_server.config import Settings
from turnwire_server.events.bus import Hint, InProcessBus


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0, watchers_max=3)
    async with running_server(settings) as running:
        yield running


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(100_000):  # turns of the loop, which the server runs in as well
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come about")


async def _watch(
    stubs: Stubs, session_id: str
) -> grpc.aio.UnaryStreamCall[pb.SubscribeEventsRequest, pb.SubscribeEventsResponse]:
    request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
    call = stubs.inference.SubscribeEvents(request)
    assert await call.read()
    return call


async def test_a_watcher_that_leaves_leaves_nothing(server: Server) -> None:
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        calls = [await _watch(stubs, session_id) for _ in range(3)]
        assert server.runtime.watcher_count == 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.inference.SubscribeEvents(
                pb.SubscribeEventsRequest(session_id=session_id, live=pb.FromLive())
            ).read()
        assert refusal(refused.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHERS", {"watchers_max": "3"})
        for call in calls:
            call.cancel()
        await _until(lambda: server.runtime.watcher_count == 0)
        started = await stubs.start(session_id, script=script({"hang": {}}))
        wait = stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id))
        await _until(lambda: server.runtime.watcher_count == 1)
        wait.cancel()
        await _until(lambda: server.runtime.watcher_count == 0)


class LosingBus(InProcessBus):
    """Loses every hint."""

    def publish(self, hint: Hint) -> None:
        """Lose it."""


async def test_everything_works_with_every_hint_lost() -> None:
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0)
    async with running_server(settings, LosingBus()) as server, connect(server.address) as stubs:
        session_id = await stubs.create_session()
        ended = await stubs.finish((await stubs.start(session_id)).inference_id)
        assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
        hanging = await stubs.start(session_id, script=script({"hang": {}}))
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=hanging.inference_id))
        cancelled = (await stubs.finish(hanging.inference_id)).inference
        assert cancelled.state == inference_pb2.INFERENCE_STATE_CANCELLED
        assert cancelled.end_time.ToNanoseconds() - cancelled.cancel_requested_time.ToNanoseconds() < 2e9
