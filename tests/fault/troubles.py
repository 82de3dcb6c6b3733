"""The times in which a server was out of reach, stopped or without its disk: what they explain, and how long they were.

Whatever a client is not told, or is told late, has to be explained by one of them. All times are monotonic.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

# The trouble of every server that is told to end, and of who comes before the next one listens.
DOWN = "down"


class Failure(Enum):
    """How a call can fail without a reason that the contract has for it."""

    SILENCE = "no answer in time"
    BREAK = "a connection that is gone"
    STORE = "STORE_UNAVAILABLE"


# What a network does to calls. The server itself goes on.
NETWORK = frozenset({Failure.BREAK, Failure.SILENCE})


@dataclass(slots=True, eq=False)
class Trouble:
    """One stretch of time, and the failures that it explains: of calls that were under way in it."""

    kind: str
    explains: frozenset[Failure]
    began: float
    ended: float = float("inf")


class Troubles:
    """All troubles of a test. There are a few in a minute."""

    def __init__(self) -> None:
        self._all: list[Trouble] = []

    def begin(self, kind: str, explains: Collection[Failure]) -> Trouble:
        """Say that a trouble begins."""
        trouble = Trouble(kind, frozenset(explains), time.monotonic())
        self._all.append(trouble)
        return trouble

    def end(self, trouble: Trouble) -> None:
        """Say that a trouble is over, for everyone and everything."""
        trouble.ended = time.monotonic()

    def end_all(self) -> None:
        """Say that there is no trouble any more: there is a new server."""
        for trouble in self._all:
            trouble.ended = min(trouble.ended, time.monotonic())

    def explain(self, failure: Failure, since: float) -> bool:
        """Whether there was a trouble, since a call was made, that explains how it failed."""
        return any(failure in each.explains and each.ended >= since for each in self._all)

    def has_struck(self, failure: Failure, since: float) -> bool:
        """Whether there was a trouble since then that explains a failure, besides that a server ends."""
        return any(failure in each.explains and each.ended >= since and each.kind != DOWN for each in self._all)

    def was_held_up(self, since: float) -> bool:
        """Whether a server was held up since then: by any trouble that is not the network's alone."""
        return any(each.explains != NETWORK and each.ended >= since for each in self._all)

    def was_any(self, since: float) -> bool:
        """Whether there was a trouble since then."""
        return any(each.ended >= since for each in self._all)

    def seconds(self, since: float) -> float:
        """Return how long there was any trouble since then."""
        until = time.monotonic()
        total, reached = 0.0, since
        for each in self._all:  # in the order in which they began
            if each.explains and each.ended > reached:
                total += max(0.0, min(each.ended, until) - max(each.began, reached))
                reached = max(reached, min(each.ended, until))
        return total
