"""What a fuzzed server has: sessions with real history, in every state there is.

Sessions have the same name in every world. What the server mints (inferences, the tokens of logs and pages) is
different each time, so a request has a stand-in of the same length in its place until it is sent. That way a request
that was found once means the same to another server.
"""

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from support.agent_world import call, say, script
from support.live import CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, SUCCEEDED, WAITING
from support.rpc import TERMINAL
from turnwire.v1 import debug_service_pb2 as debug
from turnwire.v1 import engine_service_pb2 as engines
from turnwire.v1 import inference_pb2, session_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2 as sessions
from turnwire.v1.debug_service_pb2_grpc import DebugServiceStub
from turnwire.v1.engine_service_pb2_grpc import EngineServiceStub
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub

PROFILES: Mapping[str, Mapping[str, object]] = {
    "scripted": {"engine": "scripted"},
    "agent": {
        "engine": "scripted",
        "tools": [{"python": "fuzz.tools"}],
        "middleware": ["tool_result_reorder", "thinking_mode"],
        "system_prompt": "Be brief.",
        "record_snapshots": True,
    },
    "narrow": {"engine": "scripted", "overrides": ["engine_options"], "capabilities": {"images": False}},
}
# The sessions, and in which state each inference of theirs is. A fork has the turns of its origin, and no inference.
STATES: Mapping[str, Mapping[str, int]] = {
    "finished": {"finished0": SUCCEEDED, "finished1": SUCCEEDED, "finished2": SUCCEEDED},
    "fork": {},
    "running": {"running": RUNNING},
    "waiting": {"waiting": WAITING},
    "paused": {"paused": PAUSED},
    "paused2": {"paused2": PAUSED},
    "queued": {"queued0": RUNNING, "queued1": QUEUED},
    "ended": {"failed": FAILED, "cancelled": CANCELLED},
    "empty": {},
}
SESSIONS = tuple(STATES)

# All that a request may name: what is there, what is gone, and what never was.
SESSION_NAMES = (*SESSIONS, "deleted", "never", "a", "x" * 128)
INFERENCE_NAMES = (*(name for each in STATES.values() for name in each), "deleted", "never")
LISTINGS = (
    "ListSessions", "ListInferences", "ListEvents", "ListTurns", "GetTurn", "ListTurnSnapshots", "ListPauses",
    "ListEngines", "ListProfiles",
)  # fmt: skip

# How long anything may take that the world is made of, and how many turns a session of it has at most.
_SECONDS = 20.0
_TURNS_MAX = 40

Request = pb.StartInferenceRequest


def inference_stand_in(name: str) -> str:
    """Return what stands for an inference_id in a request that is not sent yet."""
    return f"00000000-0000-4000-8000-{INFERENCE_NAMES.index(name):012}"


def log_stand_in(session: str) -> str:
    """Return what stands for the token of a log."""
    return f"00000000-0000-4000-9000-{SESSIONS.index(session):012}.{0:016}"


def page_stand_in(listing: str) -> str:
    """Return what stands for the token of the second page of a listing."""
    return f"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{LISTINGS.index(listing):02}"


_STAND_IN = re.compile(rb"00000000-0000-4000-[89]000-\d{12}(?:\.0{16})?|A{30}\d\d")


