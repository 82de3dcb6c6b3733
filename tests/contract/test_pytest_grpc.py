"""pytest-grpc drives the real grpc.aio server: its own server is replaced, its channel and stub are used as they are.

pytest-grpc starts synchronous servicers only, and its fake server does not work with present grpcio. Both are avoided
by overriding `grpc_addr` and `grpc_server`; everything else is the plugin's.
"""

import itertools
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from support.server import ServerProcess
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2
from turnwire.v1.inference_pb2 import FINISH_CLASS_COMPLETED, INFERENCE_STATE_SUCCEEDED
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub
from turnwire.v1.turn_pb2 import Block, UserBlock

HELLO = [Block(user=UserBlock(text="hello"))]


@pytest.fixture(scope="module")
def grpc_addr(server_process: ServerProcess) -> str:
    return server_process.address


@pytest.fixture(scope="module")
def grpc_server(grpc_addr: str) -> str:
    """The server runs already; the plugin only wants to be sure of it."""
    return grpc_addr


@pytest.fixture(scope="module")
def grpc_stub_cls() -> Callable[[grpc.Channel], Any]:
    return InferenceServiceStub


@pytest.fixture(scope="module")
def sessions(grpc_create_channel: Callable[[], grpc.Channel]) -> Any:
    with grpc_create_channel() as channel:
        yield SessionServiceStub(channel)


def start(grpc_stub: Any, **fields: Any) -> pb.StartInferenceResponse:
    request = pb.StartInferenceRequest(new_session=NewSession(), input=HELLO, **fields)
    reply: pb.StartInferenceResponse = grpc_stub.StartInference(request, timeout=10)
    return reply


def test_an_inference_from_start_to_end(grpc_stub: Any) -> None:
    started = start(grpc_stub)
    assert started.created
    waited = grpc_stub.Wait(pb.WaitRequest(inference_id=started.inference.inference_id), timeout=30)
    assert waited.inference.state == INFERENCE_STATE_SUCCEEDED
    assert waited.inference.finish_class == FINISH_CLASS_COMPLETED


def test_a_repeat_by_key(grpc_stub: Any) -> None:
    first = start(grpc_stub, idempotency_key="by-pytest-grpc")
    second = start(grpc_stub, idempotency_key="by-pytest-grpc")
    assert (first.created, second.created) == (True, False)
    assert first.inference.inference_id == second.inference.inference_id


def test_a_stream(grpc_stub: Any) -> None:
    started = start(grpc_stub).inference
    request = pb.SubscribeEventsRequest(
        session_id=started.session_id,
        inference_id=started.inference_id,
        from_beginning=pb.FromBeginning(),
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    )
    responses = list(grpc_stub.SubscribeEvents(request, timeout=30))
    sequences = [event.sequence for response in responses for event in response.events]
    assert sequences == list(range(1, len(sequences) + 1))
    assert responses[0].HasField("opened")
    assert responses[-1].end.reason == pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
    for before, after in itertools.pairwise(responses):
        assert after.after_sequence == before.through_sequence


def test_an_error_with_details(grpc_stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        grpc_stub.GetInference(pb.GetInferenceRequest(inference_id="nobody-started-this"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(refused.value).details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "INFERENCE_NOT_FOUND",
        "turnwire",
        {"inference_id": "nobody-started-this"},
    )


def test_another_service_on_the_same_server(sessions: Any) -> None:
    request = session_service_pb2.CreateSessionRequest(session=NewSession(display_name="by pytest-grpc"))
    made = sessions.CreateSession(request, timeout=10)
    again = sessions.GetSession(session_service_pb2.GetSessionRequest(session_id=made.session.session_id), timeout=10)
    assert again.session == made.session
