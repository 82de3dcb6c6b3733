"""Scenario `unary`: starting an inference, waiting for it and reading it, beside the echo of bare grpc.aio and a2a-sdk.

Calls per second, 16 at a time. Client: h2load, a connection for each that is under way; where something takes two rpcs
(started and run to its end, which a2a-sdk does with one), the Python probe, also for the echo that it is compared with.
"""

from collections.abc import Sequence
from pathlib import Path

import grpc

from bench.bench_run import BenchRun
from bench.contenders import a2a_get_task, a2a_message
from bench.events import Order
from bench.figures import Key
from bench.h2load import LoadError, Posted, run_h2load
from bench.machine import missing_peers
from bench.processes import BenchProcess, our_server, peer
from bench.raw_rpc import OWN_CONNECTION, call_unary
from bench.turnwire_calls import Calls, parked, start_request
from bench.unary_probe import Work, calling, rate_of, starting_to_the_end
from turnwire.v1 import inference_service_pb2 as pb

NAME = "unary"
RATE, P50 = "calls/s", "p50 ms"
ECHO, PARKED, TO_END, GET, WAIT = (
    "echo",
    "start, engine parked",
    "start, run to its end",
    "get",
    "wait for what has ended",
)
ECHO_OF_PROBE = "echo, Python probe"
OURS = ("full", "normal", "memory")

_INFERENCE_SERVICE = "/turnwire.v1.InferenceService/"
_A2A_SERVICE = "/lf.a2a.v1.A2AService/"

# The bytes before a message over gRPC, and how much the answers to one request differ: times and places in line.
GRPC_PREFIX_BYTES, VARIABLE_BYTES = 5, 24

# What is parked runs, and a server runs no more than this at a time.
PARKED_MAX = 1000


def run(bench: BenchRun) -> None:
    """Measure."""
    for number in bench.each_round(NAME):
        bench.measure(f"{NAME}, bare", _measure_bare, bench, number)
        for name in OURS:
            folder = bench.folder / f"{NAME}-{name}-{number}"
            folder.mkdir()
            bench.measure(f"{NAME}, {name}", _measure_ours, bench, name, folder, number)
        if not missing_peers():
            bench.measure(f"{NAME}, a2a", _measure_a2a, bench, number)


def _measure_bare(bench: BenchRun, number: int) -> None:
    with peer("bare") as server:
        body = start_request().SerializeToString()
        _post(bench, number, ECHO, "bare", server, Posted("/bench.Bare/Echo", body))
        _probe(bench, number, ECHO_OF_PROBE, "bare", server, calling("/bench.Bare/Echo", body))


def _measure_ours(bench: BenchRun, name: str, folder: Path, number: int) -> None:
    """Each round has a new server, because what is parked stays there."""
    arguments = ("--synchronous", name) if name in {"full", "normal"} else ()
    with our_server("memory" if name == "memory" else str(folder / "bench.db"), *arguments) as server:
        with Calls(server.address) as calls:
            started = calls.start()
            calls.finish(started)
        get = pb.GetInferenceRequest(inference_id=started.inference_id).SerializeToString()
        wait = pb.WaitRequest(inference_id=started.inference_id).SerializeToString()
        short, hanging = start_request().SerializeToString(), start_request(parked()).SerializeToString()
        _post(bench, number, GET, name, server, Posted(f"{_INFERENCE_SERVICE}GetInference", get))
        _post(bench, number, WAIT, name, server, Posted(f"{_INFERENCE_SERVICE}Wait", wait))
        _probe(bench, number, TO_END, name, server, starting_to_the_end(short))
        _post(bench, number, PARKED, name, server, Posted(f"{_INFERENCE_SERVICE}StartInference", hanging))


def _measure_a2a(bench: BenchRun, number: int) -> None:
    with peer("a2a") as server:
        path, name = f"{_A2A_SERVICE}SendMessage", "a2a"
        _probe(bench, number, TO_END, name, server, calling(path, a2a_message(Order(1))))
        with grpc.insecure_channel(server.address, options=(OWN_CONNECTION,)) as channel:
            get = a2a_get_task(call_unary(channel, path, a2a_message(Order(1))))
        _post(bench, number, GET, name, server, Posted(f"{_A2A_SERVICE}GetTask", get))
        _post(bench, number, PARKED, name, server, Posted(path, a2a_message(Order(0), is_detached=True)))


def _post(bench: BenchRun, number: int, case: str, name: str, server: BenchProcess, posted: Posted) -> None:
    with grpc.insecure_channel(server.address, options=(OWN_CONNECTION,)) as channel:
        answer = len(call_unary(channel, posted.path, posted.body)) + GRPC_PREFIX_BYTES
    count = min(bench.scale.unary_requests, PARKED_MAX - 1)
    load = run_h2load(server.address, [Posted(posted.path, posted.body, bench.scale.unary_clients, count)])
    if abs(load.data_bytes - count * answer) > count * VARIABLE_BYTES:  # an error has no message, so it would be missed
        msg = f"{posted.path}: {load.data_bytes} bytes were answered, not {count} x {answer}\n{server.log}"
        raise LoadError(msg)
    bench.add(Key(NAME, case, name, RATE), number, count / (load.end - load.first_request))
    bench.add(Key(NAME, case, name, P50), number, _middle(load.latencies) * 1e3)


def _probe(bench: BenchRun, number: int, case: str, name: str, server: BenchProcess, work: Work) -> None:
    rate = rate_of(server.address, work, min(bench.scale.unary_requests, PARKED_MAX), bench.scale.unary_clients)
    bench.add(Key(NAME, case, name, RATE), number, rate)


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]
