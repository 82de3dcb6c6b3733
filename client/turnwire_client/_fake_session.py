"""One session of FakeServer: its log, its inferences and its turns, and how things are told in it."""

import asyncio
import uuid

from google.protobuf.message import Message

from turnwire.v1 import event_pb2 as ev
from turnwire.v1.error_reason_pb2 import Error
from turnwire.v1.inference_pb2 import FinishClass, Inference, InferenceState
from turnwire.v1.session_pb2 import NewSession, Session
from turnwire.v1.turn_pb2 import Block, BlockStatus, LlmTextBlock, ReasoningBlock, Turn, TurnState, TurnView

DELTA_LENGTH = 16

# The field of an event's payload, by the message in it.
VARIANTS = {
    field.message_type.full_name: field.name
    for field in ev.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}
TERMINAL = frozenset(
    {
        InferenceState.INFERENCE_STATE_SUCCEEDED,
        InferenceState.INFERENCE_STATE_FAILED,
        InferenceState.INFERENCE_STATE_CANCELLED,
    }
)
WAITS_FOR_CLIENT = frozenset({InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS, InferenceState.INFERENCE_STATE_PAUSED})


class Refused(Exception):  # noqa: N818 - not an error of the fake, but what it was told to answer
    """The answer is an error of the catalogue."""

    def __init__(self, reason: str, **metadata: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.metadata = {key: str(value) for key, value in metadata.items()}


class FakeSession:
    """One session with its log, its inferences and its turns, oldest first."""

    def __init__(self, new: NewSession) -> None:
        self.proto = Session(
            session_id=new.session_id or str(uuid.uuid4()),
            display_name=new.display_name,
            labels=new.labels,
            metadata=new.metadata,
            profile=new.profile,
            config=new.config if new.HasField("config") else None,
            revision=1,
            log=uuid.uuid4().hex,
        )
        self.proto.create_time.GetCurrentTime()
        self.proto.update_time.CopyFrom(self.proto.create_time)
        self.events: list[ev.Event] = []
        self.inferences: dict[str, Inference] = {}
        self.turns: list[Turn] = []
        self.deleted = False
        self._changed = asyncio.Event()

    def append(
        self, inference_id: str, payload: Message | None, *, entity: str = "", ignorable: bool = False
    ) -> ev.Event:
        """Adds an event to the log and wakes everyone who waits for one. Without a payload it is of an unknown kind."""
        event = ev.Event(
            sequence=len(self.events) + 1,
            session_id=self.proto.session_id,
            inference_id=inference_id,
            entity=entity,
            ignorable=ignorable,
        )
        event.create_time.GetCurrentTime()
        if payload is not None:
            getattr(event, VARIANTS[payload.DESCRIPTOR.full_name]).CopyFrom(payload)
        self.events.append(event)
        self.proto.head_sequence = event.sequence
        inference = self.inferences.get(inference_id)
        if inference is not None:
            inference.first_sequence = inference.first_sequence or event.sequence
            inference.last_sequence = event.sequence
        self.wake()
        return event

    def wake(self) -> None:
        """Lets everyone who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_change(self) -> None:
        """Returns when something has changed."""
        await self._changed.wait()


def speak(session: FakeSession, turn: Turn, text: str, *, thinking: bool, whole: bool) -> None:
    """Streams one block of text or of reasoning into the log and the turn."""
    entity, key = str(uuid.uuid4()), turn.inference_id
    start = ev.LlmThinkingStart if thinking else ev.LlmStart
    session.append(key, start(role="assistant"), entity=entity)
    offset = 0
    for at in range(0, len(text), DELTA_LENGTH):
        delta = text[at : at + DELTA_LENGTH]
        kind = ev.LlmThinkingDelta if thinking else ev.LlmDelta
        session.append(key, kind(delta=delta, offset=offset), entity=entity)
        offset += len(delta.encode())
    block = Block(id=entity, role="assistant", status=BlockStatus.BLOCK_STATUS_COMPLETE)
    if whole:
        final = ev.LlmThinkingFinal if thinking else ev.LlmFinal
        session.append(key, final(text=text, text_bytes=offset), entity=entity)
    else:
        block.status = BlockStatus.BLOCK_STATUS_INCOMPLETE
    if thinking:
        block.reasoning.CopyFrom(ReasoningBlock(text=text))
    else:
        block.llm_text.CopyFrom(LlmTextBlock(text=text))
    add_block(turn, block)


def finish(
    session: FakeSession,
    inference: Inference,
    state: InferenceState.ValueType,
    *,
    error: Error | None = None,
    reason: str = "",
) -> None:
    """Ends an inference: closes its turn, then the terminal event."""
    turn = session.turns[inference.turn_index]
    turn.state = TurnState.TURN_STATE_CLOSED
    turn.close_time.GetCurrentTime()
    inference.end_time.CopyFrom(turn.close_time)
    inference.state = state
    session.proto.ClearField("active")
    key = inference.inference_id
    session.append(key, ev.TurnClosed(index=turn.index, block_count=turn.block_count))
    count = sum(event.inference_id == key for event in session.events) + 1
    finished = ev.InferenceFinished(usage=inference.usage, event_count=count)
    if state == InferenceState.INFERENCE_STATE_FAILED and error is not None:
        inference.finish_class = FinishClass.FINISH_CLASS_ERROR
        inference.error.CopyFrom(error)
        finished.failed.error.CopyFrom(error)
    elif state == InferenceState.INFERENCE_STATE_CANCELLED:
        inference.finish_class = FinishClass.FINISH_CLASS_INTERRUPTED
        finished.cancelled.reason = reason
    else:
        inference.finish_class = FinishClass.FINISH_CLASS_COMPLETED
        finished.succeeded.finish_class = FinishClass.FINISH_CLASS_COMPLETED
    session.append(key, finished)


def add_block(turn: Turn, block: Block) -> None:
    """Adds a block to a turn."""
    turn.blocks.append(block)
    turn.block_count = len(turn.blocks)


def viewed(turn: Turn, view: TurnView.ValueType) -> Turn:
    """A copy of the turn, as much of it as the view shows."""
    seen = Turn()
    seen.CopyFrom(turn)
    if view == TurnView.TURN_VIEW_BASIC:
        seen.ClearField("blocks")
    elif view == TurnView.TURN_VIEW_DELTA:
        del seen.blocks[: turn.inherited_block_count]
    return seen
