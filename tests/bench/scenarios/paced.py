"""Scenario `paced`: a hundred sessions with 50 and with 20 events per second each, which do not speak all at once.

How long an event takes from its making in the engine to the client, p50 and p99 over all events of all sessions, and
the server's CPU time for one. Client: one Python process with one connection, which takes part of that time itself, the
same for everyone. Beside it what a commit of SQLite takes on this disk at that moment.
"""

import statistics
import time

from bench.bench_run import BenchRun
from bench.commit_probe import measure_commit
from bench.contenders import SUBSCRIBE, Bare, Contender, Turnwire, running_contenders
from bench.events import DELTA_LENGTH, Order
from bench.figures import Key
from bench.latency_probe import receive_streams
from bench.turnwire_calls import Calls, Started, paced

NAME = "paced"
P50, P99, CPU = "p50 ms", "p99 ms", "server CPU us/delivery"
CONTENDERS = ("full", "normal", "memory", "nolog", "bare")
COMMIT = "a commit of SQLite"
LEAD_SECONDS = 0.3
LEAD_SECONDS_PER_SESSION = 0.006
COMMITS = 300

Pace = tuple[int, float, float]  # sessions, events of each per second, seconds


def run(bench: BenchRun) -> None:
    """Measure."""
    folder = bench.folder / NAME
    folder.mkdir()
    with running_contenders(CONTENDERS, folder) as contenders:
        for number in bench.each_round(NAME):
            for pace in bench.scale.paced:
                commits = measure_commit(folder, min(COMMITS, bench.scale.unary_requests))
                for quantity, seconds in zip((P50, P99), commits, strict=True):
                    bench.add(Key(NAME, case(pace), COMMIT, quantity), number, seconds * 1e3)
                for each in contenders.values():
                    bench.measure(f"{NAME}, {each.name}", _measure, bench, each, number, pace)


def case(pace: Pace) -> str:
    """Return what a case is called."""
    sessions, rate, _ = pace
    return f"{sessions} sessions x {rate:g} events/s"


def _measure(bench: BenchRun, contender: Contender, number: int, paced_at: Pace) -> None:
    sessions, rate, seconds = paced_at
    events, gap = int(rate * seconds), 1 / rate
    begin_at = time.time() + LEAD_SECONDS + sessions * LEAD_SECONDS_PER_SESSION
    begins = [begin_at + gap * index / sessions for index in range(sessions)]
    match contender:
        case Turnwire():
            path = SUBSCRIBE
            started = _start(contender, begins, events, gap)
            requests = [each.until_end() for each in started]
        case Bare():
            path, started = "/bench.Bare/Stream", list[Started]()
            requests = [Order(events, 1, begin, gap).encode() for begin in begins]
        case _:
            raise TypeError(contender.name)
    before = contender.process.cpu_seconds()
    streams = receive_streams(contender.process.address, path, requests)
    cpu = contender.process.cpu_seconds() - before
    counts = {len(stream) for stream in streams}
    if counts != {events}:
        msg = f"{sorted(counts)} events were received of a stream, not {events}"
        raise ValueError(msg)
    cuts = statistics.quantiles((each for stream in streams for each in stream), n=100)
    delivered = sessions * events
    for quantity, value in ((P50, cuts[49] * 1e3), (P99, cuts[98] * 1e3), (CPU, cpu / delivered * 1e6)):
        bench.add(Key(NAME, case(paced_at), contender.name, quantity), number, value)
    if started and isinstance(contender, Turnwire) and contender.is_volatile:
        with Calls(contender.process.address) as calls:
            for each in started:
                calls.delete(each)


def _start(contender: Turnwire, begins: list[float], events: int, gap: float) -> list[Started]:
    """Start an inference per session; each begins when it is its turn."""
    with Calls(contender.process.address) as calls:
        return [calls.start(paced(events, DELTA_LENGTH, gap, max(0.0, begin - time.time() - gap))) for begin in begins]
