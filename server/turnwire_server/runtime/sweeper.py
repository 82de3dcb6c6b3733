"""What time makes due: deadlines, clients that were waited for long enough, and whatever else a store sweeps."""

from collections.abc import Callable
from contextlib import suppress
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

    async def run(self, seconds: float) -> None:
        """Go on for ever, with a pause of so many seconds between two rounds."""
        while True:
            await self._ports.clock.sleep(seconds)
            while self._may_sweep():
                if not await self._guard.call("sweeping", lambda: self._ports.store.sweep(self._ports.clock.now())):
                    break
            await self._guard.call("answering for silent clients", self._answer_for_silent)
            if self._retention is not None:
                await self._guard.call("retiring events", partial(self._retire, self._retention))

    async def _answer_for_silent(self) -> None:
        """Have those go on that have waited long enough for their client."""
        store, now = self._ports.store, self._ports.clock.now()
        decide = partial(decide_silence, answering=Answering(now, self._ports.encode))
        for due in await store.find_due(now, DUE_MAX):
            with suppress(InferenceNotFoundError, InferenceNotWaitingError):  # it was answered meanwhile
                await store.amend(due.principal, due.inference_id, self._ports.mint(), decide)
                self._bus.publish(Hint(HintKind.QUEUED, due.inference_id))

    async def _retire(self, retention: timedelta) -> None:
        """Cut what nobody has to read event by event any more from the beginning of logs."""
        store = self._ports.store
        for retired in await store.find_retired(self._ports.clock.now() - retention, RETIRED_MAX):
            await retire(store, retired, self._codec.decode, self._codec.encode)
