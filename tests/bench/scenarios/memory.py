"""Scenario `memory`: what an idle session, an idle watcher, a running inference and a watcher that does not read take.

KiB of the server process (Pss of smaps_rollup) for one of each: what it has more with all of them than before, divided
by their number. Watchers have a connection each. What watchers that do not read cost is compared with what bare
grpc.aio holds for them, whose messages are as large as our largest: the difference is ours.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc

from bench.bench_run import BenchRun
from bench.contenders import SUBSCRIBE
from bench.events import DELTA_LENGTH, EVENT_BYTES, FRAME_BYTES, Order
from bench.figures import Key
from bench.processes import BenchProcess, our_server, peer
from bench.raw_rpc import OWN_CONNECTION, call_stream
from bench.stopped_watchers import StoppedWatchers
from bench.turnwire_calls import Calls, flat_out, parked
from support.rpc import SMALL_WINDOW

NAME = "memory"
KIB = "KiB"
SESSION, WATCHER, INFERENCE, STOPPED = "idle session", "idle watcher", "running inference", "watcher that does not read"

# A bare server that sends messages as large as our largest ones: what it holds for a watcher is gRPC's.
BARE, MESSAGE_BYTES = "bare, 256 KiB per message", 256 * 1024

# How long the server gets to come to rest before it is weighed.
REST_SECONDS = 0.5


def run(bench: BenchRun) -> None:
    """Measure; once, in servers of their own, since memory that was used once is used again."""
    bench.measure(f"{NAME}, {SESSION}", _weigh, bench, SESSION, "full", _add_sessions)
    bench.measure(f"{NAME}, {WATCHER}", _weigh, bench, WATCHER, "full", _add_watchers)
    bench.measure(f"{NAME}, {INFERENCE}", _weigh, bench, INFERENCE, "full", _add_inferences)
    bench.measure(f"{NAME}, {STOPPED}", _weigh_stopped, bench)


def _weigh(bench: BenchRun, case: str, name: str, add: Callable[[ExitStack, BenchProcess, int], None]) -> None:
    """Weigh what `add` adds, one of which is there before, so that what is needed only once is not counted."""
    count = bench.scale.weighed
    with (
        our_server(str(_file(bench, case)), "--inferences-running-max", str(count + 1)) as server,
        ExitStack() as stack,
    ):
        add(stack, server, 1)
        before = _rested(server)
        add(stack, server, count)
        bench.add(Key(NAME, case, name, KIB), 1, (_rested(server) - before) / count)


def _add_sessions(stack: ExitStack, server: BenchProcess, count: int) -> None:
    calls = stack.enter_context(Calls(server.address))
    for _ in range(count):
        calls.create_session()


def _add_inferences(stack: ExitStack, server: BenchProcess, count: int) -> None:
    calls = stack.enter_context(Calls(server.address))
    script = parked()
    for _ in range(count):
        calls.start(script)


def _add_watchers(stack: ExitStack, server: BenchProcess, count: int) -> None:
    started = stack.enter_context(Calls(server.address)).start(parked())
    _watch(stack, server, SUBSCRIBE, started.follow(), count)


def _watch(stack: ExitStack, server: BenchProcess, path: str, request: bytes, count: int) -> None:
    """Open streams on connections of their own, and read no more than the first message of each."""
    options = (OWN_CONNECTION, *SMALL_WINDOW)
    for _ in range(count):
        channel = stack.enter_context(grpc.insecure_channel(server.address, options=options))
        call = call_stream(channel, path, request)
        stack.callback(call.cancel)  # a call that nobody refers to is cancelled at once
        next(call)


def _weigh_stopped(bench: BenchRun) -> None:
    """Weigh watchers that stop reading while much more is sent than any buffer between here and there has."""
    count, events = bench.scale.stopped_watchers, bench.scale.stopped_events
    with our_server(str(_file(bench, STOPPED))) as server, Calls(server.address) as calls:
        session_id = calls.create_session()
        before = _rested(server)
        calls.finish(calls.start(flat_out(events, DELTA_LENGTH), session_id))
        produced = _rested(server)
        bench.add(Key(NAME, "an inference's production, once", "full", KIB), 1, produced - before)
        first = calls.start(None, session_id)
        calls.finish(first)
        with StoppedWatchers(server.address, SUBSCRIBE, first.follow()) as watchers:
            watchers.add(count)
            calls.finish(calls.start(flat_out(events, DELTA_LENGTH), session_id))
            bench.add(Key(NAME, STOPPED, "full", KIB), 1, (_rested(server) - produced) / count)
    with peer("bare") as server:
        before = _rested(server)
        order = Order(events, batch=MESSAGE_BYTES // (EVENT_BYTES + FRAME_BYTES)).encode()
        with StoppedWatchers(server.address, "/bench.Bare/Stream", order) as watchers:
            watchers.add(count)
            bench.add(Key(NAME, STOPPED, BARE, KIB), 1, (_rested(server) - before) / count)


def _rested(server: BenchProcess) -> int:
    time.sleep(REST_SECONDS)
    return server.pss_kib()


def _file(bench: BenchRun, case: str) -> Path:
    folder = bench.folder / f"{NAME}-{case.replace(' ', '-')}"
    folder.mkdir()
    return folder / "bench.db"
