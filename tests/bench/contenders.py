"""Who is measured: each contender is a server, and how to have it stream to watchers at a given moment."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench.events import DELTA_LENGTH, EVENT_BYTES, FRAME_BYTES, Order
from bench.h2load import Posted
from bench.processes import BenchProcess, our_server, peer
from bench.turnwire_calls import Calls, Started, flat_out

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

# What is around a message over gRPC; around the events of a response, its two sequences included, and that at most.
GRPC_PREFIX_BYTES, RESPONSE_BYTES, RESPONSE_BYTES_MAX = 5, 13, 40

SUBSCRIBE = "/turnwire.v1.InferenceService/SubscribeEvents"


@dataclass(frozen=True, slots=True)
class Plan:
    """`sources` independent streams of `events` events each, for `watchers` watchers each, from the time `begin_at`."""

    sources: int
    watchers: int
    events: int
    begin_at: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a stream must have brought: `events` events to each watcher, and bytes within bounds to all together.

    `event_bytes` is the part of the bytes that are events; each message has about `message_bytes` besides.
    """

    events: int
    event_bytes: int
    bytes_min: int
    bytes_max: int
    message_bytes: int = 0


class Stream(Protocol):
    """A stream that is prepared: what to post, and what that must have brought."""

    @property
    def posted(self) -> Sequence[Posted]:
        """What to post."""
        ...

    def settle(self) -> Delivered:
        """Return what it must have brought, once it has ended."""
        ...


class Contender(Protocol):
    """A server that streams."""

    @property
    def name(self) -> str:
        """One of CONTENDERS."""
        ...

    @property
    def process(self) -> BenchProcess:
        """Its server."""
        ...

    def prepare(self, plan: Plan) -> Stream:
        """Have the server ready to stream as planned."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A stream whose bytes are known beforehand."""

    posted: Sequence[Posted]
    delivered: Delivered

    def settle(self) -> Delivered:
        return self.delivered


