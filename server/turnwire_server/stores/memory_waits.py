"""What a MemorySessionStore does with inferences that wait for their client."""

from collections.abc import Iterable
from datetime import datetime

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import InferenceNotWaitingError
from turnwire_server.domain.inference import WAITING_STATES, InferenceState
from turnwire_server.stores.base import Amend, Amendment, Due, Waiting
from turnwire_server.stores.intake import waiting_bytes
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.memory_nouns import HeldInference
from turnwire_server.stores.memory_state import State, encoded_blocks
from turnwire_server.stores.page import Page, take_listing
from turnwire_server.stores.start import Idempotency


def amend(
    state: State,
    principal: str,
    inference_id: str,
    token: str,
    decide: Amend,
    idempotency: Idempotency | None,
) -> HeldInference:
    """See SessionStore."""
    held = state.inference(principal, inference_id)
    if state.pass_gate(principal, idempotency) or state.has_used(token):
        return held
    if held.inference.state not in WAITING_STATES:
        raise InferenceNotWaitingError(inference_id=inference_id, state=held.inference.state.name)
    amendment = decide(held.waiting())
    _apply(state, held, amendment)
    state.use(token)
    if idempotency:
        state.record(idempotency, held.session, held)
    return held


def _apply(state: State, held: HeldInference, amendment: Amendment) -> None:
    if amendment.outcome:
        state.end(held, Ending(amendment.outcome, blocks=amendment.blocks), amendment.events)
        return
    blocks = encoded_blocks(amendment.blocks, state.mint)
    if amendment.is_released:
        state.move(held, lifecycle.release(held.inference, state.now()), amendment.events)
    elif amendment.events:
        state.append(held, amendment.events)
    held.blocks = [*held.blocks, *blocks]
    held.checkpoint = amendment.checkpoint
    held.holds_through = held.inference.last_sequence


def list_waiting(
    state: State, principal: str, session_id: str, waits: InferenceState, limit: int, after: int | None
) -> Page[Waiting]:
    """See SessionStore."""
    among: Iterable[HeldInference] = state.unfinished.values()
    if session_id:
        among = state.session(principal, session_id).inferences
    waiting = {
        held.key: held.waiting()
        for held in among
        if held.session.principal == principal and held.inference.state is waits
    }
    return take_listing(
        ((key, waiting[key]) for key in sorted(waiting) if after is None or key > after), limit, waiting_bytes
    )


def find_due(state: State, now: datetime, limit: int) -> tuple[Due, ...]:
    """See SessionStore."""
    due = [
        (held.wake_time, held.key, held)
        for held in state.unfinished.values()
        if held.wake_time and held.wake_time <= now and held.inference.state in WAITING_STATES
    ]
    return tuple(Due(held.session.principal, held.inference.inference_id) for *_, held in sorted(due)[:limit])
