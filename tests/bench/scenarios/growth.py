"""Scenario `growth`: what operations cost as there are more sessions, events of a session, and turns of a session.

The median of sequential calls, in milliseconds, with SQLite at FULL. Client: Python, one call at a time. What is in the
way is put there once, in one file per dimension, and measured in each round at each size. Sessions are made through the
store's own port, events and turns by our server.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.bench_run import BenchRun
from bench.events import DELTA_LENGTH
from bench.figures import Key
from bench.processes import our_server
from bench.turnwire_calls import Calls, Started, flat_out, start_request
from turnwire.v1 import inference_pb2, session_service_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_server.domain.ids import mint_id
from turnwire_server.domain.session import NewSession
from turnwire_server.stores.sqlite import SqliteSessionStore

NAME = "growth"
COST = "ms"
SESSIONS, EVENTS, TURNS = "sessions", "events of a session", "turns of a session"
CONTENDER = "full"

# How many sessions are being made at a time; the store's writer takes as many in one transaction.
MADE_AT_ONCE = 256

# A page of a listing, and the tail of a log that is read.
PAGE = 10
TAIL = 10

# What makes larger what is measured is done far less often, so that a size is still about what it says.
WRITES = ("CreateSession", "StartInference")
READS_PER_WRITE = 30

# What is measured: its name, and what does it once.
Operations = Mapping[str, Callable[[], object]]


def name_of(dimension: str, operation: str) -> str:
    """Return what an operation is called in the figures of a dimension; sizes are the cases."""
    return f"{dimension}: {operation}"


def run(bench: BenchRun) -> None:
    """Measure. Sizes are reached one after the other, and measured in every round before the next one."""
    for dimension, sizes, measure in (
        (SESSIONS, bench.scale.sessions, _at_sessions),
        (EVENTS, bench.scale.events, _at_events),
        (TURNS, bench.scale.turns, _at_turns),
    ):
        folder = bench.folder / f"{NAME}-{dimension.partition(' ')[0]}"
        folder.mkdir()
        bench.measure(f"{NAME}, {dimension}", measure, bench, folder, sizes)


def _at_sessions(bench: BenchRun, folder: Path, sizes: tuple[int, ...]) -> None:
    file, made = folder / "bench.db", 0
    for size in sizes:
        asyncio.run(make_sessions(file, made, size))
        made = size
        began = time.perf_counter()
        with our_server(str(file)) as server, Calls(server.address) as calls:
            bench.add(Key(NAME, str(size), CONTENDER, name_of(SESSIONS, "start of the server")), 1, _ms_since(began))
            started = calls.start()
            calls.finish(started)
            _measure(bench, SESSIONS, size, _session_operations(calls, started))


def _at_events(bench: BenchRun, folder: Path, sizes: tuple[int, ...]) -> None:
    with our_server(str(folder / "bench.db")) as server, Calls(server.address) as calls:
        started, head = calls.start(), 0
        head = calls.finish(started).last_sequence
        for size in sizes:
            if size > head:
                started = calls.start(flat_out(size - head, DELTA_LENGTH), started.session_id)
                head = calls.finish(started).last_sequence
            _measure(bench, EVENTS, size, _event_operations(calls, started))


def _at_turns(bench: BenchRun, folder: Path, sizes: tuple[int, ...]) -> None:
    with our_server(str(folder / "bench.db")) as server, Calls(server.address) as calls:
        started, made = calls.start(), 1
        calls.finish(started)
        for size in sizes:
            for _ in range(size - made):
                calls.finish(calls.start(None, started.session_id))
            made = max(size, made)
            _measure(bench, TURNS, size, _turn_operations(calls, started))


def _measure(bench: BenchRun, dimension: str, size: int, operations: Operations) -> None:
    for number in bench.each_round(f"{NAME}, {size} {dimension}"):
        for operation, do in operations.items():
            taken: list[float] = []
            is_write = any(word in operation for word in WRITES)
            for _ in range(max(1, bench.scale.operations // (READS_PER_WRITE if is_write else 1))):
                began = time.perf_counter()
                do()
                taken.append(_ms_since(began))
            bench.add(Key(NAME, str(size), CONTENDER, name_of(dimension, operation)), number, statistics.median(taken))


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1e3


def _session_operations(calls: Calls, started: Started) -> Operations:
    return {
        "CreateSession": lambda: calls.session.CreateSession(session_service_pb2.CreateSessionRequest()),
        "GetSession": lambda: calls.session.GetSession(
            session_service_pb2.GetSessionRequest(session_id=started.session_id)
        ),
        "ListSessions, a page": lambda: calls.session.ListSessions(
            session_service_pb2.ListSessionsRequest(page_size=PAGE)
        ),
        "StartInference in a new session, to its end": lambda: calls.finish(calls.start()),
        "GetInference": lambda: calls.inference.GetInference(pb.GetInferenceRequest(inference_id=started.inference_id)),
    }


def _event_operations(calls: Calls, started: Started) -> Operations:
    head = calls.inference.ListEvents(pb.ListEventsRequest(session_id=started.session_id, page_size=1)).head_sequence
    tail = pb.SubscribeEventsRequest.FromString(started.replay(max(0, head - TAIL)))
    short = _on_the_first_turn(started)
    return {
        "the last ten events, subscribed": lambda: list(calls.inference.SubscribeEvents(tail)),
        "ListEvents, the last ten": lambda: calls.inference.ListEvents(
            pb.ListEventsRequest(session_id=started.session_id, after_sequence=max(0, head - TAIL))
        ),
        "ListEvents, the first ten": lambda: calls.inference.ListEvents(
            pb.ListEventsRequest(session_id=started.session_id, page_size=PAGE)
        ),
        "append: StartInference, to its end": lambda: _finish(calls, short),
        "GetInference": lambda: calls.inference.GetInference(pb.GetInferenceRequest(inference_id=started.inference_id)),
    }


def _turn_operations(calls: Calls, started: Started) -> Operations:
    newest = session_service_pb2.TurnAt(session_id=started.session_id)
    short = _on_the_first_turn(started)
    return {
        "StartInference on the first turn, to its end": lambda: _finish(calls, short),
        "GetTurn, the newest, what is new": lambda: calls.session.GetTurn(
            session_service_pb2.GetTurnRequest(at=newest, view=turn_pb2.TURN_VIEW_DELTA)
        ),
        "ListTurns, a page of what is new": lambda: calls.session.ListTurns(
            session_service_pb2.ListTurnsRequest(
                session_id=started.session_id, view=turn_pb2.TURN_VIEW_DELTA, page_size=PAGE
            )
        ),
        "ListInferences, a page": lambda: calls.inference.ListInferences(
            pb.ListInferencesRequest(session_id=started.session_id, page_size=PAGE)
        ),
    }


def _on_the_first_turn(started: Started) -> pb.StartInferenceRequest:
    """Return what starts an inference on the first turn: the engine is shown no more as the session grows."""
    request = start_request(None, started.session_id)
    request.parent = 0
    return request


def _finish(calls: Calls, request: pb.StartInferenceRequest) -> inference_pb2.Inference:
    found = calls.inference.StartInference(request).inference
    return calls.finish(Started(found.session_id, found.inference_id))


async def make_sessions(file: Path, first: int, count: int) -> None:
    """Make the sessions `first` to `count` in a store, through its port; at NORMAL, for it is only built."""
    store = await SqliteSessionStore.open(
        str(file), on_commit=lambda _: None, now=lambda: datetime.now(UTC), mint=mint_id, synchronous="normal"
    )
    try:
        for begin in range(first, count, MADE_AT_ONCE):
            names = [f"s{number}" for number in range(begin, min(count, begin + MADE_AT_ONCE))]
            await asyncio.gather(*(store.create_session("local", NewSession(name), mint_id(), None) for name in names))
    finally:
        await store.close()
