"""What a MemorySessionStore does with a start: it encodes first, so that it changes nothing if that fails."""

from collections.abc import Sequence
from dataclasses import replace

from turnwire_server.domain import lifecycle
from turnwire_server.domain.errors import SessionNotFoundError, TurnNotFoundError
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.intake import encode_map, inference_bytes, new_inference
from turnwire_server.stores.lease import Claim
from turnwire_server.stores.line import InLine, Parent, choose_parent, decide_rank, find_displaced
from turnwire_server.stores.memory_leases import grant_lease
from turnwire_server.stores.memory_nouns import HeldInference, HeldSession
from turnwire_server.stores.memory_state import State, encoded_blocks
from turnwire_server.stores.start import Admission, Decide, Seat, SessionState, StartCommand, Started
from turnwire_server.wire.inference import overrides_to_proto


def start(state: State, command: StartCommand, decide: Decide, seat: Seat | None) -> Started:
    """See SessionStore."""
    made = state.pass_gate(command.principal, command.idempotency)
    if made and made.inference:
        return _started(made.inference, command, seat)
    if state.has_used(command.inference_id):
        return _started(_sent(state, command), command, seat)
    if isinstance(command.target, str):
        session = state.session(command.principal, command.target)
    else:
        session = state.build_session(command.principal, command.target, state.mint())
    line = session.places()
    displaced = find_displaced(command.conflict_policy, line)
    parent = choose_parent(command, displaced)
    admission = decide(command, _read_state(session, line, parent))
    _check_encodable(command, admission)
    inference = HeldInference(
        key=state.next_key(),
        session=session,
        inference=new_inference(command, admission, session.session.session_id, state.now()),
        command=command,
        engine=admission.engine,
        parent=parent,
        rank=decide_rank(command.conflict_policy, line),
        blocks=list(encoded_blocks(command.input, state.mint)),
    )
    inference_bytes(inference.inference)
    if displaced:
        state.cancel(state.inference(command.principal, displaced.unfinished.inference_id), "")
    position = _queue_position(inference, session.places())
    state.move(inference, lifecycle.enqueue(inference.inference, position, inference.inference.create_time))
    state.keep(session, inference, command.idempotency)
    state.use(command.inference_id)
    if seat and not line and seat.owner in state.beats:
        grant_lease(state, inference, seat.owner, seat.token)
        state.beats[seat.owner] += 1
    return _started(inference, command, seat)


def _started(held: HeldInference, command: StartCommand, seat: Seat | None) -> Started:
    shown = held.shown()
    is_seated = seat is not None and held.lease == seat.token and shown.state is InferenceState.RUNNING
    is_ours = shown.inference_id == command.inference_id
    return Started(shown, created=is_ours, claim=_claim(held) if is_seated else None)


def _claim(held: HeldInference) -> Claim:
    turn = held.session.show(held.turn, held.turn.blocks(TurnView.FULL)) if held.turn else None
    is_off = held.session.session.step_mode is None
    return replace(held.claim(is_lost=held.was_lost), turn=turn, is_step_mode_off=is_off)


def _sent(state: State, command: StartCommand) -> HeldInference:
    """Return what a start made that is sent again. Errors: SessionNotFoundError, if it is gone."""
    held = state.inferences.get((command.principal, command.inference_id))
    if held is None:
        name = command.target if isinstance(command.target, str) else command.target.session_id
        raise SessionNotFoundError(session_id=name)
    return held


def _read_state(session: HeldSession, line: Sequence[InLine], parent: Parent) -> SessionState:
    index = parent.index if parent.is_fixed else len(session.turns) - 1
    turn = session.turns[index] if index is not None and index in range(len(session.turns)) else None
    if parent.is_fixed and index is not None and turn is None:
        raise TurnNotFoundError(session_id=session.session.session_id, index=index)
    shown = session.show(turn) if turn else None
    return SessionState(session.shown(), tuple(place.unfinished for place in line), shown)


def _check_encodable(command: StartCommand, admission: Admission) -> None:
    """Raise what a store raises that writes a start to a file."""
    admission.engine.encode()
    overrides_to_proto(command.overrides)
    encode_map(command.metadata)
    encode_map(command.data)


def _queue_position(inference: HeldInference, line: Sequence[InLine]) -> int:
    before = [place for place in line if place.unfinished.is_active or place.rank < inference.rank]
    return 1 + sum(place.unfinished.state is InferenceState.QUEUED for place in before)
