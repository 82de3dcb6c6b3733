"""How sessions of a MemorySessionStore begin, and what time may take of their logs."""

from collections.abc import Callable
from datetime import datetime
from itertools import islice

from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.session import NewSession, Session, SessionOrigin
from turnwire_server.stores.base import Retired
from turnwire_server.stores.intake import choose_fork_index
from turnwire_server.stores.memory_nouns import HeldSession
from turnwire_server.stores.memory_state import State
from turnwire_server.stores.start import Idempotency


def create_session(
    state: State,
    principal: str,
    new: NewSession,
    token: str,
    idempotency: Idempotency | None,
    check: Callable[[], object] | None,
) -> tuple[Session, bool]:
    """See SessionStore."""
    if sent := _find_sent(state, principal, new, token, idempotency):
        return sent
    if check:
        check()
    return _keep(state, state.build_session(principal, new, token), token, idempotency)


def fork_session(
    state: State,
    principal: str,
    session_id: str,
    index: int | None,
    new: NewSession,
    token: str,
    idempotency: Idempotency | None,
    check: Callable[[], object] | None,
) -> tuple[Session, bool]:
    """See SessionStore."""
    if sent := _find_sent(state, principal, new, token, idempotency):
        return sent
    if check:
        check()
    origin = state.session(principal, session_id)
    chosen = choose_fork_index(session_id, index, len(origin.turns), origin.first_open())
    held = state.build_session(principal, new, token, SessionOrigin(session_id, chosen))
    held.turns.extend(origin.turns[: chosen + 1])
    return _keep(state, held, token, idempotency)


def find_retired(state: State, ended_before: datetime, limit: int, skip: int) -> tuple[Retired, ...]:
    """See SessionStore."""
    found = (
        Retired(held.principal, held.session.session_id, through)
        for held in state.sessions.values()
        if (through := held.retired_through(ended_before)) > held.base.through_sequence
    )
    return tuple(islice(found, skip, skip + limit))


def _find_sent(
    state: State, principal: str, new: NewSession, token: str, idempotency: Idempotency | None
) -> tuple[Session, bool] | None:
    """Return what the call made when it was sent before, None if it was not."""
    log = state.log_of(token)
    if made := state.pass_gate(principal, idempotency):
        return made.session.shown(), made.session.session.log == log
    if not state.has_used(token):
        return None
    sent = state.session(principal, new.session_id)
    if sent.session.log != log:  # it was deleted, and another one has its name
        raise SessionNotFoundError(session_id=new.session_id)
    return sent.shown(), True


def _keep(state: State, held: HeldSession, token: str, idempotency: Idempotency | None) -> tuple[Session, bool]:
    state.keep(held, None, idempotency)
    state.use(token)
    return held.shown(), True
