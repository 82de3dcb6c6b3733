"""What time makes due: deadlines, clients that were waited for long enough, and whatever else a store sweeps."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from turnwire_server.domain.errors import InferenceNotFoundError, InferenceNotWaitingError
from turnwire_server.events.bus import Bus, Hint, HintKind
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.retention import Retention
from turnwire_server.runtime.answers import Answering, decide_silence
from turnwire_server.runtime.guard import Guard
from turnwire_server.runtime.ports import Ports

# How many silent clients are answered for in one round; the others have the next one.
DUE_MAX = 100

# How long it may take to cut one log. A log of a million events takes ten seconds of work.
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
        self._retention = Retention(ports.store, codec)
        self._retained = retention

    async def run(self, seconds: float) -> None:
        """Go on for ever, with a pause of so many seconds between two rounds."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_forever(seconds))
            if self._retained is not None:  # by itself: a long log must not keep a deadline waiting
                group.create_task(self._retire_forever(seconds, self._retained))

    async def _sweep_forever(self, seconds: float) -> None:
        while True:
            await self._ports.clock.sleep(seconds)
            while self._may_sweep():
                if not await self._guard.call("sweeping", lambda: self._ports.store.sweep(self._ports.clock.now())):
                    break
            await self._guard.call("answering for silent clients", self._answer_for_silent)

    async def _retire_forever(self, seconds: float, retained: timedelta) -> None:
        """Cut what nobody has to read event by event any more from the beginning of logs."""
        while True:
            await self._ports.clock.sleep(seconds)
            find = partial(self._retention.find, self._ports.clock.now() - retained)
            for retired in await self._guard.call("finding old events", find) or ():
                work = partial(self._retention.retire, retired)
                await self._guard.call("retiring events", work, seconds=RETIRE_SECONDS_MAX)

    async def _answer_for_silent(self) -> None:
        """Have those go on that have waited long enough for their client."""
        store, now = self._ports.store, self._ports.clock.now()
        decide = partial(decide_silence, answering=Answering(now, self._ports.encode))
        for due in await store.find_due(now, DUE_MAX):
            with suppress(InferenceNotFoundError, InferenceNotWaitingError):  # it was answered meanwhile
                await store.amend(due.principal, due.inference_id, self._ports.mint(), decide)
                self._bus.publish(Hint(HintKind.QUEUED, due.inference_id))
