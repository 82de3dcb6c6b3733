"""What FakeServer remembers: the contract, in memory, without time. Everything here happens at once."""

import asyncio
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import Message

from turnwire.v1 import event_pb2 as ev
from turnwire.v1.error_reason_pb2 import Error
from turnwire.v1.inference_pb2 import FinishClass, Inference, InferenceState, Usage
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_pb2 import InferenceRef, NewSession, Session
from turnwire.v1.session_service_pb2 import ForkSessionRequest
from turnwire.v1.turn_pb2 import Block, BlockStatus, LlmTextBlock, ReasoningBlock, Turn, TurnState

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


class Refused(Exception):  # noqa: N818 - not an error of the fake, but what it was told to answer
    """The answer is an error of the catalogue."""

    def __init__(self, reason: str, **metadata: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.metadata = {key: str(value) for key, value in metadata.items()}


@dataclass(frozen=True, slots=True)
class Script:
    """What one inference will do. `text` None says the input back; `error` ends it FAILED, `hang` not at all."""

    text: str | None = None
    thinking: str = ""
    usage: Usage = field(default_factory=Usage)
    error: Error | None = None
    hang: bool = False


class FakeSession:
    """One session with its log, its inferences and its turns, oldest first."""

    def __init__(self, new: NewSession) -> None:
        self.proto = Session(
            session_id=new.session_id or str(uuid.uuid4()),
            display_name=new.display_name,
            labels=new.labels,
            metadata=new.metadata,
            profile=new.profile,
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


class FakeStore:
    """All sessions, and what the next inferences will do."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.scripts: deque[Script] = deque()
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}

    def session(self, session_id: str) -> FakeSession:
        """Raises Refused SESSION_NOT_FOUND."""
        try:
            return self.sessions[session_id]
        except KeyError:
            raise Refused("SESSION_NOT_FOUND", session_id=session_id) from None

    def inference(self, inference_id: str) -> tuple[FakeSession, Inference]:
        """Raises Refused INFERENCE_NOT_FOUND."""
        for session in self.sessions.values():
            if inference_id in session.inferences:
                return session, session.inferences[inference_id]
        raise Refused("INFERENCE_NOT_FOUND", inference_id=inference_id)

    def remembered(self, rpc: str, key: str, content: bytes) -> str | None:
        """What the key made before. Raises Refused IDEMPOTENCY_KEY_REUSED."""
        known = self._keys.get((rpc, key)) if key else None
        if known is None:
            return None
        if known[0] != content:
            raise Refused("IDEMPOTENCY_KEY_REUSED", rpc=rpc)
        return known[1]

    def remember(self, rpc: str, key: str, content: bytes, made: str) -> None:
        """Keeps what the key made."""
        if key:
            self._keys[rpc, key] = (content, made)

    def create_session(self, new: NewSession) -> FakeSession:
        """Raises Refused SESSION_ALREADY_EXISTS."""
        if new.session_id in self.sessions:
            raise Refused("SESSION_ALREADY_EXISTS", session_id=new.session_id)
        session = FakeSession(new)
        self.sessions[session.proto.session_id] = session
        return session

    def fork_session(self, request: ForkSessionRequest) -> FakeSession:
        """Raises Refused."""
        origin = self.session(request.session_id)
        closed = sum(turn.state == TurnState.TURN_STATE_CLOSED for turn in origin.turns)  # all but the newest, at least
        index = request.index if request.HasField("index") else closed - 1
        if not 0 <= index < len(origin.turns):
            raise Refused("TURN_NOT_FOUND", session_id=request.session_id, index=max(index, 0))
        if index >= closed:
            raise Refused("TURN_NOT_CLOSED", session_id=request.session_id, index=closed)
        session = self.create_session(request.session)
        session.proto.origin.session_id = request.session_id
        session.proto.origin.index = index
        for turn in origin.turns[: index + 1]:
            shared = Turn()
            shared.CopyFrom(turn)
            shared.session_id = session.proto.session_id
            session.turns.append(shared)
        session.proto.turn_count = len(session.turns)
        return session

    def start(self, request: StartInferenceRequest) -> tuple[FakeSession, Inference]:
        """Accepts an inference and runs it as far as its script goes. Raises Refused."""
        if request.WhichOneof("target") == "session_id":
            session = self.session(request.session_id)
        else:
            session = self.create_session(request.new_session)
        session_id = session.proto.session_id
        active = session.proto.active.inference_id
        if active:
            raise Refused("SESSION_BUSY", session_id=session_id, inference_id=active)
        parent = request.parent if request.HasField("parent") else len(session.turns) - 1
        if parent >= len(session.turns):
            raise Refused("TURN_NOT_FOUND", session_id=session_id, index=parent)
        inherited = list(session.turns[parent].blocks) if parent >= 0 else []
        if not inherited and not request.input:
            raise Refused("EMPTY_TURN", session_id=session_id)
        inference = Inference(
            session_id=session_id,
            inference_id=str(uuid.uuid4()),
            state=InferenceState.INFERENCE_STATE_RUNNING,
            profile=request.profile or "fake",
            turn_index=len(session.turns),
            attempts_max=1,
        )
        inference.create_time.GetCurrentTime()
        inference.start_time.CopyFrom(inference.create_time)
        session.inferences[inference.inference_id] = inference
        blocks = [*inherited, *(_identified(block) for block in request.input)]
        self._run(session, inference, parent, blocks, len(inherited))
        return session, inference

    def _run(
        self, session: FakeSession, inference: Inference, parent: int, blocks: list[Block], inherited: int
    ) -> None:
        script = self.scripts.popleft() if self.scripts else Script()
        key = inference.inference_id
        session.proto.active.CopyFrom(InferenceRef(session_id=session.proto.session_id, inference_id=key))
        turn = Turn(
            session_id=session.proto.session_id,
            inference_id=key,
            index=len(session.turns),
            parent=parent if parent >= 0 else None,
            id=str(uuid.uuid4()),
            state=TurnState.TURN_STATE_OPEN,
            blocks=blocks,
            block_count=len(blocks),
            inherited_block_count=inherited,
            given_block_count=len(blocks),
        )
        session.turns.append(turn)
        session.proto.turn_count = len(session.turns)
        session.append(key, ev.InferenceQueued(queue_position=1))
        session.append(key, ev.InferenceStarted(engine="fake", profile=inference.profile))
        opened = ev.TurnOpened(index=turn.index, parent=parent if parent >= 0 else None, block_count=len(blocks))
        session.append(key, opened)
        inference.usage.CopyFrom(script.usage)
        if script.thinking:
            speak(session, turn, script.thinking, thinking=True, whole=True)
        text = _last_input(blocks) if script.text is None else script.text
        if text:
            speak(session, turn, text, thinking=False, whole=not script.hang and script.error is None)
        if script.error is not None:
            finish(session, inference, InferenceState.INFERENCE_STATE_FAILED, error=script.error)
        elif not script.hang:
            finish(session, inference, InferenceState.INFERENCE_STATE_SUCCEEDED)


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
    turn.blocks.append(block)
    turn.block_count = len(turn.blocks)


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


def subset(labels: Mapping[str, str], of: Mapping[str, str]) -> bool:
    """Whether all of these labels are among those."""
    return labels.items() <= dict(of).items()


def _identified(block: Block) -> Block:
    known = Block()
    known.CopyFrom(block)
    known.id = block.id or str(uuid.uuid4())
    known.role = block.role or str(block.WhichOneof("kind"))
    known.status = block.status or BlockStatus.BLOCK_STATUS_COMPLETE
    return known


def _last_input(blocks: Iterable[Block]) -> str:
    return next((block.user.text for block in reversed(list(blocks)) if block.HasField("user")), "")
