"""Talking to a server as any client would: the generated stubs, and nothing of turnwire_client."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from turnwire.testing.v1 import script_pb2
from turnwire.v1 import inference_pb2, inference_service_pb2, session_service_pb2, turn_pb2
from turnwire.v1.debug_service_pb2_grpc import DebugServiceStub
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from turnwire.v1.debug_service_pb2_grpc import DebugServiceAsyncStub
    from turnwire.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from turnwire.v1.session_service_pb2_grpc import SessionServiceAsyncStub

Detail = TypeVar("Detail", bound=Message)

TERMINAL = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)


@dataclass(frozen=True)
class Stubs:
    """The services of one server."""

    channel: grpc.aio.Channel
    inference: InferenceServiceAsyncStub
    session: SessionServiceAsyncStub
    debug: DebugServiceAsyncStub

    async def create_session(self) -> str:
        """Create a session; return its session_id."""
        return (await self.session.CreateSession(session_service_pb2.CreateSessionRequest())).session.session_id

    async def start(self, session_id: str, text: str = "hello", **fields: Any) -> inference_pb2.Inference:
        """Start an inference on the scripted engine."""
        return (await self.inference.StartInference(start_request(session_id, text, **fields))).inference

    async def finish(self, inference_id: str) -> inference_service_pb2.WaitResponse:
        """Wait until an inference is terminal; return it with its whole turn."""
        while True:
            request = inference_service_pb2.WaitRequest(
                inference_id=inference_id, until=inference_pb2.WAIT_UNTIL_END, turn_view=turn_pb2.TURN_VIEW_FULL
            )
            response = await self.inference.Wait(request)
            if response.inference.state in TERMINAL:
                return response


# For watchers that do not read: a receive window that does not grow, else gRPC reads megabytes ahead for them.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


@asynccontextmanager
async def connect(address: str, *options: tuple[str, int]) -> AsyncGenerator[Stubs]:
    """Connect to a server, on a connection of its own."""
    own = ("grpc.use_local_subchannel_pool", 1)
    async with grpc.aio.insecure_channel(address, options=[own, *options]) as channel:
        yield Stubs(channel, InferenceServiceStub(channel), SessionServiceStub(channel), DebugServiceStub(channel))


def start_request(session_id: str, text: str = "hello", **fields: Any) -> inference_service_pb2.StartInferenceRequest:
    """Return a StartInferenceRequest; an empty text means no input, `script` goes into the engine's options."""
    script: script_pb2.Script | None = fields.pop("script", None)
    request = inference_service_pb2.StartInferenceRequest(session_id=session_id, profile="scripted", **fields)
    if text:
        request.input.add(user=turn_pb2.UserBlock(text=text))
    if script is not None:
        request.overrides.engine_options = json.dumps({"script": json_format.MessageToDict(script)})
    return request


def script(*steps: Mapping[str, Any], pace: str = "", delta_length: int = 0, **call: Any) -> script_pb2.Script:
    """Return a script of one engine call; steps are ScriptedStep as dictionaries."""
    content: dict[str, Any] = {"calls": [{"steps": list(steps), **call}], "deltaLength": delta_length}
    if pace:
        content["pace"] = pace
    return json_format.ParseDict(content, script_pb2.Script())


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the google.rpc.Status of a failed rpc."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    msg = f"no details: {error}"
    raise AssertionError(msg)


def detail(error: grpc.aio.AioRpcError, kind: type[Detail]) -> Detail:
    """Return the detail of a kind of a failed rpc."""
    for packed in status_of(error).details:
        found = kind()
        if packed.Unpack(found):
            return found
    msg = f"no {kind.__name__} in {status_of(error)}"
    raise AssertionError(msg)


def refusal(error: grpc.aio.AioRpcError) -> tuple[str, str, dict[str, str]]:
    """Return code, reason and metadata of a failed rpc."""
    info = detail(error, error_details_pb2.ErrorInfo)
    assert info.domain == "turnwire"
    return error.code().name, info.reason, dict(info.metadata)


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Return the fields of a failed rpc that break a rule, with the rule."""
    return {v.field: v.reason for v in detail(error, error_details_pb2.BadRequest).field_violations}
