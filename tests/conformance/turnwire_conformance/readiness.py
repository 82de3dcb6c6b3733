"""Whether the cases can be run at all: they need a profile whose engine does what a script says.

Whatever else is wrong with a server is not told here: the cases tell it.
"""

import grpc
from google.protobuf.message import Message

from turnwire.v1 import engine_service_pb2, inference_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.inference_pb2 import WAIT_UNTIL_END
from turnwire.v1.turn_pb2 import TURN_VIEW_FULL
from turnwire_conformance.limits import Limits
from turnwire_conformance.rpcs import Refused, refused, rpcs
from turnwire_conformance.values import build

SPECIFICATION = "script.proto (turnwire/testing/v1) says what its engine has to do"

# What nobody says by chance.
SAID = "eleven herons and one ladder"

_START = {
    "new_session": {"display_name": "conformance"},
    "profile": "$profile",
    "input": [{"user": {"text": "say it"}}],
    "overrides": {"engine_options": {"script": {"calls": [{"steps": [{"text": {"text": SAID}}]}]}}},
}


class NotReadyError(Exception):
    """The server has no such profile, or one whose engine takes no scripts."""


async def check_ready(channel: grpc.aio.Channel, profile: str, limits: Limits) -> None:
    """Ask for the profile, and have its engine say something. Errors: NotReadyError."""
    try:
        await _check_profile(channel, profile, limits)
    except AssertionError:  # no such answer is in the contract: the cases fail
        return


async def _check_profile(channel: grpc.aio.Channel, profile: str, limits: Limits) -> None:
    asked = engine_service_pb2.GetProfileRequest(profile=profile)
    found = await _ask(channel, "EngineService.GetProfile", asked, limits.call)
    if isinstance(found, Refused) and found.reason == "PROFILE_NOT_FOUND":
        msg = f"the server has no profile {profile!r}; --profile names one whose engine takes scripts: {SPECIFICATION}"
        raise NotReadyError(msg)
    start = build(pb.StartInferenceRequest(), _START, {"profile": profile})
    started = await _ask(channel, "InferenceService.StartInference", start, limits.call)
    if isinstance(started, Refused) and started.reason == "OVERRIDE_NOT_ALLOWED":
        msg = f"the profile {profile!r} does not let a request say what its engine does: {SPECIFICATION}"
        raise NotReadyError(msg)
    if isinstance(started, pb.StartInferenceResponse):
        await _check_said(channel, profile, started.inference, limits)


async def _check_said(
    channel: grpc.aio.Channel, profile: str, inference: inference_pb2.Inference, limits: Limits
) -> None:
    wait = pb.WaitRequest(inference_id=inference.inference_id, until=WAIT_UNTIL_END, turn_view=TURN_VIEW_FULL)
    ended = await _ask(channel, "InferenceService.Wait", wait, limits.call)
    delete = session_service_pb2.DeleteSessionRequest(session_id=inference.session_id, force=True)
    await _ask(channel, "SessionService.DeleteSession", delete, limits.call)
    if not isinstance(ended, pb.WaitResponse):
        return
    said = [block.llm_text.text for block in ended.turn.blocks if block.HasField("llm_text")]
    is_refused = ended.inference.state == inference_pb2.INFERENCE_STATE_FAILED
    is_other = ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED and said != [SAID]
    if is_refused or is_other:
        msg = f"the engine of the profile {profile!r} does not do what a script says: {SPECIFICATION}"
        raise NotReadyError(msg)


async def _ask(channel: grpc.aio.Channel, name: str, request: Message, seconds: float) -> Message | Refused:
    try:
        return await rpcs()[name].call(channel, request.SerializeToString(), seconds)
    except grpc.aio.AioRpcError as error:
        return refused(error)