@dataclass(frozen=True, slots=True)
class Bare:
    """Bare grpc.aio, with `batch` events in a message."""

    name: str
    process: BenchProcess
    batch: int

    def prepare(self, plan: Plan) -> Stream:
        """See Contender."""
        body = Order(plan.events, self.batch, plan.begin_at).encode()
        messages = -(-plan.events // self.batch)
        size = plan.events * (FRAME_BYTES + EVENT_BYTES) * plan.sources * plan.watchers
        total = size + messages * GRPC_PREFIX_BYTES * plan.sources * plan.watchers
        posted = [Posted("/bench.Bare/Stream", body, plan.watchers)] * plan.sources
        return _Known(posted, Delivered(plan.events, size, total, total, GRPC_PREFIX_BYTES))


@dataclass(frozen=True, slots=True)
class Sse:
    """fastapi and uvicorn. It knows no watchers: each of them has a stream of its own."""

    name: str
    process: BenchProcess

    def prepare(self, plan: Plan) -> Stream:
        """See Contender."""
        posted = [Posted("/stream", Order(plan.events, 1, plan.begin_at).encode(), plan.watchers, is_http1=True)]
        return _Known(posted * plan.sources, _about(EVENT_BYTES, plan))


@dataclass(frozen=True, slots=True)
class A2a:
    """a2a-sdk over gRPC. Each watcher has a task of its own."""

    name: str
    process: BenchProcess

    def prepare(self, plan: Plan) -> Stream:
        """See Contender."""
        body = a2a_message(Order(plan.events, 1, plan.begin_at))
        posted = [Posted("/lf.a2a.v1.A2AService/SendStreamingMessage", body, plan.watchers)] * plan.sources
        return _Known(posted, _about(EVENT_BYTES + GRPC_PREFIX_BYTES, plan))


def a2a_message(order: Order, *, is_detached: bool = False) -> bytes:
    """Return a lf.a2a.v1.SendMessageRequest, written by hand because our environment has no a2a-sdk."""
    message = _field(1, b"message") + b"\x20\x01" + _field(5, _field(1, order.encode()))  # role: user; one text
    configuration = _field(3, b"\x20\x01") if is_detached else b""  # return_immediately
    return _field(2, message) + configuration


def a2a_get_task(answer: bytes) -> bytes:
    """Return a lf.a2a.v1.GetTaskRequest for the task of a SendMessageResponse: its first id is the task's."""
    found = re.search(rb"\x0a\x24([0-9a-f-]{36})", answer)
    if not found:
        msg = f"there is no task in {answer!r}"
        raise ValueError(msg)
    return _field(2, found[1])


@dataclass(slots=True)
class Turnwire:
    """Our server, on whatever store. `is_volatile`: it keeps everything in memory, so what was measured is deleted."""

    name: str
    process: BenchProcess
    is_volatile: bool = False

    def prepare(self, plan: Plan) -> Stream:
        """See Contender. Each source is an inference of a session of its own that pauses until the stream begins."""
        calls = Calls(self.process.address)
        started: list[Started] = []
        for _ in range(plan.sources):
            script = flat_out(plan.events, DELTA_LENGTH, max(0.0, plan.begin_at - time.time()))
            started.append(calls.start(script))
        posted = [Posted(SUBSCRIBE, each.until_end(), plan.watchers) for each in started]
        return _Told(posted, calls, started, plan, is_deleted=self.is_volatile)


@dataclass(frozen=True, slots=True)
class _Told:
    """A stream of our server: what it brought is read again from its log."""

    posted: Sequence[Posted]
    calls: Calls
    started: Sequence[Started]
    plan: Plan
    is_deleted: bool

    def settle(self) -> Delivered:
        # The inferences are alike; one stands for all, or reading them would take longer than measuring them.
        with self.calls as calls:
            events, size = calls.read(self.started[0])
            if self.is_deleted:
                for each in self.started:
                    calls.delete(each)
        if events < self.plan.events:
            msg = f"the log has {events} events, fewer than the {self.plan.events} deltas"
            raise ValueError(msg)
        watchers = self.plan.sources * self.plan.watchers
        # The other logs differ by the bytes of their times. A response has at least one event, and around its events
        # less than RESPONSE_BYTES_MAX; the first one tells of the log besides.
        slack = 0 if self.plan.sources == 1 else size // 100
        most = (size + slack + RESPONSE_BYTES_MAX * (events + 4)) * watchers
        return Delivered(events, size * watchers, (size - slack) * watchers, most, RESPONSE_BYTES)


def _about(event_bytes: int, plan: Plan) -> Delivered:
    """Return what is due of streams whose events have about a size, with little before and after them."""
    watchers = plan.sources * plan.watchers
    size = plan.events * event_bytes * watchers
    return Delivered(plan.events, size, int(size * 0.97), int(size * 1.03) + 2000 * watchers)


def _field(number: int, content: bytes) -> bytes:
    if len(content) > 0x3FFF:
        raise ValueError("too long")
    length = len(content)
    prefix = bytes((length,)) if length < 0x80 else bytes((length & 0x7F | 0x80, length >> 7))
    return bytes((number << 3 | 2,)) + prefix + content


@contextmanager
def running_contenders(names: Iterable[str], folder: Path) -> Generator[dict[str, Contender]]:
    """Start contenders by their names in CONTENDERS; they are ended with the block."""
    with ExitStack() as stack:
        found = {name: _build(name, folder) for name in names}
        with ThreadPoolExecutor() as pool:
            for each in found.values():
                stack.callback(each.process.stop)
            list(pool.map(BenchProcess.start, [each.process for each in found.values()]))
        yield found


# What each name stands for; the report has this.
CONTENDERS = {
    "full": "our server, SQLite, synchronous FULL: the default",
    "normal": "our server, SQLite, synchronous NORMAL",
    "memory": "our server, memory store",
    "nolog": "our server, events stamped and published, no store behind them",
    "bare": "bare grpc.aio, one event per message",
    "bare64": "bare grpc.aio, 64 events per message",
    "a2a": "a2a-sdk's gRPC server, in-memory store, pieces of an artifact",
    "sse": "server-sent events, fastapi and uvicorn[standard], StreamingResponse",
}
PEERS_OF_THEIR_OWN = frozenset({"a2a", "sse"})  # these need the environment of the peers


def _build(name: str, folder: Path) -> Contender:
    match name:
        case "full" | "normal":
            return Turnwire(name, our_server(str(folder / f"{name}.db"), "--synchronous", name))
        case "memory":
            return Turnwire(name, our_server("memory"), is_volatile=True)
        case "nolog":
            return Turnwire(name, our_server("memory", module="bench.nolog"), is_volatile=True)
        case "bare" | "bare64":
            return Bare(name, peer("bare"), 64 if name == "bare64" else 1)
        case "a2a":
            return A2a(name, peer("a2a"))
        case "sse":
            return Sse(name, peer("sse"))
        case _:
            msg = f"there is no contender {name}; there are {json.dumps(sorted(CONTENDERS))}"
            raise ValueError(msg)
