"""A model of a SessionStore: pure, synchronous, and written to be obviously right.

It has the calls of the port, by the same names and with the same arguments; they return what a store should return, and
raise what it should raise. Listings are returned whole. `told` gathers what a store should publish.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from contract.store_model_state import (
    ENDED,
    QUEUED,
    RUNNING,
    ModelInference,
    begin,
    end,
    event,
    extend,
    tell,
)
from contract.store_model_waits import WaitModel
from turnwire_server.domain.errors import DeadlineExceededError
from turnwire_server.domain.event import Cancelled, Failed, InferenceAttemptLost
from turnwire_server.domain.inference import Inference
from turnwire_server.stores.base import OVERDUE_SECONDS
from turnwire_server.stores.lease import (
    Claim,
    DeclaredDead,
    Effect,
    Ending,
    Fenced,
    Heartbeat,
    Lease,
    Running,
    Step,
)
from turnwire_server.stores.start import Decide, Seat, StartCommand, Started


@dataclass(slots=True, eq=False)
class ModelOwner:
    """An owner. `beats` counts while it ran something, `idle_beats` while not: the port promises nothing for those."""

    beats: int = 0
    idle_beats: int = 0
    is_alive: bool = True


class Model(WaitModel):
    """What a store has, and what it answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(now)
        self.owners: dict[str, ModelOwner] = {}

    def register(self, owner: str) -> None:
        """See SessionStore."""
        self.owners.setdefault(owner, ModelOwner())

    def heartbeat(self, owner: str) -> Heartbeat:
        """See SessionStore. The beats are those of this model: a store may count otherwise."""
        self._check_alive(owner)
        mine = self.leased_to(owner)
        if mine:
            self.owners[owner].beats += 1
        else:
            self.owners[owner].idle_beats += 1
        busy = {each.owner for each in self.inferences() if each.owner} - {owner}
        return Heartbeat(
            tuple(
                Running(each.noun.inference_id, each.token, each.noun.cancel_requested_time is not None)
                for each in mine
            ),
            {other: self.owners[other].beats for other in busy},
        )

    def declare_dead(self, owner: str, beat: int) -> bool:
        """See SessionStore. `beat` is one of this model's, not of a store's."""
        known = self.owners.get(owner)
        if known and known.is_alive and known.beats == beat:
            known.is_alive = False
            self.revoke(owner, [each.token for each in self.leased_to(owner)])
        return not known or not known.is_alive

    def revoke(self, owner: str, tokens: Collection[str]) -> None:
        """See SessionStore."""
        for inference in self.leased_to(owner):
            if inference.token in tokens:
                inference.owner = inference.token = ""

    def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """See SessionStore."""
        self._check_alive(owner)
        sent = [each for each in self.leased_to(owner) if each.token in tokens]
        claims = [each.claimed() for each in sent]
        unused = [token for token in tokens if token not in {each.token for each in sent}]
        firsts = {id(line[0]) for session in self.sessions.values() if (line := session.line())}
        for inference in self.inferences():
            is_lost = inference.noun.state is RUNNING and not inference.owner
            is_next = inference.noun.state is QUEUED and id(inference) in firsts and not only_lost
            if unused and (is_lost or is_next):
                inference.owner, inference.token = owner, unused.pop(0)
                inference.is_lost, inference.is_handed_back = is_lost, False
                if is_next:
                    begin(self.told, inference, self.now())
                claims.append(inference.claimed())
        self.owners[owner].beats += len(claims) > len(sent)
        return tuple(claims)

    def start(self, command: StartCommand, decide: Decide, seat: Seat | None = None) -> Started:
        """See SessionStore."""
        session = self.sessions.get((command.principal, command.target)) if isinstance(command.target, str) else None
        is_first = session is None or not session.line()
        known = len(self.inferences())
        started = super().start(command, decide)
        if seat is None:
            return started
        inference = self.inference(command.principal, started.inference.inference_id)
        if is_first and len(self.inferences()) > known and self._is_alive(seat.owner):
            inference.owner, inference.token = seat.owner, seat.token
            begin(self.told, inference, self.now())
            self.owners[seat.owner].beats += 1
        is_seated = bool(inference.owner) and inference.token == seat.token
        return Started(inference.shown(), started.created, inference.claimed() if is_seated else None)

    def _check_alive(self, owner: str) -> None:
        if not self._is_alive(owner):
            raise DeclaredDead

    def _is_alive(self, owner: str) -> bool:
        return owner in self.owners and self.owners[owner].is_alive

    def append(self, lease: Lease, position: int, events: Sequence[bytes]) -> None:
        """See SessionStore."""
        inference = self._leased(lease)
        if inference.is_held_by(lease, position + len(events)):
            return
        if not inference.is_held_by(lease, position):
            raise Fenced
        _append(self, inference, events)

    def record_effects(
        self, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes] = ()
    ) -> None:
        """See SessionStore."""
        inference = self._leased(lease)
        if events and inference.is_held_by(lease, position + len(events)):
            return
        if not inference.is_held_by(lease, position):
            raise Fenced
        if any(effect.outcome is not None and effect.call not in inference.effects for effect in effects):
            raise LookupError
        for effect in effects:
            if inference.effects.get(effect.call) is None:
                inference.effects[effect.call] = effect.outcome
        _append(self, inference, events)

    def commit_step(self, lease: Lease, position: int, step: Step) -> Inference:
        """See SessionStore."""
        inference = self._leased(lease)
        if inference.was_held_by(lease, position + len(step.events)) and inference.step == step.number:
            return inference.shown()
        if not inference.is_held_by(lease, position) or inference.step + 1 != step.number:
            raise Fenced
        if step.then is not RUNNING and not step.events:
            raise ValueError
        inference.step, inference.checkpoint, inference.effects = step.number, step.checkpoint, {}
        extend(inference, step)
        inference.noun = replace(inference.noun, state=step.then)
        inference.wake_time = step.wake_time
        inference.position += len(step.events)
        tell(self.told, inference, step.events, None if step.then is RUNNING else step.then)
        inference.holds_through = inference.shown().last_sequence
        if step.then is not RUNNING:
            inference.owner = ""
            self._heed_cancel(inference)
        return inference.shown()

    def hand_back(self, lease: Lease, position: int, *, is_loss: bool) -> Inference:
        """See SessionStore."""
        inference = self._leased(lease)
        if inference.was_held_by(lease, position) and inference.is_handed_back:
            return inference.shown()
        if not inference.is_held_by(lease, position):
            raise Fenced
        lost = InferenceAttemptLost(inference.noun.attempt, inference.holds_through, handed_back=not is_loss)
        tell(self.told, inference, [event(inference, lost, self.now())], QUEUED)
        inference.noun = replace(inference.noun, state=QUEUED, attempt=inference.noun.attempt + is_loss)
        inference.holds_through = inference.shown().last_sequence
        inference.owner, inference.is_handed_back = "", True
        self._heed_cancel(inference)
        return inference.shown()

    def finish(self, lease: Lease, position: int, ending: Ending) -> Inference:
        """See SessionStore."""
        inference = self._leased(lease)
        was_sent = inference.noun.state in ENDED and not inference.is_handed_back
        if was_sent and inference.was_held_by(lease, position + len(ending.events)):
            return inference.shown()
        if not inference.is_held_by(lease, position):
            raise Fenced
        extend(inference, ending)
        inference.position += len(ending.events)
        end(self.told, inference, ending.outcome, self.now(), ending.events)
        return inference.shown()

    def sweep(self, now: datetime) -> None:
        """See SessionStore. It does all there is at once."""
        self.forget_keys(now)
        for inference in self.inferences():
            deadline = inference.noun.deadline_time
            if deadline is None or inference.noun.state in ENDED:
                continue
            if inference.noun.state is RUNNING:
                if deadline + timedelta(seconds=OVERDUE_SECONDS) <= now and not inference.is_lost:
                    inference.owner = inference.token = ""
            elif deadline <= now:
                timeout = f"{(deadline - inference.noun.create_time).total_seconds():g}s"
                end(self.told, inference, Failed(DeadlineExceededError(timeout=timeout).failure()), now)
        self.expire_sessions(now)

    def _heed_cancel(self, inference: ModelInference) -> None:
        """End what nobody runs any more, if that was requested."""
        if inference.noun.cancel_requested_time:
            end(self.told, inference, Cancelled(), self.now())

    def _leased(self, lease: Lease) -> ModelInference:
        inference = self.find(lease.principal, lease.inference_id)
        if inference is None or not inference.token or inference.token != lease.token:
            raise Fenced
        return inference


def _append(model: Model, inference: ModelInference, events: Sequence[bytes]) -> None:
    tell(model.told, inference, events, None)
    inference.position += len(events)
