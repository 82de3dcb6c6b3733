"""A client that wants many short answers: one inference after the other, each waited for to its end."""

from itertools import count

from fault.caller import Caller
from fault.checks import check_absence
from fault.client import RETRY_SECONDS
from fault.ledger import Asked
from fault.link import Life, RefusedError, ServerGoneError
from fault.plays import Play, echo
from fault.stage import Stage
from fault.witness import Witness

# Every so many starts are repeated once they have ended, and the watchers are looked at.
STARTS_REPEATED = 25


class Sprinter(Caller):
    """One session's client. What a server did not answer is asked again in the next one, under the same key."""

    def __init__(self, stage: Stage, witness: Witness) -> None:
        super().__init__(stage, witness)
        self._numbers = count(1)

    async def run(self) -> None:
        """Go on until the test is over; nothing is left unfinished then."""
        link = self._stage.link
        while not (link.is_closing and self._ledger.settled_era == link.era):
            life = await link.life()
            try:
                await self._sprint(life)
            except ServerGoneError:
                self._witness.tally.counts["clients cut"] += 1
                if not life.is_ending:
                    await link.pause(RETRY_SECONDS)
            except RefusedError as refused:
                check_absence(self._ledger, refused.reason)
                raise

    async def _sprint(self, life: Life) -> None:
        """Finish what is left, then run until the era is over."""
        ledger, link = self._ledger, self._stage.link
        era = link.era
        if not ledger.session.session_id:
            await self.create(life)
        for asked in (*ledger.unanswered, *ledger.unfinished.values()):
            await self._run(asked, life)
        while link.era == era:
            number = next(self._numbers)
            asked = self.ask(self._draw(number), life)
            await self._run(asked, life)
            if number % STARTS_REPEATED == 0:
                await self.send(asked, life)
                await self.see_watchers(asked.seen.last_sequence, life)
            if ledger.settled_era < era:
                await self._stage.settle(ledger, era)
            if link.is_closing:
                return

    def _draw(self, number: int) -> Play:
        return echo(f"{number} äöü")

    async def _run(self, asked: Asked, life: Life) -> None:
        if not asked.inference_id:
            await self.send(asked, life)
        await self.wait(asked, life)
