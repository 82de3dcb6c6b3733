"""What all parts of a test share."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fault.checks import check_settled
from fault.ledger import SessionLedger, Tally
from fault.link import Link
from fault.pulse import Pulse

# Sessions that nobody uses any more and that are still looked at; the next one makes the oldest be deleted.
RETIRED_MAX = 10

# Deleted sessions that are remembered, to see that they do not come back.
DELETED_MAX = 40


@dataclass
class Stage:
    """The sessions of a test. `weigh` checks the memory of the server.

    `lag_over` is set unless there are slow readers that are to come to their end before anything befalls the server.
    """

    seed: int
    link: Link
    pulse: Pulse = field(default_factory=Pulse)
    slowest_cancel_seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    lag_over: asyncio.Event = field(default_factory=asyncio.Event)
    weigh: Callable[[], None] = lambda: None
    present: list[SessionLedger] = field(default_factory=list[SessionLedger])
    retired: deque[SessionLedger] = field(default_factory=deque[SessionLedger])
    deleted: deque[SessionLedger] = field(default_factory=lambda: deque[SessionLedger](maxlen=DELETED_MAX))
    _has_settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    def retire(self, ledger: SessionLedger) -> SessionLedger | None:
        """Take a session that nobody uses any more; return the one that is to be deleted for it, if any."""
        self.present.remove(ledger)
        if ledger.is_deleted:
            self.deleted.append(ledger)
            return None
        self.retired.append(ledger)
        return self.retired.popleft() if len(self.retired) > RETIRED_MAX else None

    async def settle(self, ledger: SessionLedger, era: int) -> None:
        """Say that a session has found its way into an era."""
        ledger.settled_era = era
        async with self._has_settled:
            self._has_settled.notify_all()

    async def wait_until_settled(self, era: int, seconds: float) -> None:
        """Wait until every present session has settled. Raises AssertionError, if that takes longer."""

        def late() -> list[SessionLedger]:
            return [ledger for ledger in self.present if ledger.settled_era < era]

        try:
            async with asyncio.timeout(seconds), self._has_settled:
                await self._has_settled.wait_for(lambda: not late())
        except TimeoutError:
            check_settled(late())
