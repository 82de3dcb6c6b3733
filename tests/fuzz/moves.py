"""What every sequence has: sessions, how they are picked, how answers are checked, and what its account keeps."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fuzz.follower import Follower
from fuzz.model import ModelInference, ModelSession, Refused
from fuzz.stage import Refusal, Stage
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_pb2
from turnwire.v1 import session_service_pb2 as sessions

_SESSIONS_MAX = 2

_numbers = itertools.count(1)

# Which of several; whether a step does not wait for rest; whether a step is made that would soon leave nothing to do.
PLACE = st.integers(0, 5)
HASTY = st.integers(0, 9).map(lambda number: number == 9)
SELDOM = st.integers(0, 3).map(lambda number: number == 3)

has_sessions = precondition(lambda machine: machine.followers)


@dataclass(slots=True)
class Account:
    """What sequences have done: how many steps in all, the trace of the present one, and of the last that failed."""

    steps: int = 0
    trace: list[str] = field(default_factory=list[str])
    failed: list[str] = field(default_factory=list[str])
    error: Exception | None = None


Step = TypeVar("Step", bound=Callable[..., Any])


def kept(step: Step) -> Step:
    """Have the account keep what fails in a step: it may not fail again in the same way when it is made again.

    Of one sequence that is what fails first: what fails while it is cleared away is only a consequence.
    """

    @functools.wraps(step)
    def wrapped(self: "Moves", *args: Any, **values: Any) -> Any:
        try:
            return step(self, *args, **values)
        except Exception as error:
            if not self.has_failed:
                self.account.failed = [*self.account.trace, f"then, in {step.__name__} {values or ''}:"]
                self.account.error = error
            self.has_failed = True
            raise

    return cast("Step", wrapped)


class Moves(RuleBasedStateMachine):
    """One sequence on a stage, as far as it is about sessions. `starts` are the starts with a key."""

    def __init__(self, stage: Stage, account: Account) -> None:
        super().__init__()
        self.stage = stage
        self.account = account
        self.account.trace = []
        self.followers: list[Follower] = []
        self.name = f"example-{next(_numbers)}"
        self.starts: dict[str, tuple[pb.StartInferenceRequest, Follower, ModelInference]] = {}
        self.gone: list[Follower] = []
        self.has_failed = False

    def _pick(self, place: int, *, hasty: bool) -> Follower:
        """Return a session; at rest, unless somebody is hasty, and then perhaps nothing is certain of it."""
        follower = self.followers[place % len(self.followers)]
        if not hasty:
            follower.settle()
        elif not follower.is_at_rest:
            follower.model.is_certain = False
        return follower

    def _told(self, what: str) -> None:
        self.account.steps += 1
        self.account.trace.append(what)

    def _check_refusal(self, found: Any, expected: Refused | None, *, allowed: set[str] | None = None) -> bool:
        """Check whether a call was refused as it has to be; return whether it was. `allowed`: nothing is certain."""
        reason = found.reason if isinstance(found, Refusal) else ""
        if allowed is not None:
            assert not reason or reason in allowed, f"refused with {reason}, not one of {allowed}"
            return bool(reason)
        assert reason == (expected.reason if expected else ""), f"refused with {reason or 'nothing'}, not {expected}"
        if expected and expected.inference_id and isinstance(found, Refusal):
            assert found.metadata["inference_id"] == expected.inference_id, f"{found} does not name {expected}"
        return bool(reason)

    # --- sessions -------------------------------------------------------------------------------------

    @initialize()
    @kept
    def begin(self) -> None:
        """There is a session."""
        self.create(1)

    @precondition(lambda machine: len(machine.followers) < _SESSIONS_MAX)
    @rule(key=st.integers(0, 2))
    @kept
    def create(self, key: int) -> None:
        """Create a session; with a key twice."""
        request = sessions.CreateSessionRequest(session=session_pb2.NewSession(display_name="new"))
        request.idempotency_key = f"{self.name}-{len(self.account.trace)}" if key else ""
        made = self.stage.ask(self.stage.session.CreateSession, request)
        self._told(f"create -> {made.session.session_id}")
        assert made.created, "the first creation with a key created nothing"
        if key:
            again = self.stage.ask(self.stage.session.CreateSession, request)
            assert not again.created, "Idempotent: a key created a second session"
            assert again.session == made.session, f"Idempotent: {again.session} is another one"
        self._follow(ModelSession(made.session.session_id, display_name="new"))

    def _follow(self, model: ModelSession) -> None:
        self.followers.append(Follower(self.stage, model))

    @precondition(lambda machine: machine.followers and len(machine.followers) < _SESSIONS_MAX)
    @rule(place=PLACE)
    @kept
    def fork(self, place: int) -> None:
        """Fork a session after the last turn such that all up to it are closed."""
        follower = self._pick(place, hasty=False)
        model, closed = follower.model, follower.model.closed_turns()
        found = self.stage.ask(self.stage.session.ForkSession, sessions.ForkSessionRequest(session_id=model.session_id))
        self._told(f"fork {model.session_id} after {closed} turns -> {brief(found)}")
        if not self._check_refusal(found, None if closed else Refused("TURN_NOT_FOUND")):
            assert found.session.origin.index == closed - 1, f"a fork after turn {found.session.origin.index}"
            forked = ModelSession(found.session.session_id, display_name=found.session.display_name)
            forked.parents, forked.owners = model.parents[:closed], model.owners[:closed]
            self._follow(forked)

    @has_sessions
    @rule(place=PLACE, offset=st.integers(-1, 1), has_revision=st.booleans())
    @kept
    def update(self, place: int, offset: int, *, has_revision: bool) -> None:
        """Change a session, if it is at the revision that the client expects."""
        model = self.followers[place % len(self.followers)].model
        change = sessions.SessionUpdate(session_id=model.session_id, display_name=f"name {len(self.account.trace)}")
        request = sessions.UpdateSessionRequest(session=change, update_mask=FieldMask(paths=["display_name"]))
        if has_revision:
            request.revision = model.revision + offset
        found = self.stage.ask(self.stage.session.UpdateSession, request)
        self._told(f"update {model.session_id} at {request.revision if has_revision else 'any'} -> {brief(found)}")
        is_refused = has_revision and offset
        if not self._check_refusal(found, Refused("REVISION_MISMATCH") if is_refused else None):
            model.revision += 1
            model.display_name = change.display_name
            assert found.session.revision == model.revision, f"revision {found.session.revision}"

    @has_sessions
    @rule(place=PLACE, force=st.booleans(), is_meant=SELDOM)
    @kept
    def delete(self, place: int, *, force: bool, is_meant: bool) -> None:
        """Delete a session, but not so often that none lives for long; afterwards nothing of it is there."""
        if not is_meant:
            return
        follower = self._pick(place, hasty=False)
        model = follower.model
        request = sessions.DeleteSessionRequest(session_id=model.session_id, force=force)
        found = self.stage.ask(self.stage.session.DeleteSession, request)
        self._told(f"delete {model.session_id}, force {force} -> {brief(found)}")
        is_busy = model.line and not force
        busy = Refused("SESSION_BUSY", model.line[0].inference_id) if is_busy else None
        if self._check_refusal(found, busy):
            return
        self.followers.remove(follower)
        self.gone.append(follower)
        for inference in model.inferences:
            get = pb.GetInferenceRequest(inference_id=inference.inference_id)
            gone = self.stage.ask(self.stage.inference.GetInference, get)
            self._check_refusal(gone, Refused("INFERENCE_NOT_FOUND"))
        get_session = sessions.GetSessionRequest(session_id=model.session_id)
        self._check_refusal(self.stage.ask(self.stage.session.GetSession, get_session), Refused("SESSION_NOT_FOUND"))


def brief(found: Any) -> str:
    if isinstance(found, Refusal):
        return found.reason
    inference = getattr(found, "inference", None)
    return f"{inference.inference_id} in state {inference.state}" if inference else "done"
