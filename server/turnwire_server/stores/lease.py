"""What is written under a lease: the nouns of the calls that an owner makes for the inferences that it runs.

An owner is one server process, known by an id that it mints at its start. A lease is its right to write to one running
inference; `token` names it. The token is random, so it is compared, never ordered: whoever was replaced can never hold
a token that is valid again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from turnwire_server.domain.event import Outcome
from turnwire_server.domain.inference import Inference, InferenceState, Overrides, Usage
from turnwire_server.domain.turn import Block, SnapshotMark, Turn


class Fenced(Exception):  # noqa: N818 - the normal fate of an owner that was replaced, not an error of the contract
    """The lease or the position is not the one in the store: someone else owns the inference now, or it has ended."""


class DeclaredDead(Exception):  # noqa: N818 - the normal fate of an owner that was not heard of for too long
    """The owner is not registered, or not any more: it owns nothing, and has to begin again under another id."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a running inference."""

    principal: str
    inference_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Effect:
    """One tool call of the step under way. `outcome` is what came of it, as the runtime has it; None: not known."""

    call: str
    outcome: bytes | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A running inference, the lease over it, and where to go on.

    `position` counts the events that were appended under leases so far: a new lease goes on from there. `step` counts
    the committed steps, `holds_through` is the sequence of the last event that holds whatever becomes of the attempt,
    `checkpoint` is what the runtime committed with the last step, `effects` are the tool calls since then. `is_lost`:
    an attempt was under way whose owner is gone; it has to be recovered before anything else. `turn` is the turn with
    all its blocks, where the store had them at hand; None: it is to be read. `is_step_mode_off`: it certainly was off.
    """

    lease: Lease
    inference: Inference
    engine: str
    overrides: Overrides
    position: int = 0
    step: int = 0
    holds_through: int = 0
    checkpoint: bytes = b""
    effects: tuple[Effect, ...] = ()
    is_lost: bool = False
    turn: Turn | None = None
    is_step_mode_off: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A step to commit: the blocks that it adds to the turn, its usage, and the encoded events not appended yet.

    `number` is one more than the number of committed steps. `then` is RUNNING, or WAITING_FOR_TOOLS or PAUSED: those
    release the lease, and the last of the events tells of it; `wake_time` is when such a wait has lasted long enough,
    None: it may last. `data` are all data of the turn from now on; None: as they were. `marks` are snapshots of the
    turn to keep, behind those that it has.
    """

    number: int
    blocks: tuple[Block, ...] = ()
    usage: Usage = Usage()
    model: str = ""
    events: tuple[bytes, ...] = ()
    checkpoint: bytes = b""
    then: InferenceState = InferenceState.RUNNING
    wake_time: datetime | None = None
    data: Mapping[str, str] | None = None
    marks: tuple[SnapshotMark, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an inference ends: what it did since the last step, and the encoded events not appended yet; see Step."""

    outcome: Outcome
    usage: Usage = Usage()
    model: str = ""
    blocks: tuple[Block, ...] = ()
    events: tuple[bytes, ...] = ()
    data: Mapping[str, str] | None = None
    marks: tuple[SnapshotMark, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """A running inference as its owner has to know it all the time: no more than is cheap to read."""

    inference_id: str
    token: str
    is_cancel_requested: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What runs under leases of an owner, and how often each other owner that runs something has beaten."""

    running: tuple[Running, ...] = ()
    beats: Mapping[str, int] = field(default_factory=dict[str, int])
