"""Sessions: the long-lived interactions that inferences, turns and events belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from turnwire_server.domain.inference import InferenceConfig


@dataclass(frozen=True, slots=True)
class InferenceRef:
    """Names one inference."""

    session_id: str
    inference_id: str


@dataclass(frozen=True, slots=True)
class SessionOrigin:
    """The turn that a forked session continues from."""

    session_id: str
    index: int


class PauseAction(IntEnum):
    """What to do with a pause. Numbers are those of the contract."""

    CONTINUE = 1
    STEP = 2
    ABORT = 3


@dataclass(frozen=True, slots=True)
class StepMode:
    """That the inferences of a session pause, for how long at most, and what happens then."""

    deadline: timedelta = timedelta(seconds=30)
    deadline_action: PauseAction = PauseAction.CONTINUE


@dataclass(frozen=True, slots=True)
class Session:
    """One session as it stands at the moment of reading."""

    session_id: str
    create_time: datetime
    update_time: datetime
    log: str
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    profile: str = ""
    expire_time: datetime | None = None
    revision: int = 1
    turn_count: int = 0
    head_sequence: int = 0
    active: InferenceRef | None = None
    queued_count: int = 0
    origin: SessionOrigin | None = None
    step_mode: StepMode | None = None
    config: InferenceConfig = InferenceConfig()


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a client said about a session that does not exist yet. An empty session_id: one is minted."""

    session_id: str = ""
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    profile: str = ""
    ttl: timedelta | None = None
    config: InferenceConfig = InferenceConfig()


@dataclass(frozen=True, slots=True)
class SessionChange:
    """The new values of a session; None keeps the present one."""

    display_name: str | None = None
    labels: Mapping[str, str] | None = None
    metadata: Mapping[str, str] | None = None
    profile: str | None = None
    config: InferenceConfig | None = None
