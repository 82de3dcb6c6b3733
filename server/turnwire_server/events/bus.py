"""The Bus port: hints that something changed.

A hint may be lost, doubled or late: whoever acts on one reads the store first, and looks there from time to time
anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class HintKind(Enum):
    """What a hint is about."""

    QUEUED = "queued"  # an inference may be waiting to be claimed
    CANCEL = "cancel"  # a cancel of a running inference was requested
    ADVANCED = "advanced"  # a log has grown, or is gone
    STEP_MODE = "step mode"  # step mode of some session was turned on or off


@dataclass(frozen=True, slots=True)
class Hint:
    """That something changed. `inference_id` is empty where any inference may be meant.

    ADVANCED has the principal and the session, and the newest sequence, None if the log is gone.
    """

    kind: HintKind
    inference_id: str = ""
    principal: str = ""
    session_id: str = ""
    head_sequence: int | None = None


class Bus(Protocol):
    """Carries hints between the processes that share a store."""

    def publish(self, hint: Hint) -> None:
        """Send a hint to every subscriber, this process's included. It does not block and does not fail."""
        ...

    def subscribe(self, receive: Callable[[Hint], None]) -> Callable[[], None]:
        """Have `receive` called on the event loop for every hint; return what ends that."""
        ...


class InProcessBus:
    """The bus of a single process."""

    def __init__(self) -> None:
        self._receivers: list[Callable[[Hint], None]] = []

    def publish(self, hint: Hint) -> None:
        """See Bus."""
        for receive in tuple(self._receivers):
            receive(hint)

    def subscribe(self, receive: Callable[[Hint], None]) -> Callable[[], None]:
        """See Bus."""
        self._receivers.append(receive)
        return lambda: self._receivers.remove(receive)
