"""The part of the model that knows sessions: how they begin, change and end, and what of their logs has become old."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile

from contract.store_model_state import Minted, ModelInference, ModelSession, ModelTurn, Told, end
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    RevisionMismatchError,
    SessionAlreadyExistsError,
    SessionBusyError,
    SessionNotFoundError,
    TurnNotClosedError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.session import NewSession, Session, SessionChange, SessionOrigin
from turnwire_server.domain.turn import TurnState
from turnwire_server.stores.base import Base, Retired
from turnwire_server.stores.start import Idempotency

# How long an idempotency key lives at least after its session is gone (contract: DeleteSession).
_KEYS_OUTLIVE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Made:
    """What the first call with an idempotency key made."""

    fingerprint: bytes
    session: ModelSession
    inference: ModelInference | None = None


class SessionModel:
    """The sessions that a store has, and what it answers about them."""

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

    def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore."""
        return self._create(principal, new, token, idempotency, check, list)

    def _create(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None,
        find_shared: Callable[[], list[ModelTurn]],
        origin: str = "",
    ) -> tuple[Session, bool]:
        """Create a session with the turns that it shares with its origin."""
        if made := self.pass_gate(principal, idempotency):
            return made.session.shown(), made.session.token == token
        if token in self.tokens:
            sent = self.session(principal, new.session_id)
            if sent.token != token:
                raise SessionNotFoundError(session_id=new.session_id)
            return sent.shown(), True
        if check:
            check()
        shared = find_shared()
        session = self.new_session(principal, new, token)
        if origin:
            session.turns.extend(shared)
            session.noun = replace(session.noun, origin=SessionOrigin(origin, len(shared) - 1))
        self.keep(session, None, idempotency, token)
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
        self.drop(session)

    def drop(self, session: ModelSession) -> None:
        """Delete a session in which nothing is unfinished."""
        session.delete_time = self.now()
        name = session.principal, session.noun.session_id
        del self.sessions[name]
        self.told.append((*name, None))

    def compact(self, principal: str, session_id: str, base: Base) -> None:
        """See SessionStore."""
        session = self.session(principal, session_id)
        if base.through_sequence <= session.base.through_sequence:
            return
        firsts = [inference.shown().first_sequence for inference in session.line()]
        if base.through_sequence > len(session.log) or any(first <= base.through_sequence for first in firsts):
            raise ValueError
        session.base = base

    def new_session(self, principal: str, new: NewSession, token: str) -> ModelSession:
        """Return a new session that is not kept yet. Errors: SessionAlreadyExistsError."""
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
        """Return what the first call with a key made, None if this is the first, or if there is no key."""
        made = self._made.get((principal, idempotency.rpc, idempotency.key)) if idempotency else None
        if idempotency and made and made.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReusedError(rpc=idempotency.rpc)
        if made and made.session.delete_time:
            raise SessionNotFoundError(session_id=made.session.noun.session_id)
        return made

    def keep(
        self, session: ModelSession, inference: ModelInference | None, idempotency: Idempotency | None, token: str
    ) -> None:
        """Keep what was made, and under which key."""
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

    def read_base(self, principal: str, session_id: str) -> Base:
        """See SessionStore."""
        return self.session(principal, session_id).base

    def fork_session(
        self,
        principal: str,
        session_id: str,
        index: int | None,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """See SessionStore."""

        def find_shared() -> list[ModelTurn]:
            turns = self.session(principal, session_id).turns
            closed = list(takewhile(lambda turn: turn.noun.state is TurnState.CLOSED, turns))
            if index is None and not closed:
                raise TurnNotFoundError(session_id=session_id, index=0)
            if index is not None and index >= len(turns):
                raise TurnNotFoundError(session_id=session_id, index=index)
            if index is not None and index >= len(closed):
                raise TurnNotClosedError(session_id=session_id, index=len(closed))
            return closed if index is None else closed[: index + 1]

        return self._create(principal, new, token, idempotency, check, find_shared, session_id)

    def expire_sessions(self, now: datetime) -> None:
        """Delete the sessions whose time has come and in which nothing is unfinished."""
        for session in list(self.sessions.values()):
            expire_time = session.noun.expire_time
            if expire_time is not None and expire_time <= now and not session.line():
                self.drop(session)

    def find_retired(self, ended_before: datetime) -> set[Retired]:
        """See SessionStore. It returns all there are."""
        found: set[Retired] = set()
        for session in self.sessions.values():
            base = session.base.through_sequence
            old = {
                inference.noun.inference_id
                for inference in session.inferences
                if inference.noun.end_time and inference.noun.end_time < ended_before
            }
            young = {entry.inference_id for entry in session.log[base:]} - old
            firsts = [entry.sequence for entry in session.log if entry.inference_id in young]
            through = min([len(session.log) + 1, *firsts]) - 1
            if through > base:
                found.add(Retired(session.principal, session.noun.session_id, through))
        return found


def _check_revision(session: ModelSession, revision: int | None) -> None:
    if revision is not None and revision != session.noun.revision:
        raise RevisionMismatchError(session_id=session.noun.session_id, revision=session.noun.revision)
