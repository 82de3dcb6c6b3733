"""What FakeServer remembers: the contract, in memory, without time. Everything here happens at once."""

import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from turnwire.v1 import event_pb2 as ev
from turnwire.v1.error_reason_pb2 import Error
from turnwire.v1.inference_pb2 import Inference, InferenceState, Usage
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_pb2 import InferenceRef, NewSession
from turnwire.v1.session_service_pb2 import ForkSessionRequest
from turnwire.v1.tool_pb2 import Tool, ToolOutcome
from turnwire.v1.turn_pb2 import Block, BlockStatus, Turn, TurnState
from turnwire_client._fake_session import FakeSession, Refused, finish, speak
from turnwire_client._fake_tools import Batch, Round


@dataclass(frozen=True, slots=True)
class Script:
    """What one inference will do: the rounds of tool calls, then the answer.

    `text` None says the input back; `error` ends it FAILED, `hang` not at all.
    """

    text: str | None = None
    thinking: str = ""
    usage: Usage = field(default_factory=Usage)
    error: Error | None = None
    hang: bool = False
    rounds: tuple[Round, ...] = ()


class FakeStore:
    """All sessions, and what the next inferences will do."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.scripts: deque[Script] = deque()
        # The rounds of the next script, while it is being told.
        self.rounds: list[Round] = []
        # What waits for the client, by inference_id: the calls, and what is done once they are answered.
        self._waiting: dict[str, tuple[Batch, Script]] = {}
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
        self._run(session, inference, parent, blocks, len(inherited), request.overrides.tools)
        return session, inference

    def add_script(self, script: Script) -> None:
        """One more inference will do this, after the rounds that were told before."""
        self.scripts.append(replace(script, rounds=tuple(self.rounds)))
        self.rounds.clear()

    def submit(self, inference_id: str, outcomes: Iterable[ToolOutcome]) -> None:
        """Takes answers to tool calls; goes on once all are there. Raises Refused."""
        session, inference = self.inference(inference_id)
        if inference.state != InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS:
            state = InferenceState.Name(inference.state).removeprefix("INFERENCE_STATE_")
            raise Refused("INFERENCE_NOT_WAITING", inference_id=inference_id, state=state)
        batch, script = self._waiting[inference_id]
        batch.answer(list(outcomes))
        if not batch.pending:
            del self._waiting[inference_id]
            batch.leave()
            self._go_on(session, inference, script, batch.tools)

    def pending(self, inference_id: str) -> list[str]:
        """The ids of the tool calls that the inference waits for."""
        return list(self._waiting[inference_id][0].pending) if inference_id in self._waiting else []

    def _run(
        self,
        session: FakeSession,
        inference: Inference,
        parent: int,
        blocks: list[Block],
        inherited: int,
        tools: Iterable[Tool],
    ) -> None:
        if not self.scripts:
            self.add_script(Script())
        script = self.scripts.popleft()
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
        self._go_on(session, inference, script, {tool.name: tool for tool in tools})

    def _go_on(self, session: FakeSession, inference: Inference, script: Script, tools: Mapping[str, Tool]) -> None:
        turn = session.turns[inference.turn_index]
        if script.rounds:
            batch = Batch(session, inference, script.rounds[0], tools)
            batch.ask()
            self._waiting[inference.inference_id] = (batch, replace(script, rounds=script.rounds[1:]))
            return
        text = _last_input(turn.blocks) if script.text is None else script.text
        if text:
            speak(session, turn, text, thinking=False, whole=not script.hang and script.error is None)
        if script.error is not None:
            finish(session, inference, InferenceState.INFERENCE_STATE_FAILED, error=script.error)
        elif not script.hang:
            finish(session, inference, InferenceState.INFERENCE_STATE_SUCCEEDED)


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
