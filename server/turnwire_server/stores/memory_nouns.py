"""The nouns as a MemorySessionStore holds them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import InferenceRef, Session
from turnwire_server.domain.turn import Block, SnapshotMark, SnapshotPhase, Turn, TurnSnapshot, TurnState, TurnView
from turnwire_server.stores.base import Base, Waiting
from turnwire_server.stores.intake import block_content, encode_map, turn_metadata
from turnwire_server.stores.lease import Claim, Effect, Ending, Lease, Step
from turnwire_server.stores.line import InLine, Parent
from turnwire_server.stores.page import take_page
from turnwire_server.stores.start import StartCommand, Unfinished


@dataclass(slots=True, eq=False)
class HeldTurn:
    """A turn: its parent's blocks, then those of its inference. `turn` itself has none, and counts none."""

    turn: Turn
    parent: "HeldTurn | None"
    owner: "HeldInference"

    def blocks(self, view: TurnView) -> list[Block]:
        """Return the blocks that a view has."""
        chain: list[HeldTurn] = []
        turn: HeldTurn | None = None if view is TurnView.BASIC else self
        while turn:
            chain.append(turn)
            turn = None if view is TurnView.DELTA else turn.parent
        return [block for each in reversed(chain) for block in each.owner.blocks]

    def shown(self, blocks: Iterable[Block] = ()) -> Turn:
        """Return the turn as it is now, with these of its blocks."""
        return replace(self.turn, blocks=tuple(blocks), block_count=len(self.blocks(TurnView.FULL)))

    def snapshot(self, mark: SnapshotMark) -> TurnSnapshot:
        """Return the turn as it was at a mark, with as many of its blocks as a page may have."""
        own = self.owner.blocks[: max(mark.block_count - self.turn.inherited_block_count, 0)]
        taken, _ = take_page((block, len(block_content(block))) for block in own)
        return TurnSnapshot(mark, replace(self.turn, blocks=tuple(taken), block_count=mark.block_count))

    def size(self) -> int:
        """Return how many bytes the turn has, without its blocks."""
        return len(encode_map(self.owner.command.metadata)) + len(encode_map(self.turn.data))


@dataclass(slots=True, eq=False)
class HeldInference:
    """An inference, what it was asked for, and the blocks that it adds to its turn."""

    key: int
    session: "HeldSession"
    inference: Inference
    command: StartCommand
    engine: str
    parent: Parent
    rank: int
    blocks: list[Block]
    turn: HeldTurn | None = None
    owner: str = ""  # empty while nobody owns it; that is lost if it is RUNNING
    lease: str = ""
    position: int = 0
    event_count: int = 0
    step: int = 0
    holds_through: int = 0
    checkpoint: bytes = b""
    effects: dict[str, bytes | None] = field(default_factory=dict[str, bytes | None])
    marks: list[SnapshotMark] = field(default_factory=list[SnapshotMark])
    wake_time: datetime | None = None  # means something only while it waits for its client
    was_lost: bool = False
    is_handed_back: bool = False

    @property
    def is_in_line(self) -> bool:
        """Whether it is in its session's line: active, or waiting to be."""
        return self.inference.is_active or self.inference.state is InferenceState.QUEUED

    def has_ended_before(self, moment: datetime) -> bool:
        """Whether it had ended by then."""
        return self.inference.end_time is not None and self.inference.end_time < moment

    def claim(self, *, is_lost: bool) -> Claim:
        """Return the inference with its lease."""
        return Claim(
            lease=Lease(self.session.principal, self.inference.inference_id, self.lease),
            inference=self.shown(),
            engine=self.engine,
            overrides=self.command.overrides,
            position=self.position,
            step=self.step,
            holds_through=self.holds_through,
            checkpoint=self.checkpoint,
            effects=self.recorded(),
            is_lost=is_lost,
        )

    def extend(self, blocks: list[Block], more: Step | Ending) -> None:
        """Give its turn all of `blocks`, and what else a step or an ending has for it."""
        self.blocks = blocks
        self.marks.extend(more.marks)
        if self.turn and more.data is not None:
            self.turn.turn = replace(self.turn.turn, data=dict(more.data))

    def recorded(self) -> tuple[Effect, ...]:
        """Return the tool calls since the last step."""
        return tuple(Effect(call, outcome) for call, outcome in self.effects.items())

    def waiting(self) -> Waiting:
        """Return the inference as those see it who answer it."""
        return Waiting(self.shown(), self.checkpoint)

    def snapshots(self, phase: SnapshotPhase | None, after: int) -> Iterator[tuple[int, TurnSnapshot]]:
        """Yield the snapshots of its turn of one phase, or of all, that are behind a position; each with its own."""
        for position, mark in enumerate(self.marks):
            if self.turn and position > after and phase in (None, mark.phase):
                yield position, self.turn.snapshot(mark)

    def shown(self) -> Inference:
        """Return the inference as it is now."""
        queued = [each for each in self.session.line() if each.inference.state is InferenceState.QUEUED]
        return replace(self.inference, queue_position=queued.index(self) + 1 if self in queued else None)


@dataclass(slots=True, eq=False)
class HeldSession:
    """A session, its log, and everything that belongs to it; a fork's first turns are those of another session."""

    key: int
    principal: str
    session: Session
    ttl: timedelta | None
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    inferences: list[HeldInference] = field(default_factory=list[HeldInference])
    turns: list[HeldTurn] = field(default_factory=list[HeldTurn])
    head: int = 0
    base: Base = Base()
    delete_time: datetime | None = None

    def show(self, turn: HeldTurn, blocks: Iterable[Block] = ()) -> Turn:
        """Return a turn as one of this session, with these of its blocks; it may be shared with others."""
        session_id, shown = self.session.session_id, turn.shown(blocks)
        metadata = turn_metadata(turn.owner.command.metadata, session_id, shown.inference_id)
        return replace(shown, session_id=session_id, metadata=metadata)

    def first_open(self) -> int | None:
        """Return the index of the first turn that is OPEN, None if there is none."""
        return next((each.turn.index for each in self.turns if each.turn.state is TurnState.OPEN), None)

    def retired_through(self, ended_before: datetime) -> int:
        """Return how far the log has only events of inferences that ended before a moment; its base if nowhere."""
        kept = (each for each in self.inferences if each.inference.last_sequence > self.base.through_sequence)
        young = [each.inference for each in kept if not each.has_ended_before(ended_before)]
        reached = min((each.first_sequence - 1 for each in young), default=self.head)
        return max(reached, self.base.through_sequence)

    def line(self) -> list[HeldInference]:
        """Return the unfinished inferences, the active one first."""
        waiting = [each for each in self.inferences if each.is_in_line]
        return sorted(waiting, key=lambda each: (not each.inference.is_active, each.rank))

    def places(self) -> list[InLine]:
        """Return the line as those see it who decide."""
        return [
            InLine(
                Unfinished(each.inference.inference_id, each.inference.state, each.inference.is_active),
                each.rank,
                Parent(is_fixed=True, index=each.turn.turn.parent) if each.turn else each.parent,
            )
            for each in self.line()
        ]

    def shown(self) -> Session:
        """Return the session as it is now."""
        line = self.line()
        active = next((each.inference for each in line if each.inference.is_active), None)
        return replace(
            self.session,
            head_sequence=self.head,
            turn_count=len(self.turns),
            active=InferenceRef(active.session_id, active.inference_id) if active else None,
            queued_count=sum(not each.inference.is_active for each in line),
        )


@dataclass(slots=True)
class Made:
    """What the first call with an idempotency key made."""

    fingerprint: bytes
    session: HeldSession
    inference: HeldInference | None = None
