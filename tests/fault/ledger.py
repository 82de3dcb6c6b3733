"""The memory of the test: what clients asked for, what they were told, and what watchers saw. Bounded per session."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from fault.logbook import Logbook
from fault.plays import Play
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_pb2 import NewSession, Session
from turnwire.v1.session_service_pb2 import CreateSessionRequest
from turnwire_conformance.promises import Watch

# What all sessions of the test have.
LABELS = {"test": "fault"}

# The ended inferences of a session whose requests are kept, to be repeated.
ASKED_KEPT = 8


@dataclass(eq=False)
class Asked:
    """A start that a client asked for.

    `seen` is the inference as it was last told, empty until a reply came; `is_created` says that a reply had `created`.
    `open_count` counts the requests that may be carried out yet: those that this life's server has not answered.
    The lives are numbers of servers: which was first asked, was asked last, was last known to run it, and acknowledged
    its cancel. `cancel_time` is when the first one was sent. `has_ended_in_log` says that a watcher saw its terminal
    event.
    """

    request: StartInferenceRequest
    play: Play
    first_life: int
    seen: Inference = field(default_factory=Inference)
    sent_count: int = 0
    sent_life: int = 0
    open_count: int = 0
    is_created: bool = False
    cancel_count: int = 0
    cancel_time: float = 0.0
    asked_time: float = field(default_factory=time.monotonic)
    running_life: int = 0
    cancel_life: int = 0
    has_ended_in_log: bool = False

    def count_cancel(self) -> None:
        """Say that it is about to be cancelled."""
        self.cancel_time = self.cancel_time or time.monotonic()
        self.cancel_count += 1

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return self.request.idempotency_key

    @property
    def inference_id(self) -> str:
        """The inference; empty until a reply came."""
        return self.seen.inference_id


@dataclass(eq=False)
class SessionLedger:
    """One session. `names` are the name that was acknowledged last, and those that were sent after it.

    `unanswered` are starts without a reply; `recent` those whose inference ended since the last audit, and a few more.
    `ended` and `turns` have a digest of each ended inference and of each closed turn. `to_watch` names an inference to
    the watcher with a filter; `moved` is set whenever a watcher has moved.
    """

    session_id: str
    session: Session = field(default_factory=Session)
    names: list[str] = field(default_factory=lambda: [""])
    unanswered: list[Asked] = field(default_factory=list[Asked])
    unfinished: dict[str, Asked] = field(default_factory=dict[str, Asked])
    recent: dict[str, Asked] = field(default_factory=dict[str, Asked])
    ended: dict[str, bytes] = field(default_factory=dict[str, bytes])
    turns: dict[int, bytes] = field(default_factory=dict[int, bytes])
    watches: list[Watch] = field(default_factory=list[Watch])
    to_watch: asyncio.Queue[Inference] = field(default_factory=lambda: asyncio.Queue[Inference](maxsize=1))
    created: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    book: Logbook = field(default_factory=Logbook)
    delete_count: int = 0
    is_deleted: bool = False
    settled_era: int = 0

    @property
    def creation(self) -> CreateSessionRequest:
        """The request that creates the session, the same each time."""
        new = NewSession(session_id=self.session_id, labels=LABELS)
        return CreateSessionRequest(session=new, idempotency_key=f"{self.session_id}/create")

    @property
    def is_deleting(self) -> bool:
        """Whether the session may be gone: a request to delete it was sent."""
        return self.delete_count > 0

    def behind(self, sequence: int) -> list[Watch]:
        """Return the watchers that have not got to a sequence, or to the end of the inference that they watch."""
        return [
            watch
            for watch in self.watches
            if (watch.inference_id in self.ended and not watch.end if watch.inference_id else watch.position < sequence)
        ]

    def find(self, inference_id: str) -> Asked | None:
        """Return what asked for an inference, as long as that is known."""
        return self.unfinished.get(inference_id) or self.recent.get(inference_id)

    def forget(self) -> None:
        """Drop the oldest of the inferences that ended."""
        for inference_id in list(self.recent)[:-ASKED_KEPT]:
            del self.recent[inference_id]


@dataclass
class Tally:
    """What a test has seen so far, for people."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    plays: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])

    @property
    def all(self) -> tuple[Counter[str], ...]:
        """All of its counters."""
        return self.outcomes, self.plays, self.counts
