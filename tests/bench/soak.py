"""Loads a server evenly for a long time, and sees that its memory and its rates stay flat.

    python -m bench.soak [--minutes 10] [--into docs/bench]      or: make soak MINUTES=60

Workers start inferences in new sessions, receive every event, and delete the session, as fast as they can; besides
there are watchers of a session in which nothing happens. What is measured in each window is fitted with a line: over
the whole time it may neither rise nor fall by more than a part of its mean. Exit code 1 if something does.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.contenders import SUBSCRIBE
from bench.events import DELTA_LENGTH
from bench.machine import ROOT, describe, make_scratch, take_load_core
from bench.processes import BenchProcess, our_server
from bench.raw_rpc import OWN_CONNECTION, call_stream_async, call_unary_async
from bench.turnwire_calls import Calls, Started, flat_out, parked, start_request
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2

WORKERS = 8
IDLE_WATCHERS = 50
DELTAS = 100

# The windows that are left out at the beginning, while pools and caches fill.
WARM_PART = 0.2
WINDOWS = 50

# How much a line may rise or fall over the whole time, as a part of its mean.
MEMORY_RISE_MAX = 0.05
RATE_CHANGE_MAX = 0.2


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the time: what the server had at its end, and what was done in it per second."""

    seconds: float
    pss_mib: float
    inferences_per_second: float
    events_per_second: float


@dataclass(slots=True)
class Tally:
    """What the workers have done so far."""

    inferences: int = 0
    events: int = 0
    failures: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line through a quantity: its mean, and how much it changes over the whole time as a part of that."""

    quantity: str
    mean: float
    change: float
    is_flat: bool


def judge(windows: Sequence[Window]) -> list[Verdict]:
    """Return how flat memory and rates are; memory that falls is flat. Windows at the beginning are left out."""
    kept = windows[int(len(windows) * WARM_PART) :]
    seconds = [window.seconds for window in kept]
    verdicts: list[Verdict] = []
    for quantity in ("pss_mib", "inferences_per_second", "events_per_second"):
        values: list[float] = [getattr(window, quantity) for window in kept]
        mean = statistics.fmean(values)
        change = statistics.linear_regression(seconds, values).slope * (seconds[-1] - seconds[0]) / mean
        is_flat = change <= MEMORY_RISE_MAX if quantity == "pss_mib" else abs(change) <= RATE_CHANGE_MAX
        verdicts.append(Verdict(quantity, mean, change, is_flat))
    return verdicts


async def _work(channel: grpc.aio.Channel, tally: Tally, end: float) -> None:
    """Do the same over and over; what goes wrong ends it, and is told."""
    request = start_request(flat_out(DELTAS, DELTA_LENGTH)).SerializeToString()
    while time.monotonic() < end and not tally.failures:
        try:
            answer = await call_unary_async(channel, "/turnwire.v1.InferenceService/StartInference", request)
            inference = pb.StartInferenceResponse.FromString(answer).inference
            started = Started(inference.session_id, inference.inference_id)
            sequences: list[int] = []
            async for message in call_stream_async(channel, SUBSCRIBE, started.until_end()):
                sequences += [event.sequence for event in pb.SubscribeEventsResponse.FromString(message).events]
            if sequences != list(range(1, len(sequences) + 1)) or len(sequences) < DELTAS:
                tally.failures.append(f"{len(sequences)} events were received, not all or not in order")
            delete = session_service_pb2.DeleteSessionRequest(session_id=started.session_id)
            await call_unary_async(channel, "/turnwire.v1.SessionService/DeleteSession", delete.SerializeToString())
        except grpc.RpcError as error:
            tally.failures.append(str(error))
        else:
            tally.inferences += 1
            tally.events += len(sequences)


async def _idle(channel: grpc.aio.Channel, request: bytes) -> None:
    """Watch a session in which nothing happens; its heartbeats are all that comes."""
    async for _ in call_stream_async(channel, SUBSCRIBE, request):
        pass


async def soak(server: BenchProcess, seconds: float) -> tuple[list[Window], Tally]:
    """Load a server; return what was measured, and what was done."""
    with Calls(server.address) as calls:
        request = calls.start(parked()).follow()
    began, tally, windows = time.monotonic(), Tally(), list[Window]()
    async with grpc.aio.insecure_channel(server.address, options=[OWN_CONNECTION]) as channel:
        idle = [asyncio.create_task(_idle(channel, request)) for _ in range(IDLE_WATCHERS)]
        workers = [asyncio.create_task(_work(channel, tally, began + seconds)) for _ in range(WORKERS)]
        while time.monotonic() < began + seconds and not tally.failures:
            inferences, events, at = tally.inferences, tally.events, time.monotonic()
            await asyncio.sleep(seconds / WINDOWS)
            now = time.monotonic()
            rates = ((tally.inferences - inferences) / (now - at), (tally.events - events) / (now - at))
            windows.append(Window(now - began, server.pss_kib() / 1024, *rates))
        await asyncio.gather(*workers)
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
    return windows, tally


def _lines(minutes: float, windows: Sequence[Window], tally: Tally, verdicts: Sequence[Verdict]) -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in describe().items() if not name.startswith("peers"))
    return [
        "# Soak",
        "",
        f"Written by `make soak`: {minutes:g} minutes, SQLite at FULL.",
        f"{tally.inferences:,} inferences, {tally.events:,} events, each of them received; {len(windows)} windows.",
        f"{facts}.",
        "",
        "| quantity | mean | change over the time | flat | in the first, the middle and the last window |",
        "|---|---|---|---|---|",
        *(
            f"| {each.quantity} | {each.mean:,.1f} | {each.change:+.1%} | {'yes' if each.is_flat else '**no**'} |"
            f" {', '.join(f'{getattr(windows[at], each.quantity):,.1f}' for at in (0, len(windows) // 2, -1))} |"
            for each in verdicts
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Sees that nothing grows with time.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "bench", help="where soak.md goes")
    options = parser.parse_args(arguments)
    take_load_core()
    with make_scratch() as folder, our_server(f"{folder}/bench.db") as server:
        windows, tally = asyncio.run(soak(server, options.minutes * 60))
        log = server.log
    if tally.failures:
        print(f"soak: {tally.failures[0]}\n{log}", file=sys.stderr)
        return 1
    verdicts = judge(windows)
    lines = _lines(options.minutes, windows, tally, verdicts)
    options.into.mkdir(parents=True, exist_ok=True)
    (options.into / "soak.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    return 0 if all(each.is_flat for each in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
