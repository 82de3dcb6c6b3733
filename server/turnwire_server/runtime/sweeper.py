"""What time makes due: deadlines, clients that were waited for long enough, and whatever else a store sweeps."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from turnwire_server.domain.errors import InferenceNotFoundError, InferenceNotWaitingError
from turnwire_server.events.bus import Bus, Hint, HintKind
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.retention import retire
from turnwire_server.runtime.answers import Answering, decide_silence
from turnwire_server.runtime.guard import Guard
from turnwire_server.runtime.ports import Ports

# How many silent clients are answered for in one round; the others have the next one.
DUE_MAX = 100

# How many logs are cut in one round.
RETIRED_MAX = 10


class Sweeper:
    """Does in one round after the other what has become due. `may_sweep` tells whether it is fit to.

    `retention` is how long the events of an inference that has ended stay in the log; None: for ever.
    """

    def __init__(  # one argument per collaborator
        self,
        ports: Ports,
        bus: Bus,
        guard: Guard,
        may_sweep: Callable[[], bool],
        codec: FrameCodec,
        retention: timedelta | None,
    ) -> None:
        self._ports = ports
        self._bus = bus
        self._guard = guard
        self._may_sweep = may_sweep
        self._codec = codec
        self._retention = retention
        self._left_count = 0  # how many logs in a row could not be cut; the others are looked at first

    async def run(self, seconds: float) -> None:
        """Go on for ever, with a pause of so many seconds between two rounds.

        Cutting logs may take long, and has its own rounds: deadlines do not wait for it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(seconds, self._sweep))
            if self._retention is not None:
                retire_old = partial(self._retire, self._retention)
                group.create_task(self._repeat(seconds, partial(self._guard.call, "retiring events", retire_old)))

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._ports.clock.sleep(seconds)
            await work()

    async def _sweep(self) -> None:
        while self._may_sweep():
            if not await self._guard.call("sweeping", lambda: self._ports.store.sweep(self._ports.clock.now())):
                break
        await self._guard.call("answering for silent clients", self._answer_for_silent)

    async def _answer_for_silent(self) -> None:
        """Have those go on that have waited long enough for their client.

        Errors: what the first raises that cannot be answered for, once the others were.
        """
        store, now, failures = self._ports.store, self._ports.clock.now(), list[ValueError]()
        decide = partial(decide_silence, answering=Answering(now, self._ports.encode))
        for due in await store.find_due(now, DUE_MAX):
            try:
                await store.amend(due.principal, due.inference_id, self._ports.mint(), decide)
            except (InferenceNotFoundError, InferenceNotWaitingError):
                continue  # it was answered meanwhile
            except ValueError as error:  # another version wrote its checkpoint
                error.add_note(f"inference {due.inference_id}")
                failures.append(error)
            else:
                self._bus.publish(Hint(HintKind.QUEUED, due.inference_id))
        if failures:
            raise failures[0]

    async def _retire(self, retention: timedelta) -> None:
        """Cut what nobody has to read event by event any more from the beginning of logs.

        What stays as it is, or fails, is looked at again after all others, so that it keeps none of them.
        """
        store, ended_before = self._ports.store, self._ports.clock.now() - retention
        found = await store.find_retired(ended_before, RETIRED_MAX, self._left_count)
        if not found:
            self._left_count = 0
        for retired in found:
            self._left_count += 1  # also if it fails
            if await retire(store, retired, self._codec.decode, self._codec.encode):
                self._left_count -= 1
