"""Inferences, and the state machine they live by. Everything that affects legality is in this file.

`TRANSITIONS` is the diagram of inference.proto; a test compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType

from turnwire_server.domain.errors import Failure
from turnwire_server.domain.tool import Tool


class InferenceState(IntEnum):
    """The states of an inference. Numbers are those of the contract."""

    QUEUED = 1
    RUNNING = 2
    WAITING_FOR_TOOLS = 3
    PAUSED = 4
    SUCCEEDED = 5
    FAILED = 6
    CANCELLED = 7

    @property
    def is_terminal(self) -> bool:
        """Whether no move leads out of it."""
        return not TRANSITIONS[self]


_Q, _R, _W, _P, _S, _F, _C = InferenceState

TRANSITIONS: Mapping[InferenceState, frozenset[InferenceState]] = MappingProxyType(
    {
        _Q: frozenset({_R, _F, _C}),
        _R: frozenset({_W, _P, _Q, _S, _F, _C}),
        _W: frozenset({_Q, _F, _C}),
        _P: frozenset({_Q, _F, _C}),
        _S: frozenset(),
        _F: frozenset(),
        _C: frozenset(),
    }
)


# Where an inference waits for its client, and no process is held.
WAITING_STATES = frozenset({_W, _P})


class IllegalTransition(Exception):  # noqa: N818 - a defect of ours, never an error of the contract
    """A move that TRANSITIONS does not have. Nothing was changed."""


class FinishClass(IntEnum):
    """How the output of an inference ended. Numbers are those of the contract."""

    UNSPECIFIED = 0
    COMPLETED = 1
    MAX_TOKENS = 2
    MAX_ITERATIONS = 3
    TOOL_CALLS_PENDING = 4
    INTERRUPTED = 5
    ERROR = 6


class ConflictPolicy(IntEnum):
    """What happens when a session already has an unfinished inference. Numbers are those of the contract."""

    REJECT = 1
    ENQUEUE = 2
    INTERRUPT = 3
    ROLLBACK = 4


class WaitUntil(IntEnum):
    """When Wait returns before its timeout. Numbers are those of the contract."""

    CLIENT_ACTION = 1
    END = 2


# The most that a field of the contract's Usage holds.
TOKENS_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens used; 0 where the engine did not report them, and TOKENS_MAX where there are more, in a sum as well."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        # What an engine reports is not ours to trust, and an inference must not fail for what it has used.
        for name in self.__slots__:
            object.__setattr__(self, name, min(max(getattr(self, name), 0), TOKENS_MAX))

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """The configuration of engine calls. None and empty mean: not set here."""

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    seed: int | None = None
    reasoning_effort: str = ""
    iterations_max: int | None = None
    tool_choice: str = ""
    parallel_tool_calls: bool | None = None

    def overlaid(self, other: "InferenceConfig") -> "InferenceConfig":
        """Return this configuration with every field that `other` sets."""
        is_set = {name: value for name in self.__slots__ if (value := getattr(other, name)) not in (None, "", ())}
        return replace(self, **is_set)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one StartInference changes of its profile. `output_schema` and `engine_options` are JSON texts."""

    config: InferenceConfig = InferenceConfig()
    tools: tuple[Tool, ...] = ()
    output_schema: str = ""
    engine_options: str = ""
    record_snapshots: bool = False


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference as it stands at the moment of reading. `attempt` counts losses only."""

    session_id: str
    inference_id: str
    state: InferenceState
    create_time: datetime
    profile: str = ""
    config: InferenceConfig = InferenceConfig()
    attempts_max: int = 1
    attempt: int = 0
    queue_position: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    cancel_requested_time: datetime | None = None
    cancel_reason: str = ""
    deadline_time: datetime | None = None
    finish_class: FinishClass = FinishClass.UNSPECIFIED
    usage: Usage = field(default=Usage())
    model: str = ""
    first_sequence: int = 0
    last_sequence: int = 0
    error: Failure | None = None
    turn_index: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is the one inference of its session that has begun and has not ended."""
        return self.start_time is not None and not self.state.is_terminal


def advance(inference: Inference, state: InferenceState) -> Inference:
    """Return the inference in `state`; raise IllegalTransition where TRANSITIONS has no such move."""
    if state not in TRANSITIONS[inference.state]:
        msg = f"inference {inference.inference_id} cannot go from {inference.state.name} to {state.name}"
        raise IllegalTransition(msg)
    return replace(inference, state=state, queue_position=None)
