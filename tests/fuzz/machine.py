"""Random sequences of what clients do, and of what befalls their server, on the server and on the model.

Before most steps a session comes to rest; there the model knows what each call has to answer. A hasty step does not
wait: then the order of things is the server's to choose, and only what is promised always is held against it.
"""

import json
import signal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from fuzz.model import CALLS, Kind, ModelInference, Refused
from fuzz.moves import HASTY, PLACE, Moves, brief, has_sessions, kept
from fuzz.stage import Refusal
from support.live import PAUSED, WAITING
from turnwire.v1 import debug_service_pb2 as debug
from turnwire.v1 import inference_pb2, tool_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2 as sessions
from turnwire_conformance.promises import Watch

_SCRIPTS: dict[Kind, list[list[dict[str, Any]]]] = {
    Kind.QUICK: [[{"text": {"text": "hello there"}}]],
    Kind.FAIL: [[{"text": {"text": "well"}}, {"fail": {}}]],
    Kind.TOOLS: [[{"toolCall": {"name": "ask_me"}}, {"toolCall": {"name": "ask_me"}}], [{"text": {"text": "done"}}]],
    Kind.HANG: [[{"text": {"text": "well"}}, {"hang": {}}]],
}
_POLICIES = (
    inference_pb2.CONFLICT_POLICY_REJECT,
    inference_pb2.CONFLICT_POLICY_ENQUEUE,
    inference_pb2.CONFLICT_POLICY_INTERRUPT,
    inference_pb2.CONFLICT_POLICY_ROLLBACK,
)
_START_REFUSALS = {"SESSION_BUSY", "QUEUE_FULL", "EMPTY_TURN"}
_ACTIONS = (debug.PAUSE_ACTION_CONTINUE, debug.PAUSE_ACTION_STEP, debug.PAUSE_ACTION_ABORT)

_keys = st.integers(-6, 3).map(lambda number: max(number, 0))  # 0: none; few, so that they are used again
_kinds = st.sampled_from([Kind.HANG, Kind.HANG, Kind.TOOLS, *Kind])  # what stays is what more can happen to


