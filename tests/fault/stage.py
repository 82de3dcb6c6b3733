"""What all parts of a test share."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from fault.checks import check_settled
from fault.ledger import SessionLedger, Tally
from fault.link import Life, Link

# Sessions that nobody uses any more and that are still looked at; the next one makes the oldest be deleted.
RETIRED_MAX = 10

# Deleted sessions that are remembered, to see that they do not come back.
DELETED_MAX = 40


@dataclass
class Stage:
    """The sessions of a test. `attempts_max` is what clients may ask for."""

    seed: int
    link: Link = field(default_factory=Link)
    tally: Tally = field(default_factory=Tally)
    attempts_max: int = 1
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

    async def settle(self, ledger: SessionLedger, life: Life) -> None:
        """Say that a session has found its way into a life."""
        ledger.settled_life = life.number
        async with self._has_settled:
            self._has_settled.notify_all()

    async def wait_until_settled(self, life: Life, seconds: float) -> None:
        """Wait until every present session has settled. Raises AssertionError, if that takes longer."""

        def late() -> list[SessionLedger]:
            return [ledger for ledger in self.present if ledger.settled_life < life.number]

        try:
            async with asyncio.timeout(seconds), self._has_settled:
                await self._has_settled.wait_for(lambda: not late())
        except TimeoutError:
            check_settled(late())
