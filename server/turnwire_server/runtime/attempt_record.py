"""What one attempt tells and commits: events to the log, blocks and data to the turn, and where it goes on."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from turnwire_server.domain.event import Event, Outcome, Payload
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.lifecycle import event_of
from turnwire_server.domain.turn import (
    MAP_BYTES_MAX,
    Block,
    SnapshotMark,
    SnapshotPhase,
    TurnView,
    map_bytes,
)
from turnwire_server.events.log import AttemptLog
from turnwire_server.events.patience import Patience
from turnwire_server.events.snapshot import Fold
from turnwire_server.runtime.checkpoint import Checkpoint, decode_checkpoint, encode_checkpoint
from turnwire_server.runtime.ports import Ports
from turnwire_server.stores.lease import Claim, Effect, Ending, Fenced, Step
from turnwire_server.stores.page import TurnPage

# How many blocks of the turn are read at a time.
BLOCKS_PAGE = 1000


class AttemptRecord:
    """The writing side of one attempt, used by one task at a time.

    `blocks` is the whole turn as committed, `given_count` of them were there before the inference produced any. `fold`
    is what was told since the last step. `at` is where the inference goes on after that step.
    """

    def __init__(self, claim: Claim, ports: Ports, patience: Patience, *, takes_snapshots: bool) -> None:
        self.inference = claim.inference
        self.lease = claim.lease
        self.blocks: tuple[Block, ...] = ()
        self.given_count = 0
        self.fold = Fold()
        self.at: Checkpoint = decode_checkpoint(claim.checkpoint)
        self.iteration = self.at.iteration  # the number of the engine call under way, or of the last one
        self.step = claim.step
        self.log = AttemptLog(ports.store, claim.lease, claim.position, ports.encode, patience)
        self._ports = ports
        self._patience = patience
        self._takes_snapshots = takes_snapshots
        self._turn = claim.turn
        self._data: dict[str, str] = {}
        self._is_data_changed = False
        self._marks: list[SnapshotMark] = []

    async def load(self) -> None:
        """Read the turn, unless it came with the claim. Raises Fenced, if it is not that of the inference any more."""
        if turn := self._turn:
            self.blocks, self.given_count, self._data = turn.blocks, turn.given_block_count, dict(turn.data)
            return
        blocks: list[Block] = []
        offset: int | None = 0
        while offset is not None:
            page = await self._patience.call(partial(self._read_page, offset))
            if page.turn.inference_id != self.inference.inference_id:  # deleted, and created again under the same name
                raise Fenced
            blocks.extend(page.turn.blocks)
            offset = page.next
            self.given_count = page.turn.given_block_count
            self._data = dict(page.turn.data)
        self.blocks = tuple(blocks)

    async def _read_page(self, offset: int) -> TurnPage:
        return await self._ports.store.get_turn(
            self.lease.principal,
            self.inference.session_id,
            self.inference.turn_index,
            TurnView.FULL,
            offset,
            BLOCKS_PAGE,
        )

    @property
    def produced(self) -> tuple[Block, ...]:
        """The blocks that the inference has produced, as committed."""
        return self.blocks[self.given_count :]

    @property
    def data(self) -> dict[str, str]:
        """A copy of the turn's data, as they will be committed."""
        return dict(self._data)

    def set_data(self, data: dict[str, str]) -> None:
        """Replace the turn's data. Errors: ValueError, if they have more bytes than a turn may have."""
        if map_bytes(data) > MAP_BYTES_MAX:
            msg = f"the data of a turn may have {MAP_BYTES_MAX} bytes"
            raise ValueError(msg)
        self._is_data_changed = self._is_data_changed or data != self._data
        self._data = dict(data)

    def put(self, payload: Payload, entity: str = "") -> None:
        """Tell an event, and fold it. Raises CancelledError once the attempt was given up."""
        event = event_of(self.inference, payload, self._ports.clock.now(), entity)
        self.log.put(event)
        self.fold.apply(event)  # before any wait: what is in the log is in the turn, also when a wait is cancelled

    def mark(self, phase: SnapshotPhase) -> None:
        """Take a snapshot of the turn, if they were asked for; it is kept with the next commit."""
        if self._takes_snapshots:
            count = len(self.blocks) + len(self.fold.blocks())
            self._marks.append(SnapshotMark(phase, max(self.iteration, 1), count, self._ports.clock.now()))

    async def commit(
        self,
        at: Checkpoint,
        more: Sequence[Block] = (),
    ) -> None:
        """Commit a step: all that was told since the last one, and `more` blocks.

        Raises Fenced, and StoreUnavailableError after patience.
        """
        await self._commit(self._step(at, more))
        self.at = at

    async def commit_wait(
        self, at: Checkpoint, more: Sequence[Block], then: InferenceState, why: Payload, entity: str = ""
    ) -> None:
        """Commit a step after which the client is waited for; `why` tells what for, and nobody writes after that."""
        wake_time = at.pause.deadline_time if at.pause else at.answer_time
        step = replace(self._step(at, more), then=then, wake_time=wake_time)
        await self._commit(step, event_of(self.inference, why, self._ports.clock.now(), entity))

    def _step(self, at: Checkpoint, more: Sequence[Block]) -> Step:
        return Step(
            number=self.step + 1,
            blocks=tuple(replace(block, id=block.id or self._ports.mint()) for block in (*self.fold.blocks(), *more)),
            usage=self.fold.usage,
            model=self.fold.model,
            checkpoint=encode_checkpoint(at),
            data=self._data if self._is_data_changed else None,
            marks=tuple(self._marks),
        )

    async def _commit(self, step: Step, *last: Event) -> None:
        # The last event tells of the wait, so it has to come with the step, and not before it.
        await self.log.commit(
            lambda position, batch: self._ports.store.commit_step(self.lease, position, replace(step, events=batch)),
            *last,
        )
        self.step, self.fold = step.number, Fold()
        self.blocks += step.blocks
        self._is_data_changed = False
        self._marks.clear()

    async def record(self, effects: Sequence[Effect]) -> None:
        """Commit that tool calls are about to be executed, or what came of them, with what was told so far."""
        await self.log.commit(
            lambda position, batch: self._ports.store.record_effects(self.lease, position, effects, batch)
        )

    async def hand_back(self) -> None:
        """Hand the inference back; what was told since the last step is void."""
        await self._patience.call(
            lambda: self._ports.store.hand_back(self.lease, self.log.position, is_loss=False),
        )

    async def finish(self, outcome: Outcome, unsent: tuple[bytes, ...]) -> Inference:
        """End the inference, with what was told since the last step. `unsent` is what the closed log had left."""
        ending = Ending(
            outcome,
            self.fold.usage,
            self.fold.model,
            self.fold.blocks(),
            unsent,
            data=self._data if self._is_data_changed else None,
            marks=tuple(self._marks),
        )
        # The outcome of a failed commit is unknown; if it landed, the store knows the same ending again.
        return await self._patience.call(lambda: self._ports.store.finish(self.lease, self.log.position, ending))
