"""The half of the model that clients see: sessions, starts, what they ask of an inference, and all reads."""

from collections.abc import Sequence

from contract.store_model_sessions import SessionModel
from contract.store_model_state import (
    QUEUED,
    Entry,
    ModelInference,
    ModelSession,
    cancel,
    complete,
    event,
    tell,
)
from turnwire_server.domain.errors import (
    InferenceNotFoundError,
    NoActiveInferenceError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import InferenceQueued
from turnwire_server.domain.inference import ConflictPolicy, Inference, InferenceState
from turnwire_server.domain.turn import Turn, TurnView
from turnwire_server.stores.page import TurnPage
from turnwire_server.stores.start import Decide, SessionState, StartCommand, Started


class ClientModel(SessionModel):
    """What a store has, and what it answers about inferences and turns."""

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
            session = self.new_session(command.principal, command.target, "")
        inference, displaced = self._admit(session, command, decide)
        if displaced:
            cancel(self.told, displaced, "", self.now())
        self.keep(session, inference, command.idempotency, command.inference_id)
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
        turn = session.show(session.turns[index]) if index is not None and 0 <= index < len(session.turns) else None
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

    def read_entries(self, principal: str, session_id: str, after: int, inference_id: str) -> list[Entry]:
        """Return what read_log returns in chunks."""
        session = self.session(principal, session_id)
        first = max(after, session.base.through_sequence)
        return [entry for entry in session.log[first:] if inference_id in ("", entry.inference_id)]

    def get_turn(
        self, principal: str, session_id: str, index: int | None, view: TurnView, offset: int, limit: int
    ) -> TurnPage:
        """See SessionStore."""
        session = self.session(principal, session_id)
        turns = session.turns
        wanted = len(turns) - 1 if index is None else index
        if not 0 <= wanted < len(turns):
            raise TurnNotFoundError(session_id=session_id, index=max(wanted, 0))
        blocks = turns[wanted].blocks(view)
        reached = min(offset + limit, len(blocks))
        return TurnPage(session.show(turns[wanted], blocks[offset:reached]), reached if reached < len(blocks) else None)

    def list_turns(self, principal: str, session_id: str, view: TurnView) -> list[Turn]:
        """See SessionStore, the oldest first."""
        session = self.session(principal, session_id)
        return [session.show(turn, turn.blocks(view)) for turn in session.turns]
