"""What time makes due: deadlines, clients that were waited for long enough, and whatever else a store sweeps."""

import asyncio
from collections.abc import Callable
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

# How long one cut may take: on a slow store far longer than the two seconds it usually does.
RETIRE_SECONDS_MAX = 600.0


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

    async def run(self, seconds: float) -> None:
        """Go on for ever, with a pause of so many seconds between two rounds.

        Cutting logs may take long, and has its own rounds: deadlines do not wait for it.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_forever(seconds))
            if self._retention is not None:
                group.create_task(self._retire_forever(seconds, self._retention))

    async def _sweep_forever(self, seconds: float) -> None:
        while True:
            await self._ports.clock.sleep(seconds)
            while self._may_sweep():
                if not await self._guard.call("sweeping", lambda: self._ports.store.sweep(self._ports.clock.now())):
                    break
            await self._guard.call("answering for silent clients", self._answer_for_silent)

    async def _retire_forever(self, seconds: float, retention: timedelta) -> None:
        """Cut what nobody has to read event by event any more from the beginning of logs.

        What stays as it is, or fails, is looked at again after all others, so that it keeps none of them.
        """
        store, left_count = self._ports.store, 0
        while True:
            await self._ports.clock.sleep(seconds)
            find = partial(store.find_retired, self._ports.clock.now() - retention, RETIRED_MAX, left_count)
            found = await self._guard.call("finding old events", find)
            if not found:
                left_count = 0
            for retired in found or ():
                work = partial(retire, store, retired, self._codec.decode, self._codec.encode)
                if not await self._guard.call("cutting old events", work, seconds=RETIRE_SECONDS_MAX):
                    left_count += 1

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
