"""Events of a session's log, and the chunks in which they are stored and delivered."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from turnwire_server.domain.errors import Failure
from turnwire_server.domain.inference import FinishClass, InferenceState, Usage
from turnwire_server.domain.tool import ToolCall, ToolPlacement, ToolUse

# The most bytes that the encoded form of one event may have (contract: event.proto).
EVENT_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class LlmDelta:
    """A piece of text; `offset` counts bytes of UTF-8 before it."""

    delta: str
    offset: int


@dataclass(frozen=True, slots=True)
class LlmThinkingDelta:
    """A piece of reasoning; `offset` counts bytes of UTF-8 before it."""

    delta: str
    offset: int


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call's arguments; `offset` counts bytes of UTF-8 before it."""

    delta: str
    offset: int


# A piece of one entity. Engines make hundreds of them per second, so what handles events looks for these first.
Delta = LlmDelta | LlmThinkingDelta | ToolDelta


@dataclass(frozen=True, slots=True)
class InferenceQueued:
    """The inference entered the line."""

    queue_position: int


@dataclass(frozen=True, slots=True)
class InferenceStarted:
    """An attempt began."""

    engine: str
    profile: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class InferenceAttemptLost:
    """An attempt was lost or handed back; its events after `superseded_after_sequence` are void."""

    attempt: int
    superseded_after_sequence: int
    handed_back: bool = False


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The inference produced its output."""

    finish_class: FinishClass


@dataclass(frozen=True, slots=True)
class Failed:
    """The inference failed."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The inference was cancelled."""

    reason: str = ""


Outcome = Succeeded | Failed | Cancelled


@dataclass(frozen=True, slots=True)
class InferenceFinished:
    """The inference ended; `event_count` includes this event."""

    outcome: Outcome
    usage: Usage
    event_count: int


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """The inference's turn was opened."""

    index: int
    block_count: int
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class TurnClosed:
    """The inference's turn was closed."""

    index: int
    block_count: int


@dataclass(frozen=True, slots=True)
class LlmStart:
    """A text block begins."""

    role: str = "assistant"


@dataclass(frozen=True, slots=True)
class LlmFinal:
    """A text block is complete."""

    text: str
    text_bytes: int
    text_omitted: bool = False


@dataclass(frozen=True, slots=True)
class LlmThinkingStart:
    """A reasoning block begins."""

    role: str = "assistant"


@dataclass(frozen=True, slots=True)
class LlmThinkingFinal:
    """A reasoning block is complete."""

    text: str
    text_bytes: int
    text_omitted: bool = False
    signature: str = ""
    summary: str = ""
    encrypted_content: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class ToolStart:
    """The model begins a tool call."""

    name: str
    placement: ToolPlacement = ToolPlacement.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ToolCallCompleted:
    """The tool call is complete."""

    call: ToolCall
    args_omitted: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool call was answered."""

    use: ToolUse
    result_omitted: bool = False


@dataclass(frozen=True, slots=True)
class ToolDone:
    """Nothing more happens to a tool call."""


@dataclass(frozen=True, slots=True)
class ToolsRequired:
    """The client has to answer tool calls."""

    calls: tuple[ToolCall, ...] = ()
    approvals: tuple[ToolCall, ...] = ()
    deadline_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class EngineCallStarted:
    """An engine call begins."""

    iteration: int
    engine: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class EngineCallFinished:
    """An engine call ended."""

    usage: Usage
    finish_class: FinishClass
    stop_reason: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """A line for people."""

    level: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class AgentMode:
    """The agent's mode changed; `data` is JSON text."""

    title: str
    to_mode: str
    from_mode: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class ThinkingMode:
    """What a thinking mode is at; `extra_data` is JSON text."""

    mode: str = ""
    phase: str = ""
    reasoning: str = ""
    extra_data: str = ""


@dataclass(frozen=True, slots=True)
class ThinkingModeStarted:
    """A phase of a thinking mode begins."""

    thinking_mode: ThinkingMode


