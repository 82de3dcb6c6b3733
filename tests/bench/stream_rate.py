"""One measurement of a stream: deliveries per second, and what a delivery costs the server."""

import time
from dataclasses import dataclass

from bench.contenders import Contender, Plan
from bench.h2load import LoadError, run_h2load

# How long before the stream begins everything is started: a fixed time, and more for each source, which is a process of
# h2load and an inference, and for each watcher, which is a connection.
LEAD_SECONDS = 0.4
LEAD_SECONDS_PER_SOURCE = 0.012
LEAD_SECONDS_PER_WATCHER = 0.002

# How often it is tried again with twice the lead, when a watcher came after the beginning.
TRIES_MAX = 3


@dataclass(frozen=True, slots=True)
class Rate:
    """Deliveries per second: events times watchers, from the planned beginning until the last watcher had everything.

    `cpu_us` is the CPU time that the server used for one, in microseconds, with everything that it did meanwhile.
    `batch` is about how many events a message had, None where that is not known.
    """

    deliveries: int
    seconds: float
    cpu_us: float
    batch: float | None

    @property
    def per_second(self) -> float:
        """Deliveries per second."""
        return self.deliveries / self.seconds


def measure_stream(contender: Contender, sources: int, watchers: int, events: int) -> Rate:
    """Stream, and return the rate. Errors: LoadError when a watcher did not get everything, or was never in time."""
    lead = LEAD_SECONDS + sources * LEAD_SECONDS_PER_SOURCE + sources * watchers * LEAD_SECONDS_PER_WATCHER
    for tries in range(1, TRIES_MAX + 1):
        plan = Plan(sources, watchers, events, time.time() + lead)
        stream = contender.prepare(plan)
        before = contender.process.cpu_seconds()
        load = run_h2load(contender.process.address, stream.posted)
        cpu = contender.process.cpu_seconds() - before
        due = stream.settle()
        if not due.bytes_min <= load.data_bytes <= due.bytes_max:
            msg = f"{contender.name}: {load.data_bytes} bytes were delivered, not {due.bytes_min} to {due.bytes_max}"
            raise LoadError(msg)
        if load.last_request < plan.begin_at:
            deliveries = due.events * sources * watchers
            around = load.data_bytes - due.event_bytes
            batch = deliveries * due.message_bytes / around if due.message_bytes and around > 0 else None
            return Rate(deliveries, load.end - plan.begin_at, cpu / deliveries * 1e6, batch)
        if tries == TRIES_MAX:
            msg = f"{contender.name}: a watcher came {load.last_request - plan.begin_at:.2f} s after the beginning"
            raise LoadError(msg)
        lead *= 2
    raise AssertionError
