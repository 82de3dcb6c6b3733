"""A start: what it is asked for, what is decided on it, and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from turnwire_server.domain.inference import ConflictPolicy, Inference, InferenceConfig, InferenceState, Overrides
from turnwire_server.domain.session import NewSession, Session
from turnwire_server.domain.turn import Block, Turn
from turnwire_server.stores.lease import Claim


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The guard of a call that creates. `fingerprint` is a hash of the request's content without key and timeout."""

    rpc: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class StartCommand:
    """One StartInference as it was asked for. `target` is a session_id or the session to create.

    `inference_id` is the identity that the inference gets, minted by the caller.
    """

    principal: str
    inference_id: str
    target: str | NewSession
    input: tuple[Block, ...] = ()
    parent: int | None = None
    profile: str = ""
    overrides: Overrides = Overrides()
    conflict_policy: ConflictPolicy = ConflictPolicy.REJECT
    idempotency: Idempotency | None = None
    timeout: timedelta | None = None
    attempts_max: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An inference of a session that has not ended."""

    inference_id: str
    state: InferenceState
    is_active: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a decision about a start may look at. `unfinished` is in the order of the line, the active one first."""

    session: Session
    unfinished: tuple[Unfinished, ...]
    parent: Turn | None
    """The turn that `StartCommand.parent` names, or the parent of the one that ROLLBACK displaces, or else the newest
    one; without blocks. None: there is none."""


@dataclass(frozen=True, slots=True)
class Admission:
    """That a start is accepted: with which profile, engine and effective configuration."""

    profile: str
    engine: str
    config: InferenceConfig


# Decides on a start inside the store's transaction, on whatever thread that runs: pure, and fast. Raises a RequestError
# to refuse.
Decide = Callable[[StartCommand, SessionState], Admission]


@dataclass(frozen=True, slots=True)
class Seat:
    """Room that an owner has for one more inference. `token` is the lease of who takes it, as those of a claim are."""

    owner: str
    token: str


@dataclass(frozen=True, slots=True)
class Started:
    """The inference as it is now, whether this call created it, and its claim if it took the seat of the call."""

    inference: Inference
    created: bool
    claim: Claim | None = None
