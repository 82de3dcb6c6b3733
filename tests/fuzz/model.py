"""What a client may expect of sessions, as pure records: each command from a state of rest leads to another one.

At rest, of each session the first in its line waits for something (for its client, for a release, or for ever, because
its script says so), and the others are QUEUED. What happens on the way there is not modelled; what is found there is
certain.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from support.live import CANCELLED, FAILED, PAUSED, QUEUED, RUNNING, SUCCEEDED, WAITING
from turnwire.v1.inference_pb2 import (
    CONFLICT_POLICY_ENQUEUE,
    CONFLICT_POLICY_REJECT,
    CONFLICT_POLICY_ROLLBACK,
)

ENDED = (SUCCEEDED, FAILED, CANCELLED)
NAMES: dict[int, str] = {
    QUEUED: "QUEUED",
    RUNNING: "RUNNING",
    WAITING: "WAITING_FOR_TOOLS",
    PAUSED: "PAUSED",
    SUCCEEDED: "SUCCEEDED",
    FAILED: "FAILED",
    CANCELLED: "CANCELLED",
}

# How many may wait in a session's line.
QUEUE_DEPTH_MAX = 3


class Kind(StrEnum):
    """What an inference does: say something, fail, call two tools of its client and go on, or nothing ever again."""

    QUICK = "quick"
    FAIL = "fail"
    TOOLS = "tools"
    HANG = "hang"


# Where an inference comes to rest, one place after the other; PAUSED only in step mode.
_STATIONS = {
    Kind.QUICK: (PAUSED, SUCCEEDED),
    Kind.FAIL: (FAILED,),
    Kind.TOOLS: (PAUSED, WAITING, PAUSED, PAUSED, SUCCEEDED),
    Kind.HANG: (RUNNING,),
}
CALLS = ("call_1", "call_2")


@dataclass(slots=True, eq=False)
class ModelInference:
    """One inference. `pending` are the calls that its client has still to answer."""

    inference_id: str
    kind: Kind
    attempts_max: int = 1
    state: int = QUEUED
    losses: int = 0
    turn: int | None = None
    is_parent_fixed: bool = False
    parent: int | None = None
    pending: tuple[str, ...] = CALLS
    _station: int = 0
    _is_stepping_over: bool = False

    def go_on(self, *, step_mode: bool) -> None:
        """Go on to where it comes to rest next."""
        for station in _STATIONS[self.kind][self._station :]:
            self._station += 1
            if station != PAUSED or (step_mode and not self._is_stepping_over):
                self.state = station
                return

    def step_over(self) -> None:
        """It is not paused any more."""
        self._is_stepping_over = True


@dataclass(frozen=True, slots=True)
class Refused:
    """A command is refused: with a reason, and with an inference_id where that is said."""

    reason: str
    inference_id: str = ""


@dataclass(slots=True, eq=False)
class ModelSession:
    """One session. `line` are its inferences that have not ended, in order; `parents` has the parent of each turn.

    `is_certain` is False once something happened before the session was at rest: then only promises hold.
    """

    session_id: str
    revision: int = 1
    display_name: str = ""
    step_mode: bool = False
    inferences: list[ModelInference] = field(default_factory=list[ModelInference])
    line: list[ModelInference] = field(default_factory=list[ModelInference])
    parents: list[int | None] = field(default_factory=list[int | None])
    owners: list[str] = field(default_factory=list[str])
    is_certain: bool = True

    def refusal(self, policy: int, *, has_input: bool) -> Refused | None:
        """Return why a start is refused, None if it is accepted."""
        if self.line and policy == CONFLICT_POLICY_REJECT:
            return Refused("SESSION_BUSY", self.line[0].inference_id)
        if len(self.line) - 1 >= QUEUE_DEPTH_MAX:
            return Refused("QUEUE_FULL")
        if not has_input and not self._has_parent(policy):
            return Refused("EMPTY_TURN")
        return None

    def _has_parent(self, policy: int) -> bool:
        if self.line and policy == CONFLICT_POLICY_ROLLBACK:
            return self._parent_of_displaced()[1] is not None
        return bool(self.parents)

    def _parent_of_displaced(self) -> tuple[bool, int | None]:
        """Return whether the parent of what displaces the first in line is fixed, and which one it is."""
        first = self.line[0]
        if first.turn is not None:
            return True, self.parents[first.turn]
        return first.is_parent_fixed, first.parent

    def start(self, inference: ModelInference, policy: int) -> None:
        """Accept an inference."""
        self.inferences.append(inference)
        if not self.line or policy == CONFLICT_POLICY_ENQUEUE:
            self.line.append(inference)
        else:
            if policy == CONFLICT_POLICY_ROLLBACK:
                inference.is_parent_fixed, inference.parent = self._parent_of_displaced()
            self.line.pop(0).state = CANCELLED
            self.line.insert(0, inference)
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Let what can run go on, one after the other."""
        while self.line and self.line[0].state == QUEUED:
            first = self.line[0]
            if first.turn is None:
                first.turn = len(self.parents)
                latest = len(self.parents) - 1 if self.parents else None
                self.parents.append(first.parent if first.is_parent_fixed else latest)
                self.owners.append(first.inference_id)
            first.go_on(step_mode=self.step_mode)
            self.drop_ended()

    def drop_ended(self) -> None:
        """Take those out of the line that have ended."""
        self.line = [each for each in self.line if each.state not in ENDED]

    def cancel(self, inference: ModelInference) -> None:
        """End an inference, if it has not ended yet."""
        if inference.state not in ENDED:
            inference.state = CANCELLED
            self.drop_ended()
            self.come_to_rest()

    def answer(self, inference: ModelInference, calls: tuple[str, ...]) -> None:
        """Take the answers to calls; when none is missing the inference goes on."""
        inference.pending = tuple(call for call in inference.pending if call not in calls)
        if not inference.pending:
            inference.state = QUEUED
            self.come_to_rest()

    def release(self, inference: ModelInference, *, continues: bool = False, aborts: bool = False) -> None:
        """Release a pause."""
        if continues:
            inference.step_over()
        inference.state = FAILED if aborts else QUEUED
        self.drop_ended()
        self.come_to_rest()

    def set_step_mode(self, *, enabled: bool) -> None:
        """Turn step mode on or off; off, it releases a pause."""
        self.step_mode = enabled
        if not enabled and self.line and self.line[0].state == PAUSED:
            self.release(self.line[0], continues=True)

    def lose(self) -> None:
        """The process that runs the first in line is killed."""
        if self.line and self.line[0].state == RUNNING:
            first = self.line[0]
            first.losses += 1
            if first.losses >= first.attempts_max:
                first.state = FAILED
                self.drop_ended()
                self.come_to_rest()

    def closed_turns(self) -> int:
        """Return how many turns, from the first one on, are CLOSED."""
        open_turns = [each.turn for each in self.line if each.turn is not None]
        return min([*open_turns, len(self.parents)])
