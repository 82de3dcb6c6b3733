"""What the model of a SessionStore knows: plain records, and the few moves that every call of it is made of.

It shares nothing with the stores but the nouns. It has no speed to lose: what a store keeps, this works out again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from turnwire_server.domain.event import (
    Cancelled,
    Event,
    Failed,
    InferenceFinished,
    InferenceStarted,
    Outcome,
    Payload,
    Succeeded,
    TurnClosed,
    TurnOpened,
)
from turnwire_server.domain.inference import FinishClass, Inference, InferenceState, Usage
from turnwire_server.domain.session import InferenceRef, Session
from turnwire_server.domain.turn import (
    PER_TURN_DATA,
    ROLES,
    Block,
    SnapshotMark,
    SnapshotPhase,
    Turn,
    TurnState,
    TurnView,
)
from turnwire_server.stores.base import Base, Waiting
from turnwire_server.stores.lease import Claim, Effect, Ending, Lease, Step
from turnwire_server.stores.start import StartCommand, Unfinished

QUEUED, RUNNING, WAITING_FOR_TOOLS, PAUSED, SUCCEEDED, FAILED, CANCELLED = InferenceState
ENDED = (SUCCEEDED, FAILED, CANCELLED)


class Minted(str):
    """An id that the store mints. It is what it is compared with first, and from then on nothing else.

    Its own text is a part that the id must have.
    """

    __slots__ = ("bound",)

    def __init__(self, _: str = "") -> None:
        self.bound = ""

    def __eq__(self, other: object) -> bool:
        if not self.bound and isinstance(other, str) and str(self) in other:
            self.bound = other
        return bool(self.bound) and self.bound == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        msg = "an id that is not known yet cannot be a key"
        raise TypeError(msg)

    def __repr__(self) -> str:
        return f"minted({self.bound or '?'})"


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a log: what it tells, or the bytes that a caller gave. `state`: where it moved its inference."""

    sequence: int
    inference_id: str
    body: Event | bytes
    state: InferenceState | None


@dataclass(slots=True, eq=False)
class ModelSession:
    """A session, and everything that belongs to it; the first turns of a fork belong to another one."""

    principal: str
    noun: Session
    token: str
    ttl: timedelta | None
    log: list[Entry] = field(default_factory=list[Entry])
    base: Base = Base()
    inferences: list["ModelInference"] = field(default_factory=list["ModelInference"])
    turns: list["ModelTurn"] = field(default_factory=list["ModelTurn"])
    delete_time: datetime | None = None

    def show(self, turn: "ModelTurn", blocks: Iterable[Block] = ()) -> Turn:
        """Return a turn as one of this session, with these of its blocks."""
        session_id = self.noun.session_id
        metadata = {**turn.noun.metadata, "geppetto.session_id@v1": json.dumps(session_id)}
        return replace(turn.shown(blocks), session_id=session_id, metadata=metadata)

    def line(self) -> list["ModelInference"]:
        """Return the unfinished inferences: the active one, then the others by rank."""
        unfinished = [each for each in self.inferences if each.noun.state not in ENDED]
        return sorted(unfinished, key=lambda each: (each.noun.start_time is None, each.rank))

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return the line as a decision sees it."""
        return tuple(
            Unfinished(each.noun.inference_id, each.noun.state, each.noun.start_time is not None)
            for each in self.line()
        )

    def shown(self) -> Session:
        """Return the session as it is now."""
        line = self.line()
        active = [each.noun for each in line if each.noun.start_time is not None]
        assert len(active) <= 1
        return replace(
            self.noun,
            head_sequence=len(self.log),
            turn_count=len(self.turns),
            active=InferenceRef(active[0].session_id, active[0].inference_id) if active else None,
            queued_count=len(line) - len(active),
        )


@dataclass(slots=True, eq=False)
class ModelTurn:
    """A turn. `noun` has no blocks: those are its parent's, and those of its inference."""

    noun: Turn
    parent: "ModelTurn | None"
    inference: "ModelInference"

    def blocks(self, view: TurnView) -> list[Block]:
        """Return the blocks that a view has."""
        if view is TurnView.BASIC:
            return []
        inherited = self.parent.blocks(view) if self.parent and view is TurnView.FULL else []
        return inherited + self.inference.blocks

    def shown(self, blocks: Iterable[Block] = ()) -> Turn:
        """Return the turn as it is now, with these of its blocks."""
        return replace(self.noun, blocks=tuple(blocks), block_count=len(self.blocks(TurnView.FULL)))


