"""Says where the time of our server goes under a load: the functions that it is in most often, as py-spy samples them.

    python -m bench.profiler streams|starts [--seconds 5] [--sources 1] [--watchers 1] [--top 40]

`streams` streams flat out, over and over; `starts` starts inferences whose engine is parked. py-spy is in the
environment of the peers; it has to be allowed to look into other processes.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import Turnwire
from bench.h2load import Posted, run_h2load
from bench.machine import PEERS_PYTHON, make_scratch, take_load_core
from bench.processes import BenchProcess, our_server
from bench.stream_rate import measure_stream
from bench.turnwire_calls import parked, start_request

SAMPLES_PER_SECOND = 200

# Where a thread only waits, which py-spy cannot tell for these.
WAITING = ("_worker (", "GroupCommitWriter._take (", "EpollSelector.select (", "Thread.run (")

# Deliveries of one stream: about as many as there are in a second.
DELIVERIES = 50_000
STARTS, CLIENTS = 100, 16


def profile(server: BenchProcess, options: argparse.Namespace, into: Path) -> float:
    """Load a server while it is sampled into a file; return what was done per second. Errors: OSError."""
    sampler = (str(PEERS_PYTHON.with_name("py-spy")), "record", "--format", "raw", "--output", str(into))
    length = ("--duration", str(options.seconds), "--rate", str(SAMPLES_PER_SECOND), "--pid", str(server.pid))
    with subprocess.Popen([*sampler, *length], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sampling:
        rates: list[float] = []
        while sampling.poll() is None:
            rates.append(_load(server, options))
    if sampling.returncode:
        msg = f"py-spy ended with {sampling.returncode}; is it allowed to look into other processes?"
        raise OSError(msg)
    return max(rates)


def _load(server: BenchProcess, options: argparse.Namespace) -> float:
    if options.load == "streams":
        events = DELIVERIES // (options.sources * options.watchers)
        return measure_stream(Turnwire("full", server), options.sources, options.watchers, events).per_second
    body = start_request(parked()).SerializeToString()
    began = time.perf_counter()
    run_h2load(server.address, [Posted("/turnwire.v1.InferenceService/StartInference", body, CLIENTS, STARTS)])
    return STARTS / (time.perf_counter() - began)


def summarize(stacks: Sequence[str], top: int) -> list[str]:
    """Return a line for each of the functions that are in most stacks: how often it was in one, and was the innermost.

    Stacks of threads that wait are left out.
    """
    within, itself, total = Counter[str](), Counter[str](), 0
    for stack in stacks:
        names, _, count = stack.rpartition(" ")
        frames = names.split(";")
        if frames[-1].startswith(WAITING):
            continue
        total += int(count)
        itself[frames[-1]] += int(count)
        for each in set(frames):
            within[each] += int(count)
    return [f"{count / total:6.1%} {itself[name] / total:6.1%}  {name}" for name, count in within.most_common(top)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiler", description="Says where the time goes.")
    parser.add_argument("load", choices=("streams", "starts"))
    parser.add_argument("--seconds", type=int, default=5, help="how long it is sampled (default: 5)")
    parser.add_argument("--sources", type=int, default=1, help="streams: inferences (default: 1)")
    parser.add_argument("--watchers", type=int, default=1, help="streams: watchers of each (default: 1)")
    parser.add_argument("--top", type=int, default=40, help="how many functions are shown (default: 40)")
    options = parser.parse_args(arguments)
    take_load_core()
    with make_scratch() as folder:
        samples = Path(folder) / "samples"
        with our_server(f"{folder}/bench.db", "--inferences-running-max", "100000") as server:
            rate = profile(server, options, samples)
        print(f"{rate:,.0f} per second at the most, while it was sampled\nwithin itself")
        print("\n".join(summarize(samples.read_text("utf-8").splitlines(), options.top)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