class Sequence(Moves):
    """One sequence on a stage."""

    # --- inferences -----------------------------------------------------------------------------------

    @has_sessions
    @rule(
        place=PLACE,
        kind=_kinds,
        policy=st.sampled_from(_POLICIES),
        key=_keys,
        attempts_max=st.sampled_from((1, 3)),
        has_input=st.integers(0, 7).map(bool),
        hasty=HASTY,
    )
    @kept
    def start(  # every field of a start is one of the things that may go wrong
        self, place: int, kind: Kind, policy: int, key: int, attempts_max: int, *, has_input: bool, hasty: bool
    ) -> None:
        """Start an inference."""
        follower = self._pick(place, hasty=hasty)
        model = follower.model
        request = _start_request(model.session_id, kind, policy, has_input=has_input)
        request.attempts_max = attempts_max
        request.idempotency_key = f"{self.name}-{key}" if key else ""
        found = self.stage.ask(self.stage.inference.StartInference, request)
        self._told(f"start {kind} in {model.session_id}, policy {policy}, key {key}, {hasty=} -> {brief(found)}")
        if request.idempotency_key in self.starts:
            self._check_repeat(request, found)
            return
        allowed = None if model.is_certain else _START_REFUSALS
        if self._check_refusal(found, model.refusal(policy, has_input=has_input), allowed=allowed):
            return
        assert found.created, "Idempotent: a start without a key, or with a new one, created nothing"
        inference = ModelInference(found.inference.inference_id, kind, attempts_max)
        if key:
            self.starts[request.idempotency_key] = request, follower, inference
        if model.is_certain:
            model.start(inference, policy)
        else:
            model.inferences.append(inference)
            model.line.append(inference)
        follower.is_at_rest = False
        follower.keep(found.inference)

    @precondition(lambda machine: any(follower.model.line for follower in machine.followers))
    @rule(place=PLACE, kind=_kinds, policy=st.sampled_from([inference_pb2.CONFLICT_POLICY_ENQUEUE, *_POLICIES[1:]]))
    @kept
    def start_more(self, place: int, kind: Kind, policy: int) -> None:
        """Start an inference beside what has not ended."""
        busy = [number for number, follower in enumerate(self.followers) if follower.model.line]
        self.start(busy[place % len(busy)], kind, policy, 0, 3, has_input=True, hasty=False)

    @precondition(lambda machine: machine.starts)
    @rule(key=PLACE)
    @kept
    def start_again(self, key: int) -> None:
        """Send a start with a key again, as a client does that saw no reply."""
        request, _, inference = [*self.starts.values()][key % len(self.starts)]
        found = self.stage.ask(self.stage.inference.StartInference, request)
        self._told(f"start {inference.kind} {inference.inference_id} again -> {brief(found)}")
        self._check_repeat(request, found)

    def _check_repeat(self, request: pb.StartInferenceRequest, found: Any) -> None:
        first, follower, inference = self.starts[request.idempotency_key]
        if first != request:
            self._check_refusal(found, Refused("IDEMPOTENCY_KEY_REUSED"))
        elif follower in self.gone:
            self._check_refusal(found, Refused("SESSION_NOT_FOUND"))
        else:
            self._check_refusal(found, None)
            assert not found.created, "Idempotent: a key started a second inference"
            assert found.inference.inference_id == inference.inference_id, "Idempotent: a key means another inference"
            follower.keep(found.inference)

    @has_sessions
    @rule(place=PLACE, which=PLACE, by_session=st.booleans(), hasty=HASTY, is_meant=st.booleans())
    @kept
    def cancel(self, place: int, which: int, *, by_session: bool, hasty: bool, is_meant: bool) -> None:
        """Cancel an inference, or what is first in line, but not so often that there never is a line."""
        if not is_meant:
            return
        follower = self._pick(place, hasty=hasty)
        model = follower.model
        if by_session:
            target = model.line[0] if model.line else None
            request = pb.CancelRequest(session_id=model.session_id)
        elif model.inferences:
            target = model.inferences[which % len(model.inferences)]
            request = pb.CancelRequest(inference_id=target.inference_id)
        else:
            return
        found = self.stage.ask(self.stage.inference.Cancel, request)
        self._told(f"cancel {'the first of' if by_session else ''} {model.session_id}, {hasty=} -> {brief(found)}")
        expected = None if target else Refused("NO_ACTIVE_INFERENCE")
        allowed = {"NO_ACTIVE_INFERENCE"} if by_session and not model.is_certain else None
        if self._check_refusal(found, expected, allowed=allowed):
            return
        follower.keep(found.inference)
        follower.is_at_rest = False
        if target and model.is_certain:
            assert found.inference.inference_id == target.inference_id, "another inference was cancelled"
            model.cancel(target)

    @has_sessions
    @rule(place=PLACE, which=PLACE, until=st.sampled_from((0, 1, 2)), hasty=HASTY)
    @kept
    def wait(self, place: int, which: int, until: int, *, hasty: bool) -> None:
        """Ask for the state of an inference, without waiting."""
        follower = self.followers[place % len(self.followers)]
        if not hasty:
            follower.settle()
        if follower.model.inferences:
            inference = follower.model.inferences[which % len(follower.model.inferences)]
            request = pb.WaitRequest(
                inference_id=inference.inference_id, until=inference_pb2.WaitUntil.ValueType(until)
            )
            request.timeout.nanos = 0
            found = self.stage.ask(self.stage.inference.Wait, request).inference
            self._told(f"wait for {inference.inference_id} -> {found.state}")
            follower.keep(found)
            assert hasty or found.state == inference.state, f"WaitAgrees: {found.state}, not {inference.state}"

    @has_sessions
    @rule(place=PLACE, how=st.sampled_from(("all", "one", "unknown", "denied", "twice")), hasty=HASTY)
    @kept
    def submit(self, place: int, how: str, *, hasty: bool) -> None:
        """Answer tool calls, rightly or not, and each submission twice."""
        follower = self._pick(place, hasty=hasty)
        model = follower.model
        targets = [each for each in model.inferences if each.kind is Kind.TOOLS]
        if not targets:
            return
        target = targets[-1]
        calls = {"one": target.pending[:1] or CALLS[:1], "all": target.pending or CALLS, "unknown": ("nobody",)}
        names = calls.get(how, target.pending[:1] or CALLS[:1])
        request = pb.SubmitToolResultsRequest(inference_id=target.inference_id)
        for call in names * (2 if how == "twice" else 1):
            denied = tool_pb2.ToolDenial() if how == "denied" else None
            request.outcomes.add(tool_call=call, **({"denied": denied} if denied else {"result": "1"}))
        request.idempotency_key = f"{self.name}-submit-{len(self.account.trace)}"
        found = self.stage.ask(self.stage.inference.SubmitToolResults, request)
        self._told(f"submit {how} {names} to {target.inference_id}, {hasty=} -> {brief(found)}")
        allowed = None if model.is_certain else {"INFERENCE_NOT_WAITING", "TOOL_CALL_NOT_PENDING", "INVALID_FIELD"}
        if self._check_refusal(found, _submit_refusal(target, how), allowed=allowed):
            return
        follower.is_at_rest = False
        again = self.stage.ask(self.stage.inference.SubmitToolResults, request)
        assert not isinstance(again, Refusal), f"Idempotent: a submission that was taken is refused: {again}"
        if model.is_certain:
            model.answer(target, names)
            pending = tuple(found.pending_tool_calls)
            assert pending == target.pending, f"{pending} are pending, not {target.pending}"

    # --- steps ----------------------------------------------------------------------------------------

    @has_sessions
    @rule(place=PLACE, enabled=st.booleans(), hasty=HASTY)
    @kept
    def set_step_mode(self, place: int, *, enabled: bool, hasty: bool) -> None:
        """Turn step mode on or off."""
        follower = self._pick(place, hasty=hasty)
        model = follower.model
        request = debug.SetStepModeRequest(session_id=model.session_id, enabled=enabled)
        request.deadline.seconds = 3600
        found = self.stage.ask(self.stage.debug.SetStepMode, request)
        self._told(f"step mode {enabled} in {model.session_id}, {hasty=} -> {brief(found)}")
        self._check_refusal(found, None)
        model.set_step_mode(enabled=enabled)
        follower.is_at_rest = False

    @has_sessions
    @rule(place=PLACE, action=st.sampled_from(_ACTIONS))
    @kept
    def release(self, place: int, action: debug.PauseAction.ValueType) -> None:
        """Release what is paused, and again."""
        follower = self._pick(place, hasty=False)
        model = follower.model
        pauses = self.stage.ask(
            self.stage.debug.ListPauses, debug.ListPausesRequest(session_id=model.session_id)
        ).pauses
        paused = [each.inference_id for each in model.line if each.state == PAUSED]
        assert [each.inference_id for each in pauses] == paused, f"{pauses} are listed, not {paused}"
        for pause in pauses:
            request = debug.ReleasePauseRequest(pause=pause.id, action=action)
            found = self.stage.ask(self.stage.debug.ReleasePause, request)
            self._told(f"release {pause.id} with {action} -> {brief(found)}")
            self._check_refusal(found, None)
            again = self.stage.ask(self.stage.debug.ReleasePause, request)
            self._check_refusal(again, Refused("PAUSE_NOT_FOUND"))
            is_end, goes_on = action == debug.PAUSE_ACTION_ABORT, action == debug.PAUSE_ACTION_CONTINUE
            model.release(model.line[0], continues=goes_on, aborts=is_end)
            follower.is_at_rest = False

    # --- watching, and what befalls the server ------------------------------------------------------------

    @has_sessions
    @rule(place=PLACE, which=PLACE, cursor=st.integers(0, 40), is_filtered=st.booleans())
    @kept
    def subscribe(self, place: int, which: int, cursor: int, *, is_filtered: bool) -> None:
        """Watch a session, or one of its inferences, from a cursor on."""
        follower = self.followers[place % len(self.followers)]
        inferences = follower.model.inferences if is_filtered else []
        inference_id = inferences[which % len(inferences)].inference_id if inferences else ""
        watch = Watch(follower.model.session_id, inference_id)
        watch.begin(min(cursor, follower.log.position))
        self._told(f"subscribe to {follower.model.session_id} {inference_id} from {watch.position}")
        follower.follow(watch)
        follower.watches.append(watch)

    @precondition(lambda machine: any(follower.watches for follower in machine.followers))
    @rule(place=PLACE)
    @kept
    def resume(self, place: int) -> None:
        """Go on with a watch."""
        watches = [(follower, watch) for follower in self.followers for watch in follower.watches]
        follower, watch = watches[place % len(watches)]
        self._told(f"resume {watch.session_id} {watch.inference_id} after {watch.position}")
        follower.follow(watch)

    @precondition(lambda machine: machine.stage.is_durable and machine.followers)
    @rule(how=st.sampled_from((None, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)), hasty=HASTY)
    @kept
    def restart(self, how: signal.Signals | None, *, hasty: bool) -> None:
        """End the server, and start it again; now and then, since it takes as long as many other steps."""
        if how is None:
            return
        for place in range(len(self.followers)):
            self._pick(place, hasty=hasty)
        self._told(f"{how.name}, {hasty=}")
        self.stage.restart(how)
        for follower in self.followers:
            if how == signal.SIGKILL and follower.model.is_certain:
                follower.model.lose()
            follower.is_at_rest = False

    @invariant()
    @kept
    def has_no_error_in_its_log(self) -> None:
        """The server does not tell of a defect."""
        self.stage.check_log()

    @kept
    def teardown(self) -> None:
        """Bring everything to its end, check it, and leave nothing behind."""
        try:
            for follower in self.followers:
                follower.close()
        finally:
            for follower in self.followers:
                request = sessions.DeleteSessionRequest(session_id=follower.model.session_id, force=True)
                self.stage.ask(self.stage.session.DeleteSession, request)


def _start_request(session_id: str, kind: Kind, policy: int, *, has_input: bool) -> pb.StartInferenceRequest:
    request = pb.StartInferenceRequest(
        session_id=session_id, conflict_policy=inference_pb2.ConflictPolicy.ValueType(policy)
    )
    if has_input:
        request.input.add(user=turn_pb2.UserBlock(text="go"))
    script = {"calls": [{"steps": steps} for steps in _SCRIPTS[kind]]}
    request.overrides.engine_options = json.dumps({"script": script})
    if kind is Kind.TOOLS:
        request.overrides.tools.add(name="ask_me")
    return request


def _submit_refusal(target: ModelInference, how: str) -> Refused | None:
    if how == "twice":
        return Refused("INVALID_FIELD")
    if target.state != WAITING:
        return Refused("INFERENCE_NOT_WAITING")
    return Refused("TOOL_CALL_NOT_PENDING") if how in ("unknown", "denied") else None
