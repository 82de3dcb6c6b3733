"""Calls to our server that set a measurement up or look at what it left; synchronous, and never what is measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf import json_format

from turnwire.testing.v1 import script_pb2
from turnwire.v1 import inference_pb2, session_service_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# Output is bounded: 2 MiB for a block, 16 MiB for an engine call. So there are several blocks, none of them larger.
BLOCK_BYTES_MAX = 1024 * 1024
OUTPUT_BYTES_MAX = 15 * 1024 * 1024


def flat_out(events: int, delta_length: int, pause_seconds: float = 0.0) -> script_pb2.Script:
    """Return a script that says `events` deltas as fast as it can, after a pause."""
    if events * delta_length > OUTPUT_BYTES_MAX:
        msg = f"an engine call says at most {OUTPUT_BYTES_MAX} bytes, not {events} x {delta_length}"
        raise ValueError(msg)
    script = script_pb2.Script(delta_length=delta_length)
    steps = script.calls.add().steps
    if pause_seconds:
        steps.add().pause.FromNanoseconds(int(pause_seconds * 1e9))
    while events > 0:
        repeat = min(events, BLOCK_BYTES_MAX // delta_length)
        steps.add(text=script_pb2.ScriptedText(text="x" * delta_length, repeat=repeat))
        events -= repeat
    return script


def paced(events: int, delta_length: int, pace_seconds: float, pause_seconds: float = 0.0) -> script_pb2.Script:
    """Return a script that says a delta every `pace_seconds`, after a pause."""
    script = flat_out(events, delta_length, pause_seconds)
    script.pace.FromNanoseconds(int(pace_seconds * 1e9))
    return script


def parked() -> script_pb2.Script:
    """Return a script that never ends."""
    script = script_pb2.Script()
    script.calls.add().steps.add().hang.SetInParent()
    return script


def start_request(script: script_pb2.Script | None = None, session_id: str = "") -> pb.StartInferenceRequest:
    """Return a request that starts an inference, in a new session unless one is named; without a script it echoes."""
    request = pb.StartInferenceRequest(profile="scripted")
    if session_id:
        request.session_id = session_id
    else:
        request.new_session.SetInParent()
    request.input.add(user=turn_pb2.UserBlock(text="hello"))
    if script is not None:
        request.overrides.engine_options = json.dumps({"script": json_format.MessageToDict(script)})
    return request


@dataclass(frozen=True, slots=True)
class Started:
    """An inference that was started."""

    session_id: str
    inference_id: str

    def until_end(self) -> bytes:
        """Return the request for all of its events, up to its end."""
        request = pb.SubscribeEventsRequest(
            session_id=self.session_id,
            inference_id=self.inference_id,
            from_beginning=pb.FromBeginning(),
            until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
        )
        return request.SerializeToString()

    def replay(self, after: int = 0) -> bytes:
        """Return the request for the events of its session after a sequence, up to the head."""
        request = pb.SubscribeEventsRequest(
            session_id=self.session_id, after_sequence=after, until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
        )
        return request.SerializeToString()

    def follow(self) -> bytes:
        """Return the request for what comes next in its session."""
        return pb.SubscribeEventsRequest(session_id=self.session_id, live=pb.FromLive()).SerializeToString()

    def follow_all(self) -> bytes:
        """Return the request for all events of its session, and what comes next in it."""
        request = pb.SubscribeEventsRequest(session_id=self.session_id, from_beginning=pb.FromBeginning())
        return request.SerializeToString()


class Calls:
    """A connection to our server, and the stubs of its services."""

    def __init__(self, address: str) -> None:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 * 1024 * 1024))
        self._channel = grpc.insecure_channel(address, options=options)
        self.inference = InferenceServiceStub(self._channel)
        self.session = SessionServiceStub(self._channel)

    def create_session(self) -> str:
        """Create a session; return its session_id."""
        return self.session.CreateSession(session_service_pb2.CreateSessionRequest()).session.session_id

    def start(self, script: script_pb2.Script | None = None, session_id: str = "") -> Started:
        """Start an inference."""
        found = self.inference.StartInference(start_request(script, session_id)).inference
        return Started(found.session_id, found.inference_id)

    def finish(self, started: Started) -> inference_pb2.Inference:
        """Return an inference once it has ended. Errors: ValueError unless it succeeded."""
        request = pb.WaitRequest(inference_id=started.inference_id, until=inference_pb2.WAIT_UNTIL_END)
        while True:
            found = self.inference.Wait(request).inference
            if found.state == inference_pb2.INFERENCE_STATE_SUCCEEDED:
                return found
            if found.state in (inference_pb2.INFERENCE_STATE_FAILED, inference_pb2.INFERENCE_STATE_CANCELLED):
                msg = f"it did not succeed: {found}"
                raise ValueError(msg)

    def read(self, started: Started) -> tuple[int, int]:
        """Return how many events a session's log has, and how many bytes they are as frames."""
        request = pb.SubscribeEventsRequest.FromString(started.replay())
        count = size = 0
        for response in self.inference.SubscribeEvents(request):
            count += len(response.events)
            size += pb.SubscribeEventsResponse(events=response.events).ByteSize()
        return count, size

    def delta_sizes(self, started: Started) -> Sequence[int]:
        """Return the encoded sizes of the deltas of a session, in bytes."""
        request = pb.SubscribeEventsRequest.FromString(started.replay())
        return [
            event.ByteSize()
            for response in self.inference.SubscribeEvents(request)
            for event in response.events
            if event.HasField("llm_delta")
        ]

    def delete(self, started: Started) -> None:
        """Delete a session."""
        self.session.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=started.session_id, force=True))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Calls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