@dataclass(frozen=True, slots=True)
class ThinkingModeUpdate:
    """A phase of a thinking mode goes on."""

    thinking_mode: ThinkingMode


@dataclass(frozen=True, slots=True)
class ThinkingModeCompleted:
    """A phase of a thinking mode ended."""

    thinking_mode: ThinkingMode
    success: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class DebuggerPause:
    """Step mode paused the inference; `extra` is JSON text."""

    pause: str
    phase: str
    summary: str = ""
    deadline_time: datetime | None = None
    extra: str = ""


@dataclass(frozen=True, slots=True)
class DebuggerResumed:
    """A pause was released."""

    pause: str
    action: str


@dataclass(frozen=True, slots=True)
class ErrorRaised:
    """Something failed that does not end the inference."""

    error: Failure


@dataclass(frozen=True, slots=True)
class Custom:
    """An event of an application or of a middleware; `json` is JSON text."""

    type: str
    json: str = ""


# The variants that a client which does not know them may skip.
IGNORABLE = frozenset(
    {
        EngineCallStarted,
        EngineCallFinished,
        Log,
        AgentMode,
        ThinkingModeStarted,
        ThinkingModeUpdate,
        ThinkingModeCompleted,
        DebuggerPause,
        DebuggerResumed,
        ErrorRaised,
        Custom,
    }
)

Payload = (
    LlmDelta
    | LlmThinkingDelta
    | ToolDelta
    | InferenceQueued
    | InferenceStarted
    | InferenceAttemptLost
    | InferenceFinished
    | TurnOpened
    | TurnClosed
    | LlmStart
    | LlmFinal
    | LlmThinkingStart
    | LlmThinkingFinal
    | ToolStart
    | ToolCallCompleted
    | ToolResult
    | ToolDone
    | ToolsRequired
    | EngineCallStarted
    | EngineCallFinished
    | Log
    | AgentMode
    | ThinkingModeStarted
    | ThinkingModeUpdate
    | ThinkingModeCompleted
    | DebuggerPause
    | DebuggerResumed
    | ErrorRaised
    | Custom
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `sequence` is 0 until the store has given it one."""

    session_id: str
    inference_id: str
    create_time: datetime
    payload: Payload
    entity: str = ""
    attempt: int = 0
    sequence: int = 0

    @property
    def ignorable(self) -> bool:
        """Whether a client that does not know the variant may skip it."""
        return type(self.payload) in IGNORABLE


@dataclass(frozen=True, slots=True)
class Chunk:
    """Neighbouring events of one inference as one commit left them in the log: the unit of storing and of delivering.

    `data` is the joined frames of the events `first_sequence` to `last_sequence`. A frame is a field of a protobuf
    message: a tag of one byte, the length as a varint, and the encoded event; so joined frames are themselves the
    `events` of a response, and are never encoded again. `state` is the state that the inference was last moved to by
    an event of this chunk, None when none moved it.
    """

    first_sequence: int
    last_sequence: int
    inference_id: str
    state: InferenceState | None
    data: bytes

    def cut(self, after: int, through: int) -> "Chunk | None":
        """Return the part of the chunk in (after, through], None if that is nothing."""
        first, last = max(self.first_sequence, after + 1), min(self.last_sequence, through)
        if first > last:
            return None
        if (first, last) == (self.first_sequence, self.last_sequence):
            return self
        bounds = list(frame_bounds(self.data))
        begin = bounds[first - self.first_sequence][0]
        end = bounds[last - self.first_sequence][1]
        state = self.state if last == self.last_sequence else None
        return replace(self, first_sequence=first, last_sequence=last, state=state, data=self.data[begin:end])


def frame_bounds(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each frame of `data` begins and ends."""
    position = 0
    while position < len(data):
        begin = position
        position += 1  # the tag: field 1, length-delimited
        length = shift = 0
        while True:
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        position += length
        yield begin, position
