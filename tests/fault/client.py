"""The client of one session: asks, repeats what was not answered, cancels, changes, deletes; from server to server."""

from random import Random

from fault.caller import STOP_SECONDS, Caller, all_of
from fault.checks import check_absence
from fault.ledger import Asked
from fault.link import Life, NoAnswerError, RefusedError, ServerGoneError
from fault.plays import echo
from fault.schedule import Lifetime, Step, draw_step
from fault.stage import Stage
from fault.witness import Witness

# How long a client waits before it tries again to reach a server that is there.
RETRY_SECONDS = 0.15

IMPATIENT_SECONDS = 0.004


class Client(Caller):
    """One session's client. Whatever it was doing when its server went away, it settles first in the next one."""

    def __init__(self, stage: Stage, witness: Witness, lifetime: Lifetime) -> None:
        super().__init__(stage, witness)
        self._lifetime = lifetime
        self._random = Random(f"{stage.seed} client {self._ledger.session_id}")
        self._lives = 0

    async def run(self) -> None:
        """Go on until the session's lifetime, or the test, is over; nothing is left unfinished then."""
        is_over = False
        while not is_over:
            life = await self._stage.link.life()
            try:
                is_over = await self._settle(life)
                while not is_over:
                    if self._ledger.settled_era < self._stage.link.era:
                        is_over = await self._settle(life)
                    else:
                        await self._take(draw_step(self._random, may_hang=self._lifetime.may_hang), life)
            except ServerGoneError:
                self._witness.tally.counts["clients cut"] += 1
                if not life.is_ending:
                    await self._stage.link.pause(RETRY_SECONDS)
            except RefusedError as refused:
                check_absence(self._ledger, refused.reason)
                raise

    async def remove(self) -> None:
        """Delete the session, in as many lives as it takes."""
        while not self._ledger.is_deleted:
            life = await self._stage.link.life()
            try:
                await self.delete(life, is_forced=True)
            except ServerGoneError:
                await self._stage.link.pause(RETRY_SECONDS)

    # --- finding the way into a new era ------------------------------------------------------------

    async def _settle(self, life: Life) -> bool:
        """Get an answer to what was not answered, and see that the session is usable; return whether this was it."""
        ledger, era = self._ledger, self._stage.link.era
        if self._is_over():
            await self._leave(life, era)
            return True
        if not ledger.session.session_id:
            await self.create(life)
        if len(ledger.names) > 1:
            await self.update(ledger.names[-1], life)
        await self._repeat(life)
        random = Random(f"{self._stage.seed} settles {ledger.session_id} {era}")
        for asked in tuple(ledger.unfinished.values()):
            choice = random.choice(("cancel", "end", "leave"))
            if self._must_end(asked, life):
                await self.wait(asked, life, STOP_SECONDS)
            elif choice == "cancel":
                await self.cancel(asked, life)
            elif choice == "end":
                await self.end(asked, life)
        if not ledger.unfinished:
            await self._probe(life)
        for asked in tuple(ledger.recent.values())[-1:]:
            await self.send(asked, life)
        self._lives += ledger.settled_era < era
        await self._stage.settle(ledger, era)
        return False

    def _is_over(self) -> bool:
        return self._stage.link.is_closing or 0 < self._lifetime.lives <= self._lives

    async def _leave(self, life: Life, era: int) -> None:
        """Leave nothing unfinished, and delete the session if it is one that is deleted."""
        ledger = self._ledger
        is_deleted = self._lifetime.is_deleted and not self._stage.link.is_closing
        if ledger.is_deleting or (is_deleted and self._lifetime.is_forced):
            await self.delete(life, is_forced=True)
            await self._stage.settle(ledger, era)
            return
        if not ledger.session.session_id:
            await self.create(life)
        await self._repeat(life)
        for asked in tuple(ledger.unfinished.values()):
            await self.end(asked, life)
        await self._probe(life)
        if is_deleted:
            await self.delete(life, is_forced=False)
        await self._stage.settle(ledger, era)

    async def _repeat(self, life: Life) -> None:
        """Send again, under the same key, what a server that is gone did not answer."""
        for asked in tuple(self._ledger.unanswered):
            await self.send(asked, life)

    def _must_end(self, asked: Asked, life: Life) -> bool:
        """Whether a killed server ran it for the last time: one that was stopped may have handed it back."""
        is_last_attempt = asked.seen.attempts_max <= 1
        is_lost = 0 < asked.running_life < life.number and not self._stage.link.stops_since(asked.running_life)
        return is_last_attempt and is_lost

    async def _probe(self, life: Life) -> None:
        """The session takes a new inference, which ends, and whose watchers see it."""
        asked = self.ask(echo(f"are you there, {life.number}? äöü"), life)
        await self.send(asked, life)
        await self.wait(asked, life)
        await self.send(asked, life)
        await self.see_watchers(asked.seen.last_sequence, life)

    # --- steps --------------------------------------------------------------------------------------

    async def _take(self, step: Step, life: Life) -> None:
        await self._open(step, life)
        for seconds, doing in zip(step.linger_seconds, step.doings, strict=True):
            if asked := self._current():
                await self.look_in(asked, life, seconds)
            await self._do(doing, life)
        if asked := self._current():
            match step.closing:
                case "wait":
                    await self.end(asked, life)
                case "cancel":
                    await self.cancel(asked, life)
                case "cancel session":
                    await self.cancel_session(life)
                case _:
                    await self.look_in(asked, life, 0.05)

    async def _open(self, step: Step, life: Life) -> None:
        asked = self.ask(step.play, life, 3 if step.is_patient else 1)
        match step.opening:
            case "twice":
                await all_of(self.send(asked, life), self.send(asked, life))
            case "race":
                other = self.ask(step.play, life)
                await all_of(self.send(asked, life), self.send(other, life))
            case "impatient":
                try:
                    await self.send(asked, life, IMPATIENT_SECONDS)
                except NoAnswerError:
                    await self.send(asked, life)
            case _:
                await self.send(asked, life)

    async def _do(self, doing: str, life: Life) -> None:
        ledger = self._ledger
        match doing:
            case "update":
                await self.update(f"name {self._lives}.{self._asked_count}", life)
            case "repeat":
                await self.create(life)
                for asked in tuple(ledger.recent.values())[:1]:
                    await self.send(asked, life)
            case "start":
                await self.send(self.ask(echo("too much?"), life), life)
            case "look":
                await self.look(life)
            case _:
                pass

    def _current(self) -> Asked | None:
        return next(iter(self._ledger.unfinished.values()), None)
