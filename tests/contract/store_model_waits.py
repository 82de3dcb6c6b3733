"""The part of the model that is about inferences which wait for their client, step mode, and snapshots of turns."""

from dataclasses import replace
from datetime import datetime

from contract.store_model_clients import ClientModel
from contract.store_model_state import PAUSED, QUEUED, WAITING_FOR_TOOLS, ModelTurn, complete, end, event, tell
from turnwire_server.domain.errors import InferenceNotWaitingError
from turnwire_server.domain.event import InferenceQueued
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import Session, StepMode
from turnwire_server.domain.turn import SnapshotMark, SnapshotPhase, TurnSnapshot
from turnwire_server.stores.base import Amend, Due, Waiting
from turnwire_server.stores.start import Idempotency


class WaitModel(ClientModel):
    """What a store has, and what it answers."""

    def set_step_mode(self, principal: str, session_id: str, step_mode: StepMode | None, token: str) -> Session:
        """See SessionStore."""
        session = self.session(principal, session_id)
        if token not in self.tokens:
            session.noun = replace(session.noun, step_mode=step_mode)
            self.tokens.add(token)
        return session.shown()

    def amend(
        self,
        principal: str,
        inference_id: str,
        token: str,
        decide: Amend,
        idempotency: Idempotency | None = None,
    ) -> Inference:
        """See SessionStore."""
        inference = self.inference(principal, inference_id)
        if self.pass_gate(principal, idempotency) or token in self.tokens:
            return inference.shown()
        state = inference.noun.state
        if state not in (WAITING_FOR_TOOLS, PAUSED):
            raise InferenceNotWaitingError(inference_id=inference_id, state=state.name)
        amendment = decide(inference.waiting())
        self.tokens.add(token)
        self.record(inference.session, inference, idempotency)
        inference.checkpoint = amendment.checkpoint
        inference.blocks += complete(amendment.blocks)
        bodies = list(amendment.events)
        if amendment.outcome:
            end(self.told, inference, amendment.outcome, self.now(), bodies)
        elif amendment.is_released:
            inference.noun = replace(inference.noun, state=QUEUED)
            tell(self.told, inference, [*bodies, event(inference, InferenceQueued(1), self.now())], QUEUED)
        else:
            tell(self.told, inference, bodies, None)
        inference.holds_through = inference.shown().last_sequence
        return inference.shown()

    def list_waiting(self, principal: str, session_id: str, state: InferenceState) -> list[Waiting]:
        """See SessionStore."""
        among = self.session(principal, session_id).inferences if session_id else self.inferences()
        mine = [each for each in among if each.session.principal == principal]
        return [each.waiting() for each in mine if each.noun.state is state]

    def find_due(self, now: datetime, limit: int) -> tuple[Due, ...]:
        """See SessionStore."""
        waiting = [each for each in self.inferences() if each.noun.state in (WAITING_FOR_TOOLS, PAUSED)]
        due = [(each.wake_time, each.key, each) for each in waiting if each.wake_time and each.wake_time <= now]
        return tuple(Due(each.session.principal, each.noun.inference_id) for *_, each in sorted(due)[:limit])

    def list_turn_snapshots(self, principal: str, inference_id: str, phase: SnapshotPhase | None) -> list[TurnSnapshot]:
        """See SessionStore."""
        inference = self.inference(principal, inference_id)
        marks = [mark for mark in inference.marks if phase is None or mark.phase is phase]
        return [_snapshot(inference.turn, mark) for mark in marks if inference.turn]


def _snapshot(turn: ModelTurn, mark: SnapshotMark) -> TurnSnapshot:
    own = turn.inference.blocks[: mark.block_count - turn.noun.inherited_block_count]
    return TurnSnapshot(mark, replace(turn.noun, blocks=tuple(own), block_count=mark.block_count))