class World:
    """The sessions of one server. `renew` makes anew what requests have used up."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.inference = InferenceServiceStub(channel)
        self.session = SessionServiceStub(channel)
        self.debug = DebugServiceStub(channel)
        self.engine = EngineServiceStub(channel)
        self._real: dict[bytes, bytes] = {}

    def real(self, request: bytes) -> bytes:
        """Return a request with what this world's server minted, instead of what stands for it."""
        return _STAND_IN.sub(lambda found: self._real.get(found[0], found[0]), request)

    def renew(self) -> None:
        """Delete what requests have made, and make anew what they have ended or deleted."""
        self._sweep()
        made = [name for name in SESSIONS if not self._is_whole(name)]
        for name in made:
            self._make(name)
        if made:
            self._keep_tokens()

    def _sweep(self) -> None:
        token = ""
        while True:
            page = self.session.ListSessions(sessions.ListSessionsRequest(page_size=1000, page_token=token))
            for each in page.sessions:
                if each.session_id not in SESSIONS:
                    self._delete(each.session_id)
            token = page.next_page_token
            if not token:
                return

    def _is_whole(self, name: str) -> bool:
        try:
            session = self.session.GetSession(sessions.GetSessionRequest(session_id=name)).session
            return session.turn_count <= _TURNS_MAX and all(
                self._state_of(inference) == state for inference, state in STATES[name].items()
            )
        except grpc.RpcError:
            return False

    def _state_of(self, name: str) -> int:
        inference_id = self._real.get(inference_stand_in(name).encode(), b"never").decode()
        return self.inference.GetInference(pb.GetInferenceRequest(inference_id=inference_id)).inference.state

    def _delete(self, name: str) -> None:
        with suppress_not_found():
            self.session.DeleteSession(sessions.DeleteSessionRequest(session_id=name, force=True), timeout=_SECONDS)

    # --- making ---------------------------------------------------------------------------------------

    def _make(self, name: str) -> None:
        self._delete(name)
        new = session_pb2.NewSession(session_id=name, labels={"made": "here"}, metadata={"a": "1"})
        if name == "fork":
            self.session.ForkSession(sessions.ForkSessionRequest(session_id="finished", session=new))
            return
        self.session.CreateSession(sessions.CreateSessionRequest(session=new))
        match name:
            case "finished":
                options = script([say("so"), call("get_weather", city="Bern")], [say("done")])
                for number in range(3):
                    self._start(f"finished{number}", Request(session_id=name, profile="agent"), options, SUCCEEDED)
                self._make_deleted()
            case "running":
                self._start(name, Request(session_id=name), script([say("well"), {"hang": {}}]), RUNNING)
            case "waiting":
                options = script([call("ask_me"), call("erase", path="x"), call("ask_me")], [say("done")])
                request = Request(session_id=name, profile="agent")
                request.overrides.tools.add(name="ask_me")
                self._start(name, request, options, WAITING)
            case "paused" | "paused2":
                steps = debug.SetStepModeRequest(session_id=name, enabled=True)
                steps.deadline.seconds = 86400
                self.debug.SetStepMode(steps)
                self._start(name, Request(session_id=name), script([say("well")]), PAUSED)
            case "queued":
                self._start("queued0", Request(session_id=name), script([{"hang": {}}]), RUNNING)
                line = Request(session_id=name, conflict_policy=inference_pb2.CONFLICT_POLICY_ENQUEUE)
                self._start("queued1", line, script([say("late")]), QUEUED)
            case "ended":
                self._start("failed", Request(session_id=name), script([{"fail": {}}]), FAILED)
                cancelled = self._start("cancelled", Request(session_id=name), script([{"hang": {}}]), RUNNING)
                self.inference.Cancel(pb.CancelRequest(inference_id=cancelled.inference_id))
                self._reach(cancelled, CANCELLED)
            case _:
                pass

    def _make_deleted(self) -> None:
        """A session that is gone, with its inference."""
        new = session_pb2.NewSession(session_id="deleted")
        self._delete("deleted")
        self._start("deleted", Request(new_session=new), script([say("soon gone")]), SUCCEEDED)
        self._delete("deleted")

    def _start(self, name: str, request: Request, options: str, state: int) -> inference_pb2.Inference:
        """Start an inference, and return it once it is in a state."""
        request.input.add(user=turn_pb2.UserBlock(text="hello"))
        request.overrides.engine_options = options
        made = self.inference.StartInference(request, timeout=_SECONDS).inference
        self._real[inference_stand_in(name).encode()] = made.inference_id.encode()
        self._reach(made, state)
        return made

    def _reach(self, made: inference_pb2.Inference, state: int) -> None:
        """Return once an inference is in a state. Its events say when to look; an idle stream tells that it is late."""
        watch = pb.SubscribeEventsRequest(
            session_id=made.session_id, inference_id=made.inference_id, from_beginning=pb.FromBeginning()
        )
        stream = self.inference.SubscribeEvents(watch, timeout=_SECONDS)
        for _ in stream:
            found = self.inference.GetInference(pb.GetInferenceRequest(inference_id=made.inference_id)).inference
            if found.state == state:
                stream.cancel()
                return
            if found.state in TERMINAL:
                break
        msg = f"the world cannot be made: an inference of {made.session_id} did not come to state {state}"
        raise RuntimeError(msg)

    # --- tokens ---------------------------------------------------------------------------------------

    def _keep_tokens(self) -> None:
        for name in SESSIONS:
            found = self.session.GetSession(sessions.GetSessionRequest(session_id=name)).session
            self._real[log_stand_in(name).encode()] = found.log.encode()
        for listing, request in listings().items():
            stub: Any = self._stub_of(listing)
            named = request.__class__.FromString(self.real(request.SerializeToString()))
            page = getattr(stub, listing)(named)
            assert page.next_page_token, f"{listing} has no second page: {page}"
            self._real[page_stand_in(listing).encode()] = page.next_page_token.encode()

    def _stub_of(self, listing: str) -> object:
        return next(stub for stub in (self.inference, self.session, self.debug, self.engine) if hasattr(stub, listing))


@contextmanager
def suppress_not_found() -> Generator[None]:
    """Let what is not there be gone already."""
    try:
        yield
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def listings() -> dict[str, Any]:
    """Return the requests for the first page of each listing; with the token of it, they are those for the second."""
    return {
        "ListSessions": sessions.ListSessionsRequest(page_size=1),
        "ListInferences": pb.ListInferencesRequest(session_id="finished", page_size=1),
        "ListEvents": pb.ListEventsRequest(session_id="finished", page_size=1),
        "ListTurns": sessions.ListTurnsRequest(session_id="finished", page_size=1),
        "GetTurn": sessions.GetTurnRequest(inference_id=inference_stand_in("finished0"), page_size=1),
        "ListTurnSnapshots": debug.ListTurnSnapshotsRequest(inference_id=inference_stand_in("finished0"), page_size=1),
        "ListPauses": debug.ListPausesRequest(page_size=1),
        "ListEngines": engines.ListEnginesRequest(page_size=1),
        "ListProfiles": engines.ListProfilesRequest(page_size=1),
    }


def profiles_text() -> str:
    """Return the profile file of a fuzzed server."""
    return json.dumps({"default": "scripted", "profiles": PROFILES})  # JSON is YAML
