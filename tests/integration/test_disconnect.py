"""cancel_after_disconnect on real connections: who leaves, who comes back, and a server that goes away itself."""

import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from support.rpc import Stubs, connect, script
from support.server import server_on
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_server.runtime.disconnect import REASON

HANG = script({"text": {"text": "hm"}}, {"hang": {}})


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as found:
        yield found


def _request(started: inference_pb2.Inference, seconds: float | None) -> pb.SubscribeEventsRequest:
    request = pb.SubscribeEventsRequest(
        session_id=started.session_id, inference_id=started.inference_id, from_beginning=pb.FromBeginning()
    )
    if seconds is not None:
        request.cancel_after_disconnect.CopyFrom(Duration(nanos=int(seconds * 1e9)))
    return request


async def _watch_and_leave(address: str, request: pb.SubscribeEventsRequest) -> None:
    """Watch on a connection of its own until there is output, and break it."""
    async with connect(address) as own:
        async for response in own.inference.SubscribeEvents(request):
            if any(event.HasField("llm_delta") for event in response.events):
                return


async def test_an_inference_whose_watcher_leaves_is_cancelled(stubs: Stubs, server_address: str) -> None:
    started = await stubs.start(await stubs.create_session(), script=HANG)
    await _watch_and_leave(server_address, _request(started, 0.1))
    ended = (await stubs.finish(started.inference_id)).inference
    assert ended.state == inference_pb2.INFERENCE_STATE_CANCELLED
    assert ended.cancel_reason == REASON


async def test_one_who_comes_back_keeps_it(stubs: Stubs, server_address: str) -> None:
    started = await stubs.start(await stubs.create_session(), script=HANG)
    await _watch_and_leave(server_address, _request(started, 0.5))
    call = stubs.inference.SubscribeEvents(_request(started, None))
    beats = 0
    async for response in call:
        beats += not response.events
        if beats == 4:  # of 0.3 s each
            break
    found = await stubs.inference.GetInference(pb.GetInferenceRequest(inference_id=started.inference_id))
    assert found.inference.state == inference_pb2.INFERENCE_STATE_RUNNING
    assert not found.inference.HasField("cancel_requested_time")
    call.cancel()
    await stubs.inference.Cancel(pb.CancelRequest(inference_id=started.inference_id))


async def test_a_server_that_goes_away_itself_cancels_nothing(tmp_path: Path, servers: ExitStack) -> None:
    path = tmp_path / "turnwire.db"
    server = servers.enter_context(server_on(path, "--drain-grace-seconds", "0"))
    async with connect(server.address) as stubs:
        started = await stubs.start(await stubs.create_session(), script=HANG)
        reasons = []
        async for response in stubs.inference.SubscribeEvents(_request(started, 0)):
            if any(event.HasField("llm_delta") for event in response.events):
                server.signal(signal.SIGTERM)
            reasons.append(response.end.reason)
        assert reasons[-1] == pb.SUBSCRIPTION_END_REASON_DRAINING
    assert server.wait() == 0
    async with connect(servers.enter_context(server_on(path, "--drain-grace-seconds", "0")).address) as stubs:
        found = await stubs.inference.GetInference(pb.GetInferenceRequest(inference_id=started.inference_id))
        assert not found.inference.HasField("cancel_requested_time")
        assert found.inference.state in {
            inference_pb2.INFERENCE_STATE_QUEUED,
            inference_pb2.INFERENCE_STATE_RUNNING,
        }
