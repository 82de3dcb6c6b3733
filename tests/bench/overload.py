"""Overloads a server: many watchers that stop reading, and an inference that makes the largest events.

    python -m bench.overload [--watchers 5000]

Half of the watchers follow the session of the inference live, the other half read a long log from its beginning; none
of them reads on. Meanwhile the inference has to come to its end, twice: while the buffers of those who follow fill, and
once they are full. A watcher who reads has to get every event, and the server must not hold more than
KIB_PER_WATCHER_MAX for each of those who do not.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import SUBSCRIBE
from bench.machine import make_scratch, take_load_core
from bench.processes import BenchProcess, our_server
from bench.stopped_watchers import StoppedWatchers
from bench.turnwire_calls import Calls, Started
from turnwire.testing.v1 import script_pb2
from turnwire.v1 import inference_service_pb2 as pb

# What a watcher that does not read costs at most: a response, which has 256 KiB and a chunk, and what gRPC makes of it:
# a copy, and what it has told the socket already.
KIB_PER_WATCHER_MAX = 1024

# What the server may take for producing: rings, buffers, and the store's cache.
FIXED_KIB_MAX = 64 * 1024

# A block with deltas of 128 KiB, the largest there are, and a final that has just under 256 KiB.
DELTA_LENGTH, TEXT, TEXT_REPEAT = 65_536, "é" * 1024, 124


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Seconds are those of the inference, alone with the one who reads, and with everyone."""

    watchers: int
    events: int
    largest_event_bytes: int
    seconds_alone: float
    seconds_filling: float
    seconds_full: float
    kib_per_watcher: float
    peak_mib: float


def largest_events(blocks: int) -> script_pb2.Script:
    """Return a script that says blocks of the largest events there are; each has half a MiB of them."""
    script = script_pb2.Script(delta_length=DELTA_LENGTH)
    call = script.calls.add()
    for _ in range(blocks):
        call.steps.add(text=script_pb2.ScriptedText(text=TEXT, repeat=TEXT_REPEAT))
    return script


def overload(folder: Path, watchers: int, blocks: int) -> Outcome:
    """Do it. Errors: ValueError when the watcher who reads does not get every event once, or the inference fails."""
    limits = ("--watchers-max", str(watchers + 10))
    with our_server(str(folder / "bench.db"), *limits) as server, Calls(server.address) as calls:
        long = calls.start(largest_events(blocks))
        calls.finish(long)  # what is needed once is there from now on
        session_id = calls.create_session()
        first = calls.start(None, session_id)
        calls.finish(first)
        alone, _, _ = _run_and_read(server, calls, session_id, blocks)
        before = server.pss_kib()
        with (
            StoppedWatchers(server.address, SUBSCRIBE, first.follow()) as live,
            StoppedWatchers(server.address, SUBSCRIBE, long.follow_all()) as replaying,
        ):
            live.add(watchers - watchers // 2)
            replaying.add(watchers // 2)
            filling, _, _ = _run_and_read(server, calls, session_id, blocks)
            full, events, largest = _run_and_read(server, calls, session_id, blocks)
            grown = server.pss_kib() - before
        return Outcome(
            watchers,
            events,
            largest,
            alone,
            filling,
            full,
            max(0.0, grown - FIXED_KIB_MAX) / watchers,
            server.peak_kib() / 1024,
        )


def _run_and_read(server: BenchProcess, calls: Calls, session_id: str, blocks: int) -> tuple[float, int, int]:
    """Run an inference with one watcher who reads; return how long it took, its events, and the size of the largest."""
    began = time.perf_counter()
    started = calls.start(largest_events(blocks), session_id)
    with Calls(server.address) as own, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read, own, started)
        ended = calls.finish(started)
        seconds = time.perf_counter() - began
        events, largest = reading.result()
    due = ended.last_sequence - ended.first_sequence + 1
    if events != due:
        msg = f"the watcher who reads got {events} events, not {due}"
        raise ValueError(msg)
    return seconds, events, largest


def _read(calls: Calls, started: Started) -> tuple[int, int]:
    """Read an inference to its end; return its events and the size of the largest. Errors: ValueError for a gap."""
    count = last = largest = 0
    for response in calls.inference.SubscribeEvents(pb.SubscribeEventsRequest.FromString(started.until_end())):
        for event in response.events:
            if last and event.sequence != last + 1:
                msg = f"{event.sequence} came after {last}"
                raise ValueError(msg)
            last, count, largest = event.sequence, count + 1, max(largest, event.ByteSize())
    return count, largest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description="Watchers that stop reading.")
    parser.add_argument("--watchers", type=int, default=5000, help="how many do not read (default: 5000)")
    parser.add_argument("--blocks", type=int, default=40, help="half MiBs that the inference makes (default: 40)")
    options = parser.parse_args(arguments)
    take_load_core()
    with make_scratch() as folder:
        outcome = overload(Path(folder), options.watchers, options.blocks)
    print(
        f"{outcome.watchers:,} watchers that do not read: {outcome.kib_per_watcher:,.0f} KiB each beyond"
        f" {FIXED_KIB_MAX // 1024} MiB, at most {KIB_PER_WATCHER_MAX:,}; peak {outcome.peak_mib:,.0f} MiB"
    )
    print(
        f"the inference: {outcome.events} events of up to {outcome.largest_event_bytes:,} bytes, all received;"
        f" {outcome.seconds_alone:.2f} s alone, {outcome.seconds_filling:.2f} s while buffers fill,"
        f" {outcome.seconds_full:.2f} s once they are full"
    )
    return 0 if outcome.kib_per_watcher <= KIB_PER_WATCHER_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
