"""What a MemorySessionStore holds, and how it changes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    SessionAlreadyExistsError,
    SessionNotFoundError,
)
from turnwire_server.domain.event import Cancelled, TurnOpened
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession, SessionOrigin
from turnwire_server.domain.turn import Block, SnapshotMark, SnapshotPhase, Turn, TurnState, TurnView, inherit_data
from turnwire_server.stores.base import TOKEN_AGE_MIN, Commit
from turnwire_server.stores.intake import (
    IDEMPOTENCY_KEY_ORPHAN_AGE_MIN,
    block_content,
    complete_blocks,
    encode_map,
    inference_bytes,
    new_session,
    session_bytes,
    turn_metadata,
)
from turnwire_server.stores.lease import Ending
from turnwire_server.stores.memory_nouns import HeldInference, HeldSession, HeldTurn, Made
from turnwire_server.stores.sequence import join_chunks, stamp
from turnwire_server.stores.start import Idempotency
from turnwire_server.wire.event import encode_event


class State:
    """Everything that the store has, and how it changes. What is committed by one call gathers in `commits`.

    What changes something encodes it first, as stores do that write it to a file: so it changes nothing if that fails.
    """

    def __init__(self, now: Callable[[], datetime], mint: Mint) -> None:
        self.now = now
        self.mint = mint
        self.commits: list[Commit] = []
        self.beats: dict[str, int] = {}
        self.sessions: dict[tuple[str, str], HeldSession] = {}
        self.inferences: dict[tuple[str, str], HeldInference] = {}
        self.unfinished: dict[int, HeldInference] = {}  # those of them that have not ended, by key: the oldest first
        self._made: dict[tuple[str, str, str], Made] = {}
        self._tokens: dict[str, datetime] = {}
        self._incarnation = mint()
        self._last_key = 0

    def next_key(self) -> int:
        """Return a number that rises with every call."""
        self._last_key += 1
        return self._last_key

    def session(self, principal: str, session_id: str) -> HeldSession:
        """Return a session. Errors: SessionNotFoundError."""
        held = self.sessions.get((principal, session_id))
        if held is None:
            raise SessionNotFoundError(session_id=session_id)
        return held

    def inference(self, principal: str, inference_id: str) -> HeldInference:
        """Return an inference. Errors: InferenceNotFoundError."""
        held = self.inferences.get((principal, inference_id))
        if held is None:
            raise InferenceNotFoundError(inference_id=inference_id)
        return held

    def running(self) -> list[HeldInference]:
        """Return the inferences that run, the oldest first."""
        return [held for held in self.unfinished.values() if held.inference.state is InferenceState.RUNNING]

    def pass_gate(self, principal: str, idempotency: Idempotency | None) -> Made | None:
        """Return what the first call with an idempotency key made, None if this is the first.

        Errors: IdempotencyKeyReusedError; SessionNotFoundError, if what it made is gone.
        """
        made = self._made.get((principal, idempotency.rpc, idempotency.key)) if idempotency else None
        if idempotency and made and made.fingerprint != idempotency.fingerprint:
            raise IdempotencyKeyReusedError(rpc=idempotency.rpc)
        if made and made.session.delete_time:
            raise SessionNotFoundError(session_id=made.session.session.session_id)
        return made

    def has_used(self, token: str) -> bool:
        """Whether the call with this token has happened already."""
        return token in self._tokens

    def use(self, token: str) -> None:
        """Remember the token of a call that happens."""
        self._tokens[token] = self.now()

    def forget_keys(self) -> None:
        """Forget the idempotency keys whose session has been gone for long enough, and old tokens."""
        self._tokens = {token: used for token, used in self._tokens.items() if used >= self.now() - TOKEN_AGE_MIN}
        oldest = self.now() - IDEMPOTENCY_KEY_ORPHAN_AGE_MIN
        for key, made in list(self._made.items()):
            if made.session.delete_time and made.session.delete_time < oldest:
                del self._made[key]

    def log_of(self, token: str) -> str:
        """Return the log token of the session that was created with a token."""
        return f"{token}.{self._incarnation}"

    def build_session(
        self, principal: str, new: NewSession, token: str, origin: SessionOrigin | None = None
    ) -> HeldSession:
        """Return a new session that is not kept yet. Errors: SessionAlreadyExistsError."""
        session = new_session(new, self.log_of(token), self.mint, self.now(), origin)
        if (principal, session.session_id) in self.sessions:
            raise SessionAlreadyExistsError(session_id=session.session_id)
        session_bytes(session)
        return HeldSession(self.next_key(), principal, session, new.ttl)

    def keep(self, session: HeldSession, inference: HeldInference | None, idempotency: Idempotency | None) -> None:
        """Keep what was made, and under which key."""
        self.sessions[session.principal, session.session.session_id] = session
        if inference:
            session.inferences.append(inference)
            self.inferences[session.principal, inference.inference.inference_id] = inference
            self.unfinished[inference.key] = inference
        if idempotency:
            self.record(idempotency, session, inference)

    def record(self, idempotency: Idempotency, session: HeldSession, inference: HeldInference | None) -> None:
        """Record what the call with an idempotency key made."""
        made = Made(idempotency.fingerprint, session, inference)
        self._made[session.principal, idempotency.rpc, idempotency.key] = made

    def drop(self, session: HeldSession) -> None:
        """Cancel what has not ended of a session, then forget it and all that belongs to it."""
        for held in session.line():
            self.cancel(held, "")
            if not held.inference.state.is_terminal:
                self.end(held, Ending(Cancelled()))
        session.delete_time = self.now()
        del self.sessions[session.principal, session.session.session_id]
        for held in session.inferences:
            del self.inferences[session.principal, held.inference.inference_id]
        name = session.principal, session.session.session_id
        own = [commit for commit in self.commits if (commit.principal, commit.session_id) == name]
        self.commits = [commit for commit in self.commits if commit not in own]
        self.commits.append(Commit(*name, tuple(chunk for commit in own for chunk in commit.chunks), is_deleted=True))

    def build_turn(self, held: HeldInference) -> HeldTurn:
        """Return the turn of an inference that runs for the first time, not kept yet."""
        turns = held.session.turns
        index = len(turns) - 1 if turns else None
        parent_index = held.parent.index if held.parent.is_fixed else index
        parent = None if parent_index is None else turns[parent_index]
        session_id, inference_id = held.inference.session_id, held.inference.inference_id
        inherited = len(parent.blocks(TurnView.FULL)) if parent else 0
        turn = Turn(
            session_id=session_id,
            inference_id=inference_id,
            index=len(turns),
            id=self.mint(),
            state=TurnState.OPEN,
            create_time=self.now(),
            parent=parent_index,
            metadata=turn_metadata(held.command.metadata, session_id, inference_id),
            data=inherit_data(parent.turn.data if parent else {}, held.command.data),
            inherited_block_count=inherited,
            given_block_count=inherited + len(held.blocks),
        )
        return HeldTurn(turn, parent, held)

    def begin(self, held: HeldInference) -> None:
        """Begin an attempt, and open the turn on the first one."""
        turn = None if held.turn else self.build_turn(held)
        opened = TurnOpened(turn.turn.index, turn.shown().block_count, turn.turn.parent) if turn else None
        self.move(held, lifecycle.begin(held.inference, held.engine, opened, self.now()))
        if turn:
            held.turn = turn
            held.session.turns.append(turn)

    def append(self, held: HeldInference, bodies: Sequence[bytes], state: InferenceState | None = None) -> None:
        """Append encoded events of an inference to its session's log."""
        session, inference = held.session, held.inference
        chunks = join_chunks([stamp(inference.inference_id, state, bodies, session.head)])
        first = inference.first_sequence or session.head + 1
        session.chunks.extend(chunks)
        session.head += len(bodies)
        held.inference = replace(inference, first_sequence=first, last_sequence=session.head)
        held.event_count += len(bodies)
        self.commits.append(Commit(session.principal, session.session.session_id, tuple(chunks)))

    def move(self, held: HeldInference, move: lifecycle.Transition, before: Sequence[bytes] = ()) -> None:
        """Take an inference through a transition; its events come after those that were still to be appended."""
        inference_bytes(move.inference)
        bodies = [*before, *map(encode_event, move.events)]
        held.inference = move.inference
        self.append(held, bodies, move.inference.state)
        held.holds_through = held.inference.last_sequence

    def cancel(self, held: HeldInference, reason: str) -> None:
        """Note that a cancel is requested; what nobody runs ends at once."""
        requested = lifecycle.request_cancel(held.inference, reason, self.now())
        inference_bytes(requested)
        held.inference = requested
        if not requested.state.is_terminal and (requested.state is not InferenceState.RUNNING):
            self.end(held, Ending(Cancelled()))

    def end(self, held: HeldInference, ending: Ending, before: Sequence[bytes] = ()) -> None:
        """End an inference and close its turn; its input goes with it if it has none.

        `before`: events to append first that do not count in its position.
        """
        now = self.now()
        encode_map(ending.data or {})
        blocks = [*held.blocks, *encoded_blocks(ending.blocks, self.mint)]
        block_count = held.turn.turn.inherited_block_count + len(blocks) if held.turn else 0
        ended = lifecycle.end(
            held.inference,
            ending.outcome,
            ending.usage,
            now,
            event_count=held.event_count + len(before) + len(ending.events),
            block_count=block_count,
            model=ending.model,
        )
        self.move(held, ended, (*before, *ending.events))
        del self.unfinished[held.key]
        held.position += len(ending.events)
        held.extend(blocks, ending)
        if held.marks:
            held.marks.append(SnapshotMark(SnapshotPhase.FINAL, held.marks[-1].iteration, block_count, now))
        held.effects.clear()
        if held.turn:
            held.turn.turn = replace(held.turn.turn, state=TurnState.CLOSED, close_time=now)
        session = held.session
        if session.ttl is not None:
            session.session = replace(session.session, expire_time=now + session.ttl)


def encoded_blocks(blocks: Iterable[Block], mint: Mint) -> tuple[Block, ...]:
    """Return complete blocks, all of which can be encoded. Errors: UnicodeEncodeError."""
    complete = complete_blocks(blocks, mint)
    for block in complete:
        block_content(block)
    return complete
