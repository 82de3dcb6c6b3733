"""What becomes of an inference whose watcher asked for a cancel and went away (contract: cancel_after_disconnect).

What counts is this process: its streams, and what it saw of them. When it goes away itself, nothing is cancelled.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import RequestError, StoreUnavailableError
from turnwire_server.domain.inference import Inference
from turnwire_server.events.patience import bounded
from turnwire_server.telemetry.logs import logger

# How many inferences may have lost their watcher at a time. Beyond that a break is logged and nothing else: an
# inference that nobody watches costs less than one that was cancelled too early.
LOST_MAX = 10_000

# How many cancels are under way at a time. They wait for the store only, and it commits them together.
CANCELS_MAX = 64

# How long a cancel may take, and how long after one that the store did not take it is tried again.
CANCEL_SECONDS_MAX = 10.0
RETRY_SECONDS = 1.0

REASON = "its watcher was disconnected and did not come back"

Key = tuple[str, str]  # principal, inference_id

# Cancels an inference: principal, inference_id, reason.
Cancel = Callable[[str, str, str], Awaitable[Inference]]

log = logger()


@dataclass(slots=True)
class Attendance:
    """One open stream of an inference. `has_ended`: it was told its `end`, so that it goes is no break."""

    has_ended: bool = False


class Disconnects:
    """Cancels inferences whose stream broke and did not come back in the time that it had asked for.

    Every stream that names the inference counts as one that came back, whatever it asks for itself; so does one that
    is still open when the time is over. `run` does the work, and returns after `close`.
    """

    def __init__(self, cancel: Cancel, clock: Clock, lost_max: int = LOST_MAX) -> None:
        self._cancel = cancel
        self._clock = clock
        self._lost_max = lost_max
        self._open_counts: Counter[Key] = Counter()  # at most one entry per watcher
        self._due_times: dict[Key, float] = {}  # at most lost_max
        self._next_time = float("inf")  # when run() looks next; never later than the first of those
        self._wake = asyncio.Event()
        self._is_closed = False

    @property
    def lost_count(self) -> int:
        """How many inferences have lost their watcher and are about to be cancelled."""
        return len(self._due_times)

    @contextmanager
    def attend(self, principal: str, inference_id: str, seconds: float | None) -> Generator[Attendance]:
        """Count a stream for as long as it is open. If it breaks, its inference is lost after `seconds`; None: not."""
        key, attendance = (principal, inference_id), Attendance()
        self._open_counts[key] += 1
        self._due_times.pop(key, None)
        try:
            yield attendance
        finally:
            self._open_counts[key] -= 1
            if not self._open_counts[key]:
                del self._open_counts[key]
            if seconds is not None and not attendance.has_ended:
                self._lose(key, seconds)

    def close(self) -> None:
        """Cancel nothing more: this process goes away."""
        self._is_closed = True
        self._due_times.clear()
        self._wake.set()

    async def run(self) -> None:
        """Cancel what is lost, until close()."""
        while not self._is_closed:
            self._wake.clear()
            now = self._clock.monotonic()
            due = [key for key, due_time in self._due_times.items() if due_time <= now][:CANCELS_MAX]
            async with asyncio.TaskGroup() as group:
                for key in due:
                    del self._due_times[key]
                    if key not in self._open_counts:
                        group.create_task(self._give_up(key))
            self._next_time = min(self._due_times.values(), default=float("inf"))
            if self._next_time == float("inf"):
                await self._wake.wait()
            elif (left := self._next_time - self._clock.monotonic()) > 0:
                await self._clock.wait_for(self._wake.wait(), left)

    def _lose(self, key: Key, seconds: float) -> None:
        if self._is_closed:
            return
        if key not in self._due_times and len(self._due_times) >= self._lost_max:
            log.warning("too many lost watchers; the inference goes on", inference_id=key[1])
            return
        due_time = min(self._clock.monotonic() + seconds, self._due_times.get(key, float("inf")))
        self._due_times[key] = due_time
        if due_time < self._next_time:
            self._wake.set()

    async def _give_up(self, key: Key) -> None:
        principal, inference_id = key
        try:
            cancelled = await bounded(
                self._clock, lambda: self._cancel(principal, inference_id, REASON), CANCEL_SECONDS_MAX
            )
        except StoreUnavailableError:
            if key not in self._open_counts:
                self._lose(key, RETRY_SECONDS)
        except RequestError:
            pass  # its session was deleted
        except Exception:  # a defect of one cancel must not keep the others
            log.exception("an inference that its watcher has left cannot be cancelled", inference_id=inference_id)
        else:
            if not cancelled.state.is_terminal:
                log.info("its watcher is gone; cancel requested", inference_id=inference_id)
