"""Scenario `resume`: a watcher comes back after a cut, and logs are read again from the store.

How long it takes from the request to the first event that was missed, with a thousand to a hundred thousand events
behind; client: Python, a connection that is open. And how fast a log is replayed, beside as long a log being streamed
live to as many watchers; client: h2load.
"""

from __future__ import annotations

import statistics
import time

import grpc

from bench.bench_run import BenchRun
from bench.contenders import SUBSCRIBE, Contender, running_contenders
from bench.events import DELTA_LENGTH
from bench.figures import Key
from bench.h2load import LoadError, Posted, run_h2load
from bench.raw_rpc import OWN_CONNECTION, call_stream
from bench.stream_rate import measure_stream
from bench.turnwire_calls import Calls, Started, flat_out
from turnwire.v1 import inference_service_pb2 as pb

NAME = "resume"
FIRST, REPLAY, LIVE = "first missed event ms", "replayed deliveries/s", "live deliveries/s"
CONTENDER = "full"


def behind(count: int) -> str:
    """Return what a case is called."""
    return f"{count:,} events behind"


def watched(watchers: int) -> str:
    """Return what a case is called."""
    return f"{watchers} watcher{'s' if watchers > 1 else ''}"


def run(bench: BenchRun) -> None:
    """Measure."""
    folder = bench.folder / NAME
    folder.mkdir()
    scale = bench.scale
    with running_contenders((CONTENDER,), folder) as contenders:
        server = contenders[CONTENDER]
        long, head = _make(server, max(scale.behind))
        read_again, events = _make(server, scale.replay_events)
        for number in bench.each_round(NAME):
            for count in scale.behind:
                after = head - count
                bench.measure(f"{NAME}, {count} behind", _resume, bench, server, long, after, head, number)
            for watchers in scale.replays:
                bench.measure(
                    f"{NAME}, replay to {watchers}",
                    _replay,
                    bench,
                    server,
                    read_again,
                    watchers,
                    events,
                    number,
                )


def _make(server: Contender, events: int) -> tuple[Started, int]:
    """Have a session with a log; return it, and the sequence of its last event."""
    with Calls(server.process.address) as calls:
        started = calls.start(flat_out(events, DELTA_LENGTH))
        return started, int(calls.finish(started).last_sequence)


def _resume(bench: BenchRun, server: Contender, started: Started, after: int, head: int, number: int) -> None:
    with grpc.insecure_channel(server.process.address, options=(OWN_CONNECTION,)) as channel:
        grpc.channel_ready_future(channel).result()
        taken = [_first_missed(channel, started.replay(after), after) for _ in range(bench.scale.resumes)]
    bench.add(Key(NAME, behind(head - after), CONTENDER, FIRST), number, statistics.median(taken) * 1e3)


def _first_missed(channel: grpc.Channel, request: bytes, after: int) -> float:
    """Return how long it takes until the first missed event is there, in seconds; ValueError if it is another one."""
    began = time.perf_counter()
    call = call_stream(channel, SUBSCRIBE, request)
    for message in call:
        taken = time.perf_counter() - began
        events = pb.SubscribeEventsResponse.FromString(message).events
        if events:
            call.cancel()
            if events[0].sequence != after + 1:
                msg = f"the first event after {after} is {events[0].sequence}"
                raise ValueError(msg)
            return taken
    msg = f"there was no event after {after}"
    raise ValueError(msg)


def _replay(bench: BenchRun, server: Contender, started: Started, watchers: int, events: int, number: int) -> None:
    load = run_h2load(server.process.address, [Posted(SUBSCRIBE, started.replay(), watchers)])
    with Calls(server.process.address) as calls:
        count, size = calls.read(started)
    if count != events or load.data_bytes < size * watchers:
        msg = f"{load.data_bytes} bytes were replayed, not {size * watchers}; the log has {count} events, not {events}"
        raise LoadError(msg)
    case = watched(watchers)
    bench.add(Key(NAME, case, CONTENDER, REPLAY), number, events * watchers / (load.end - load.first_request))
    live = measure_stream(server, 1, watchers, bench.scale.replay_events)
    bench.add(Key(NAME, case, CONTENDER, LIVE), number, live.per_second)
