"""The line of a session: who is in it, and where a new inference enters it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from turnwire_server.domain.inference import ConflictPolicy
from turnwire_server.stores.start import StartCommand, Unfinished

# The policies that displace what is first in line, and put the new inference in its place.
_DISPLACING = frozenset({ConflictPolicy.INTERRUPT, ConflictPolicy.ROLLBACK})


@dataclass(frozen=True, slots=True)
class Parent:
    """The turn to build on. Not fixed: the newest one when the inference first runs. Fixed without an index: none."""

    is_fixed: bool
    index: int | None = None


@dataclass(frozen=True, slots=True)
class InLine:
    """An unfinished inference in a session's line. The active one comes first, the others by rank.

    `parent` is what its turn was built on, or is to be built on if it has none yet.
    """

    unfinished: Unfinished
    rank: int
    parent: Parent


def displaces(policy: ConflictPolicy) -> bool:
    """Whether a start with this policy has the first in line cancelled."""
    return policy in _DISPLACING


def decide_rank(policy: ConflictPolicy, line: Sequence[InLine]) -> int:
    """Return the rank that puts a new inference where its policy says."""
    ranks = [place.rank for place in line] or [0]
    return min(ranks) - 1 if policy in _DISPLACING else max(ranks) + 1


def find_displaced(policy: ConflictPolicy, line: Sequence[InLine]) -> InLine | None:
    """Return what a start with this policy displaces: the active inference, or else the first one in line, if any."""
    return line[0] if line and policy in _DISPLACING else None


def choose_parent(command: StartCommand, displaced: InLine | None) -> Parent:
    """Return the parent that a start is for: the one it names, or that of the turn it rolls back, or the newest one."""
    if command.parent is not None:
        return Parent(is_fixed=True, index=command.parent)
    if command.conflict_policy is ConflictPolicy.ROLLBACK and displaced:
        return displaced.parent
    return Parent(is_fixed=False)
