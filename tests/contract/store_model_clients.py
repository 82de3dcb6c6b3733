"""The half of the model that clients see: sessions, starts, what they ask of an inference, and all reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from contract.store_model_state import (
    QUEUED,
    Entry,
    Minted,
    ModelInference,
    ModelSession,
    Told,
    cancel,
    complete,
    end,
    event,
    tell,
)
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    NoActiveInferenceError,
    RevisionMismatchError,
    SessionAlreadyExistsError,
    SessionBusyError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import Cancelled, InferenceQueued
from turnwire_server.domain.inference import ConflictPolicy, Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange
from turnwire_server.domain.turn import Turn, TurnView
from turnwire_server.stores.base import Base
from turnwire_server.stores.page import TurnPage
from turnwire_server.stores.start import Decide, Idempotency, SessionState, StartCommand, Started

# How long an idempotency key lives at least after its session is gone (contract: DeleteSession).
_KEYS_OUTLIVE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Made:
    """What the first call with an idempotency key made."""

    fingerprint: bytes
    session: ModelSession
    inference: ModelInference | None = None


class ClientModel:
    """What a store has, and what it answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.sessions: dict[tuple[str, str], ModelSession] = {}
        self.told: list[Told] = []
        self.tokens: set[str] = set()
        self.logs: list[Minted] = []
        self._made: dict[tuple[str, str, str], Made] = {}
        self._started = 0

    def session(self, principal: str, session_id: str) -> ModelSession:
        """Return a session. Errors: SessionNotFoundError."""
        if found := self.sessions.get((principal, session_id)):
            return found
        raise SessionNotFoundError(session_id=session_id)

    def inferences(self) -> list[ModelInference]:
        """Return all inferences, the oldest first."""
        found = [inference for session in self.sessions.values() for inference in session.inferences]
        return sorted(found, key=lambda each: each.key)

    def find(self, principal: str, inference_id: str) -> ModelInference | None:
        """Return an inference, None if there is none."""
        of_id = [each for each in self.inferences() if each.noun.inference_id == inference_id]
        return next((each for each in of_id if each.session.principal == principal), None)

    def inference(self, principal: str, inference_id: str) -> ModelInference:
        """Return an inference. Errors: InferenceNotFoundError."""
        if found := self.find(principal, inference_id):
            return found
        raise InferenceNotFoundError(inference_id=inference_id)

    def leased_to(self, owner: str) -> list[ModelInference]:
        """Return what runs under leases of an owner, the oldest first."""
        return [each for each in self.inferences() if each.owner == owner]

    def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore."""
        if made := self.pass_gate(principal, idempotency):
            return made.session.shown(), made.session.token == token
        if token in self.tokens:
            sent = self.session(principal, new.session_id)
            if sent.token != token:
                raise SessionNotFoundError(session_id=new.session_id)
            return sent.shown(), True
        if check:
            check()
        session = self._new_session(principal, new, token)
        self._keep(session, None, idempotency, token)
        return session.shown(), True

    def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None, token: str
    ) -> Session:
        """See SessionStore."""
        session = self.session(principal, session_id)
        if token not in self.tokens:
            _check_revision(session, revision)
            noun = session.noun
            session.noun = replace(
                noun,
                display_name=noun.display_name if change.display_name is None else change.display_name,
                labels=noun.labels if change.labels is None else change.labels,
                metadata=noun.metadata if change.metadata is None else change.metadata,
                profile=noun.profile if change.profile is None else change.profile,
                config=noun.config if change.config is None else change.config,
                update_time=self.now(),
                revision=noun.revision + 1,
            )
            self.tokens.add(token)
        return session.shown()

    def delete_session(
        self, principal: str, session_id: str, revision: int | None, *, force: bool, log: str = ""
    ) -> None:
        """See SessionStore."""
        session = self.session(principal, session_id)
        if log and session.noun.log != log:
            raise SessionNotFoundError(session_id=session_id)
        _check_revision(session, revision)
        line = session.line()
        if line and not force:
            raise SessionBusyError(session_id=session_id, inference_id=line[0].noun.inference_id)
        for inference in line:
            end(self.told, inference, Cancelled(), self.now())
        session.delete_time = self.now()
        del self.sessions[principal, session_id]
        self.told.append((principal, session_id, None))

    def compact(self, principal: str, session_id: str, base: Base) -> None:
        """See SessionStore."""
        session = self.session(principal, session_id)
        if base.through_sequence <= session.base.through_sequence:
            return
        firsts = [inference.shown().first_sequence for inference in session.line()]
        if base.through_sequence > len(session.log) or any(first <= base.through_sequence for first in firsts):
            raise ValueError
        session.base = base

    def _new_session(self, principal: str, new: NewSession, token: str) -> ModelSession:
        if (principal, new.session_id) in self.sessions:
            raise SessionAlreadyExistsError(session_id=new.session_id)
        now = self.now()
        self.logs.append(Minted(token))
        noun = Session(
            new.session_id,
            now,
            now,
            self.logs[-1],
            new.display_name,
            new.labels,
            new.metadata,
            new.profile,
            None if new.ttl is None else now + new.ttl,
            config=new.config,
        )
        return ModelSession(principal, noun, token, new.ttl)

    def pass_gate(self, principal: str, idempotency: Idempotency | None) -> Made | None:
        """Return what the first call with an idempotency key made, None if this is the first."""
        made = self._made.get((principal, idempotency.rpc, idempotency.key)) if idempotency else None
        if idempotency and made and made.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReusedError(rpc=idempotency.rpc)
        if made and made.session.delete_time:
            raise SessionNotFoundError(session_id=made.session.noun.session_id)
        return made

    def _keep(
        self, session: ModelSession, inference: ModelInference | None, idempotency: Idempotency | None, token: str
    ) -> None:
        self.tokens.add(token)
        self.sessions[session.principal, session.noun.session_id] = session
        if inference:
            session.inferences.append(inference)
        self.record(session, inference, idempotency)

    def record(self, session: ModelSession, inference: ModelInference | None, idempotency: Idempotency | None) -> None:
        """Record what the call with an idempotency key made."""
        if idempotency:
            made = Made(idempotency.fingerprint, session, inference)
            self._made[session.principal, idempotency.rpc, idempotency.key] = made

    def start(self, command: StartCommand, decide: Decide) -> Started:
        """See SessionStore."""
        name = command.target if isinstance(command.target, str) else command.target.session_id
        made = self.pass_gate(command.principal, command.idempotency)
        sent = made.inference if made else self.find(command.principal, command.inference_id)
        if sent:
            return Started(sent.shown(), created=sent.noun.inference_id == command.inference_id)
        if command.inference_id in self.tokens:
            raise SessionNotFoundError(session_id=name)
        if isinstance(command.target, str):
            session = self.session(command.principal, command.target)
        else:
            session = self._new_session(command.principal, command.target, "")
        inference, displaced = self._admit(session, command, decide)
        if displaced:
            cancel(self.told, displaced, "", self.now())
        self._keep(session, inference, command.idempotency, command.inference_id)
        position = inference.shown().queue_position or 0
        tell(self.told, inference, [event(inference, InferenceQueued(position), self.now())], QUEUED)
        inference.holds_through = inference.shown().last_sequence
        return Started(inference.shown(), created=True)

    def _admit(
        self, session: ModelSession, command: StartCommand, decide: Decide
    ) -> tuple[ModelInference, ModelInference | None]:
        line, now = session.line(), self.now()
        is_displacing = command.conflict_policy in (ConflictPolicy.INTERRUPT, ConflictPolicy.ROLLBACK)
        displaced = line[0] if is_displacing and line else None
        is_fixed, parent = command.parent is not None, command.parent
        if displaced and command.conflict_policy is ConflictPolicy.ROLLBACK and not is_fixed:
            is_fixed, parent = displaced.is_parent_fixed, displaced.parent
            if displaced.turn:
                is_fixed, parent = True, displaced.turn.noun.parent
        index = parent if is_fixed else len(session.turns) - 1
        turn = session.turns[index].shown() if index is not None and 0 <= index < len(session.turns) else None
        if is_fixed and index is not None and turn is None:
            raise TurnNotFoundError(session_id=session.noun.session_id, index=index)
        admission = decide(command, SessionState(session.shown(), session.unfinished(), turn))
        ranks = [each.rank for each in line] or [0]
        self._started += 1
        noun = Inference(
            session.noun.session_id,
            command.inference_id,
            QUEUED,
            now,
            admission.profile,
            admission.config,
            command.attempts_max,
            deadline_time=None if command.timeout is None else now + command.timeout,
        )
        return ModelInference(
            self._started,
            session,
            noun,
            command,
            admission.engine,
            min(ranks) - 1 if is_displacing else max(ranks) + 1,
            complete(command.input),
            is_fixed,
            parent,
        ), displaced

    def request_cancel(self, principal: str, inference_id: str, reason: str) -> Inference:
        """See SessionStore."""
        inference = self.inference(principal, inference_id)
        cancel(self.told, inference, reason, self.now())
        return inference.shown()

    def forget_keys(self, now: datetime) -> None:
        """Forget the idempotency keys whose session has been gone for long enough."""
        for key, made in list(self._made.items()):
            if made.session.delete_time and made.session.delete_time < now - _KEYS_OUTLIVE:
                del self._made[key]

    def get_session(self, principal: str, session_id: str) -> Session:
        """See SessionStore."""
        return self.session(principal, session_id).shown()

    def list_sessions(self, principal: str, labels: Mapping[str, str]) -> list[Session]:
        """See SessionStore."""
        found = [session for (owner, _), session in self.sessions.items() if owner == principal]
        return [each.shown() for each in reversed(found) if labels.items() <= each.noun.labels.items()]

    def get_first_in_line(self, principal: str, session_id: str) -> Inference:
        """See SessionStore."""
        line = self.session(principal, session_id).line()
        if not line:
            raise NoActiveInferenceError(session_id=session_id)
        return line[0].shown()

    def get_inference(self, principal: str, inference_id: str) -> Inference:
        """See SessionStore."""
        return self.inference(principal, inference_id).shown()

    def list_inferences(self, principal: str, session_id: str, states: Sequence[InferenceState]) -> list[Inference]:
        """See SessionStore."""
        shown = [inference.shown() for inference in reversed(self.session(principal, session_id).inferences)]
        return [inference for inference in shown if not states or inference.state in states]

    def read_base(self, principal: str, session_id: str) -> Base:
        """See SessionStore."""
        return self.session(principal, session_id).base

    def read_entries(self, principal: str, session_id: str, after: int, inference_id: str) -> list[Entry]:
        """Return what read_log returns in chunks."""
        session = self.session(principal, session_id)
        first = max(after, session.base.through_sequence)
        return [entry for entry in session.log[first:] if inference_id in ("", entry.inference_id)]

    def get_turn(
        self, principal: str, session_id: str, index: int | None, view: TurnView, offset: int, limit: int
    ) -> TurnPage:
        """See SessionStore."""
        turns = self.session(principal, session_id).turns
        wanted = len(turns) - 1 if index is None else index
        if not 0 <= wanted < len(turns):
            raise TurnNotFoundError(session_id=session_id, index=max(wanted, 0))
        blocks = turns[wanted].blocks(view)
        reached = min(offset + limit, len(blocks))
        return TurnPage(turns[wanted].shown(blocks[offset:reached]), reached if reached < len(blocks) else None)

    def list_turns(self, principal: str, session_id: str, view: TurnView) -> list[Turn]:
        """See SessionStore, the oldest first."""
        return [turn.shown(turn.blocks(view)) for turn in self.session(principal, session_id).turns]


def _check_revision(session: ModelSession, revision: int | None) -> None:
    if revision is not None and revision != session.noun.revision:
        raise RevisionMismatchError(session_id=session.noun.session_id, revision=session.noun.revision)
