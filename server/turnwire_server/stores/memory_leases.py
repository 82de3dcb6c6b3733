"""What a MemorySessionStore does for owners: each function is one transition under a lease, or of leases."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from turnwire_server.domain import lifecycle
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import OVERDUE_SECONDS
from turnwire_server.stores.intake import check_step, encode_map, inference_bytes
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
from turnwire_server.stores.memory_nouns import HeldInference
from turnwire_server.stores.memory_state import State, encoded_blocks


def heartbeat(state: State, owner: str) -> Heartbeat:
    """See SessionStore."""
    _check_lives(state, owner)
    owned = [held for held in state.running() if held.owner]
    if any(held.owner == owner for held in owned):
        state.beats[owner] += 1
    return Heartbeat(
        tuple(
            Running(held.inference.inference_id, held.lease, held.inference.cancel_requested_time is not None)
            for held in owned
            if held.owner == owner
        ),
        {held.owner: state.beats[held.owner] for held in owned if held.owner != owner},
    )


def declare_dead(state: State, owner: str, beat: int) -> bool:
    """See SessionStore."""
    if state.beats.get(owner, beat) != beat:
        return False
    state.beats.pop(owner, None)
    revoke(state, owner, [held.lease for held in state.running()])
    return True


def revoke(state: State, owner: str, tokens: Collection[str]) -> None:
    """See SessionStore."""
    for held in state.running():
        if held.owner == owner and held.lease in tokens:
            held.owner = held.lease = ""


def claim(state: State, owner: str, tokens: Sequence[str], *, only_lost: bool) -> tuple[Claim, ...]:
    """See SessionStore."""
    _check_lives(state, owner)
    sent = {held.lease: held for held in state.running() if held.owner == owner and held.lease in tokens}
    claims = [held.claim(is_lost=held.was_lost) for held in sorted(sent.values(), key=_key)]
    free = [token for token in tokens if token not in sent]
    for token, held in zip(free, _claimable(state, only_lost=only_lost), strict=False):
        grant_lease(state, held, owner, token)
        claims.append(held.claim(is_lost=held.was_lost))
    state.beats[owner] += len(claims) > len(sent)
    return tuple(claims)


def grant_lease(state: State, held: HeldInference, owner: str, token: str) -> None:
    """Give an inference to an owner; one that is not lost begins."""
    held.was_lost = held.inference.state is InferenceState.RUNNING
    if not held.was_lost:
        state.begin(held)
    held.owner, held.lease, held.is_handed_back = owner, token, False


def append(state: State, lease: Lease, position: int, events: Sequence[bytes]) -> None:
    """See SessionStore."""
    held = _leased(state, lease)
    if held.position == position + len(events):
        return  # it was sent before
    _check_position(held, position)
    _append(state, held, events)


def record_effects(
    state: State, lease: Lease, position: int, effects: Sequence[Effect], events: Sequence[bytes]
) -> None:
    """See SessionStore."""
    held = _leased(state, lease)
    if held.position == position + len(events) and events:
        return  # it was sent before
    _check_position(held, position)
    for effect in effects:
        if effect.outcome is not None and effect.call not in held.effects:
            raise LookupError(effect.call)
    for effect in effects:
        if held.effects.get(effect.call) is None:
            held.effects[effect.call] = effect.outcome
    _append(state, held, events)


def commit_step(state: State, lease: Lease, position: int, step: Step) -> HeldInference:
    """See SessionStore."""
    held = _held_under(state, lease)
    if held.step == step.number and held.position == position + len(step.events):
        return held  # it was sent before
    _check_runs(held)
    _check_position(held, position)
    if step.number != held.step + 1:
        raise Fenced
    check_step(step)
    committed = lifecycle.commit(held.inference, step.usage, step.model, step.then)
    blocks = encoded_blocks(step.blocks, state.mint)
    inference_bytes(committed)
    encode_map(step.data or {})
    held.inference = committed
    held.extend([*held.blocks, *blocks], step)
    held.step, held.checkpoint, held.wake_time = step.number, step.checkpoint, step.wake_time
    held.effects.clear()
    _append(state, held, step.events, None if step.then is InferenceState.RUNNING else step.then)
    held.holds_through = held.inference.last_sequence
    if step.then is not InferenceState.RUNNING:
        held.owner = ""
        _heed_cancel(state, held)
    return held


def hand_back(state: State, lease: Lease, position: int, *, is_loss: bool) -> HeldInference:
    """See SessionStore."""
    held = _held_under(state, lease)
    if held.is_handed_back and held.position == position:
        return held  # it was sent before
    _check_runs(held)
    _check_position(held, position)
    state.move(held, lifecycle.hand_back(held.inference, held.holds_through, state.now(), is_loss=is_loss))
    held.owner, held.is_handed_back = "", True
    _heed_cancel(state, held)
    return held


def finish(state: State, lease: Lease, position: int, ending: Ending) -> HeldInference:
    """See SessionStore."""
    held = _held_under(state, lease)
    if held.inference.state.is_terminal and not held.is_handed_back and held.position == position + len(ending.events):
        return held  # it was sent before
    _check_runs(held)
    _check_position(held, position)
    state.end(held, ending)
    return held


def sweep(state: State, now: datetime) -> bool:
    """See SessionStore."""
    state.forget_keys()
    for held in list(state.unfinished.values()):
        deadline = held.inference.deadline_time
        if deadline is None:
            continue
        if held.inference.state is not InferenceState.RUNNING:
            if deadline <= now:
                state.end(held, Ending(lifecycle.deadline_outcome(held.inference)))
        elif deadline + timedelta(seconds=OVERDUE_SECONDS) <= now and not held.was_lost:
            held.owner = held.lease = ""
    for session in list(state.sessions.values()):
        expire_time = session.session.expire_time
        if expire_time is not None and expire_time <= now and not session.line():
            state.drop(session)
    return False


def _heed_cancel(state: State, held: HeldInference) -> None:
    """End an inference that nobody runs any more, if that was requested."""
    if held.inference.cancel_requested_time is not None:
        state.end(held, Ending(Cancelled()))


def _check_lives(state: State, owner: str) -> None:
    if owner not in state.beats:
        raise DeclaredDead


def _claimable(state: State, *, only_lost: bool) -> Iterator[HeldInference]:
    sessions = {held.session.key: held.session for held in state.unfinished.values()}
    first = [session.line()[0] for session in sessions.values()]
    queued = [held for held in first if held.inference.state is InferenceState.QUEUED and not only_lost]
    lost = [held for held in state.running() if not held.owner]
    return iter(sorted([*queued, *lost], key=_key))


def _key(held: HeldInference) -> int:
    return held.key


def _held_under(state: State, lease: Lease) -> HeldInference:
    """Return the inference that was last leased under a token. Errors: Fenced."""
    held = state.inferences.get((lease.principal, lease.inference_id))
    if held is None or not lease.token or held.lease != lease.token:
        raise Fenced
    return held


def _leased(state: State, lease: Lease) -> HeldInference:
    held = _held_under(state, lease)
    _check_runs(held)
    return held


def _check_runs(held: HeldInference) -> None:
    if held.inference.state is not InferenceState.RUNNING:
        raise Fenced


def _check_position(held: HeldInference, position: int) -> None:
    if held.position != position:
        raise Fenced


def _append(state: State, held: HeldInference, events: Sequence[bytes], moved: InferenceState | None = None) -> None:
    if events:
        state.append(held, events, moved)
    held.position += len(events)
