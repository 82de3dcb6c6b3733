"""Scenario `streams`: flat out, from one watcher to a thousand, and a hundred inferences with one watcher each.

Deliveries per second and the server's CPU time for one, of every contender. Client: h2load, a connection per watcher.
How many events are streamed follows from measurements before the rounds, which are not counted, so that each takes
about as long for everyone.
"""

import shutil

from bench.bench_run import BenchRun
from bench.contenders import Contender, running_contenders
from bench.figures import Key
from bench.stream_rate import measure_stream

NAME = "streams"
RATE, CPU, BATCH = "deliveries/s", "server CPU us/delivery", "events/message, about"

OURS = ("full", "normal", "memory", "nolog")
PEERS = ("bare", "bare64", "sse", "a2a")

# Those who know no watchers of one stream make each watcher a stream of its own; with a thousand they take minutes.
WITHOUT_FANOUT = {"sse": 100, "a2a": 2}

# How often it is tried before the rounds to find out how many events take long enough.
WARM_UPS_MAX = 3

# Bounds of what one source sends: with too few the beginning is what is measured; a script has a bound itself.
EVENTS_MIN, EVENTS_MAX = 20, 250_000


def shape(sources: int, watchers: int) -> str:
    """Return what a shape is called: inferences x watchers of each."""
    return f"{sources} x {watchers}"


def run(bench: BenchRun) -> None:
    """Measure."""
    folder = bench.folder / NAME
    folder.mkdir()
    with running_contenders(bench.present((*OURS, *PEERS)), folder) as contenders:
        for sources, watchers in bench.scale.shapes:
            _run_shape(bench, list(contenders.values()), sources, watchers)
    shutil.rmtree(folder)  # the logs of this scenario are the largest


def _run_shape(bench: BenchRun, contenders: list[Contender], sources: int, watchers: int) -> None:
    among = [each for each in contenders if watchers <= WITHOUT_FANOUT.get(each.name, watchers)]
    events = {each.name: max(EVENTS_MIN, bench.scale.first_deliveries_max // (sources * watchers)) for each in among}
    case = shape(sources, watchers)

    def warm_up(contender: Contender) -> None:
        for _ in range(WARM_UPS_MAX):
            rate = measure_stream(contender, sources, watchers, events[contender.name])
            wanted = rate.per_second * bench.scale.stream_seconds / (sources * watchers)
            events[contender.name] = min(EVENTS_MAX, max(EVENTS_MIN, int(wanted)))
            if rate.seconds > bench.scale.stream_seconds / 2:
                break

    def measure(contender: Contender, round_number: int) -> None:
        rate = measure_stream(contender, sources, watchers, events[contender.name])
        bench.add(Key(NAME, case, contender.name, RATE), round_number, rate.per_second)
        bench.add(Key(NAME, case, contender.name, CPU), round_number, rate.cpu_us)
        if rate.batch is not None:
            bench.add(Key(NAME, case, contender.name, BATCH), round_number, rate.batch)

    for each in among:
        bench.measure(f"{NAME}, {case}, {each.name}, warming up", warm_up, each)
    for number in bench.each_round(f"{NAME} {case}"):
        for each in among:
            bench.measure(f"{NAME}, {case}, {each.name}", measure, each, number)