@dataclass(slots=True, eq=False)
class ModelInference:
    """An inference. `owner` is who has the lease over it, if anyone; `token` names the lease, also when it is over.

    `is_lost`: that lease was given over an attempt that was under way; `is_handed_back`: it ended with hand_back.
    """

    key: int
    session: ModelSession
    noun: Inference
    command: StartCommand
    engine: str
    rank: int
    blocks: list[Block]
    is_parent_fixed: bool = False
    parent: int | None = None
    turn: ModelTurn | None = None
    owner: str = ""
    token: str = ""
    is_lost: bool = False
    is_handed_back: bool = False
    position: int = 0
    step: int = 0
    holds_through: int = 0
    checkpoint: bytes = b""
    effects: dict[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    marks: list[SnapshotMark] = field(default_factory=list[SnapshotMark])
    wake_time: datetime | None = None

    def shown(self) -> Inference:
        """Return the inference as it is now."""
        queued = [each for each in self.session.line() if each.noun.state is QUEUED]
        own = [entry.sequence for entry in self.session.log if entry.inference_id == self.noun.inference_id]
        return replace(
            self.noun,
            queue_position=queued.index(self) + 1 if self in queued else None,
            first_sequence=own[0] if own else 0,
            last_sequence=own[-1] if own else 0,
        )

    def listed_effects(self) -> tuple[Effect, ...]:
        """Return the tool calls since the last step."""
        return tuple(Effect(call, outcome) for call, outcome in self.effects.items())

    def waiting(self) -> Waiting:
        """Return what an answer to it is decided on."""
        return Waiting(self.shown(), self.checkpoint)

    def claimed(self) -> Claim:
        """Return the inference with its lease."""
        return Claim(
            Lease(self.session.principal, self.noun.inference_id, self.token),
            self.shown(),
            self.engine,
            self.command.overrides,
            self.position,
            self.step,
            self.holds_through,
            self.checkpoint,
            self.listed_effects(),
            self.is_lost,
        )

    def is_held_by(self, lease: Lease, position: int) -> bool:
        """Return whether it may be written to under a lease from a position."""
        return (
            self.noun.state is RUNNING
            and bool(self.owner)
            and self.token == lease.token
            and (self.position == position)
        )

    def was_held_by(self, lease: Lease, position: int) -> bool:
        """Return whether what was sent last under a lease reached a position."""
        return self.token == lease.token and self.position == position


# What was appended to one log, and None where the session was deleted: what a store has to publish.
Told = tuple[str, str, Entry | None]


def tell(
    told: list[Told], inference: ModelInference, bodies: Sequence[Event | bytes], state: InferenceState | None
) -> None:
    """Append events of an inference to its session's log; the last one moves it to a state, if to any."""
    session = inference.session
    for number, body in enumerate(bodies, 1):
        moved = state if number == len(bodies) else None
        entry = Entry(len(session.log) + 1, inference.noun.inference_id, body, moved)
        session.log.append(entry)
        told.append((session.principal, session.noun.session_id, entry))


def event(inference: ModelInference, payload: Payload, now: datetime) -> Event:
    """Return an event of an inference's present attempt."""
    noun = inference.noun
    return Event(noun.session_id, noun.inference_id, now, payload, "", noun.attempt)


def complete(blocks: Iterable[Block]) -> list[Block]:
    """Return blocks that all have an id and a role."""
    return [replace(block, id=block.id or Minted(), role=block.role or ROLES[type(block.kind)]) for block in blocks]


def open_turn(inference: ModelInference, now: datetime) -> ModelTurn:
    """Open the turn of an inference that runs for the first time."""
    session, noun, command = inference.session, inference.noun, inference.command
    newest = len(session.turns) - 1 if session.turns else None
    index = inference.parent if inference.is_parent_fixed else newest
    parent = None if index is None else session.turns[index]
    inherited = len(parent.blocks(TurnView.FULL)) if parent else 0
    old_data: Mapping[str, str] = parent.noun.data if parent else {}
    turn = ModelTurn(
        Turn(
            noun.session_id,
            noun.inference_id,
            len(session.turns),
            Minted(),
            TurnState.OPEN,
            now,
            index,
            metadata={
                **command.metadata,
                "geppetto.session_id@v1": json.dumps(noun.session_id),
                "geppetto.inference_id@v1": json.dumps(noun.inference_id),
            },
            data={key: old_data[key] for key in old_data if key not in PER_TURN_DATA} | dict(command.data),
            inherited_block_count=inherited,
            given_block_count=inherited + len(inference.blocks),
        ),
        parent,
        inference,
    )
    session.turns.append(turn)
    return turn


def begin(told: list[Told], inference: ModelInference, now: datetime) -> None:
    """An attempt begins; the first one opens the turn."""
    noun = inference.noun
    inference.noun = replace(noun, state=RUNNING, start_time=noun.start_time or now)
    bodies = [event(inference, InferenceStarted(inference.engine, noun.profile, noun.config.model), now)]
    if inference.turn is None:
        inference.turn = open_turn(inference, now)
        turn = inference.turn.shown()
        inference.noun = replace(inference.noun, turn_index=turn.index)
        bodies.append(event(inference, TurnOpened(turn.index, turn.block_count, turn.parent), now))
    tell(told, inference, bodies, RUNNING)
    inference.holds_through = inference.shown().last_sequence


def extend(inference: ModelInference, more: Step | Ending) -> None:
    """Add what a step or an ending has for the turn, and what it used."""
    inference.blocks += complete(more.blocks)
    inference.marks += more.marks
    if inference.turn and more.data is not None:
        inference.turn.noun = replace(inference.turn.noun, data=dict(more.data))
    spend(inference, more.usage, more.model)


def spend(inference: ModelInference, usage: Usage, model: str) -> None:
    """Add what was used."""
    noun = inference.noun
    total = Usage(
        noun.usage.input_tokens + usage.input_tokens,
        noun.usage.output_tokens + usage.output_tokens,
        noun.usage.cached_tokens + usage.cached_tokens,
        noun.usage.reasoning_tokens + usage.reasoning_tokens,
    )
    inference.noun = replace(noun, usage=total, model=model or noun.model)


def end(
    told: list[Told], inference: ModelInference, outcome: Outcome, now: datetime, before: Sequence[bytes] = ()
) -> None:
    """An inference ends, and with it its turn and its lease. `before`: what its owner had still to append."""
    noun = replace(inference.noun, end_time=now)
    if isinstance(outcome, Succeeded):
        noun = replace(noun, state=SUCCEEDED, finish_class=outcome.finish_class)
    elif isinstance(outcome, Failed):
        noun = replace(noun, state=FAILED, finish_class=FinishClass.ERROR, error=outcome.error)
    else:
        noun = replace(noun, state=CANCELLED, finish_class=FinishClass.INTERRUPTED)
        outcome = Cancelled(noun.cancel_reason)
    inference.noun = noun
    session = inference.session
    bodies: list[Event | bytes] = list(before)
    if inference.turn:
        turn = inference.turn.shown()
        inference.turn.noun = replace(inference.turn.noun, state=TurnState.CLOSED, close_time=now)
        bodies.append(event(inference, TurnClosed(turn.index, turn.block_count), now))
        if inference.marks:
            newest = inference.marks[-1].iteration
            inference.marks.append(SnapshotMark(SnapshotPhase.FINAL, newest, turn.block_count, now))
    count = sum(entry.inference_id == noun.inference_id for entry in session.log) + len(bodies) + 1
    bodies.append(event(inference, InferenceFinished(outcome, noun.usage, count), now))
    tell(told, inference, bodies, noun.state)
    inference.owner = ""
    inference.effects = {}
    if session.ttl is not None:
        session.noun = replace(session.noun, expire_time=now + session.ttl)


def cancel(told: list[Told], inference: ModelInference, reason: str, now: datetime) -> None:
    """A cancel is requested; the first request stays. It ends at once what does not run."""
    noun = inference.noun
    if noun.state in ENDED:
        return
    if noun.cancel_requested_time is None:
        inference.noun = replace(noun, cancel_requested_time=now, cancel_reason=reason)
    if noun.state is not RUNNING:
        end(told, inference, Cancelled(), now)
