"""The client of one session: asks, repeats what was not answered, cancels, changes, deletes; from server to server."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from fault.checks import (
    TERMINAL,
    check_absence,
    check_caught_up,
    check_creation,
    check_deletion,
    check_in_time,
    check_made_room,
    check_met,
    check_none_active,
)
from fault.ledger import Asked
from fault.link import Life, NoAnswerError, RefusedError, ServerGoneError
from fault.plays import Play, echo
from fault.schedule import Lifetime, Step, draw_step
from fault.stage import Stage
from fault.witness import Witness
from support.rpc import start_request
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2
from turnwire.v1.inference_pb2 import WAIT_UNTIL_END

# How long an inference may take that has an end, on a busy machine.
END_SECONDS = 20.0

# How long one may take that was cancelled, or whose server was killed: 2 s are promised for a cancel.
STOP_SECONDS = 8.0

# How long a watcher may be behind.
WATCH_SECONDS = 8.0

# Every so many turns build on the first one again: an engine is given all that its turn is built on.
CONTEXT_TURNS = 30

IMPATIENT_SECONDS = 0.004
WAIT_SECONDS = 2.0


class Client:
    """One session's client. Whatever it was doing when its server went away, it settles first in the next one."""

    def __init__(self, stage: Stage, witness: Witness, lifetime: Lifetime) -> None:
        self._stage = stage
        self._witness = witness
        self._ledger = witness.ledger
        self._lifetime = lifetime
        self._random = Random(f"{stage.seed} client {self._ledger.session_id}")
        self._lives = 0
        self._asked_count = 0

    async def run(self) -> None:
        """Go on until the session's lifetime, or the test, is over; nothing is left unfinished then."""
        is_over = False
        while not is_over:
            life = await self._stage.link.life()
            try:
                is_over = await self._settle(life)
                while not is_over:
                    await self._take(draw_step(self._random, may_hang=self._lifetime.may_hang), life)
            except ServerGoneError:
                self._witness.tally.counts["clients cut"] += 1
            except RefusedError as refused:
                check_absence(self._ledger, refused.reason)
                raise

    async def remove(self) -> None:
        """Delete the session, in as many lives as it takes."""
        while not self._ledger.is_deleted:
            life = await self._stage.link.life()
            try:
                await self._delete(life, is_forced=True)
            except ServerGoneError:
                continue

    # --- finding the way into a new life -----------------------------------------------------------

    async def _settle(self, life: Life) -> bool:
        """Get an answer to what was not answered, and see that the session is usable; return whether this was it."""
        ledger = self._ledger
        if self._is_over():
            await self._leave(life)
            return True
        if not ledger.session.session_id:
            await self._create(life)
        if len(ledger.names) > 1:
            await self._update(ledger.names[-1], life)
        await self._repeat(life)
        random = Random(f"{self._stage.seed} settles {ledger.session_id} {life.number}")
        for asked in tuple(ledger.unfinished.values()):
            choice = random.choice(("cancel", "end", "leave"))
            if self._must_end(asked, life):
                await self._wait(asked, life, STOP_SECONDS)
            elif choice == "cancel":
                await self._cancel(asked, life)
            elif choice == "end":
                await self._end(asked, life)
        if not ledger.unfinished:
            await self._probe(life)
        for asked in tuple(ledger.recent.values())[-1:]:
            await self._send(asked, life)
        self._lives += 1
        await self._stage.settle(ledger, life)
        return False

    def _is_over(self) -> bool:
        return self._stage.link.is_closing or 0 < self._lifetime.lives <= self._lives

    async def _leave(self, life: Life) -> None:
        """Leave nothing unfinished, and delete the session if it is one that is deleted."""
        ledger = self._ledger
        is_deleted = self._lifetime.is_deleted and not self._stage.link.is_closing
        if ledger.is_deleting or (is_deleted and self._lifetime.is_forced):
            await self._delete(life, is_forced=True)
            await self._stage.settle(ledger, life)
            return
        if not ledger.session.session_id:
            await self._create(life)
        await self._repeat(life)
        for asked in tuple(ledger.unfinished.values()):
            await self._end(asked, life)
        await self._probe(life)
        if is_deleted:
            await self._delete(life, is_forced=False)
        await self._stage.settle(ledger, life)

    async def _repeat(self, life: Life) -> None:
        """Send again, under the same key, what a server that is gone did not answer."""
        for asked in tuple(self._ledger.unanswered):
            asked.open_count = 0
            await self._send(asked, life)

    def _must_end(self, asked: Asked, life: Life) -> bool:
        """Whether a killed server ran it for the last time: one that was stopped may have handed it back."""
        is_last_attempt = asked.seen.attempts_max <= 1
        is_lost = 0 < asked.running_life < life.number and not self._stage.link.stops_since(asked.running_life)
        return is_last_attempt and is_lost

    async def _probe(self, life: Life) -> None:
        """The session takes a new inference, which ends, and whose watchers see it."""
        asked = self._ask(echo(f"are you there, {life.number}? äöü"), life)
        await self._send(asked, life)
        await self._wait(asked, life)
        await self._send(asked, life)
        await self._see_watchers(asked.seen.last_sequence, life)

    async def _see_watchers(self, sequence: int, life: Life) -> None:
        """Resumable: the watchers get there, too."""
        ledger = self._ledger
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                while ledger.behind(sequence):
                    if life.is_ending:
                        raise ServerGoneError
                    ledger.moved.clear()
                    await ledger.moved.wait()
        except TimeoutError:
            check_caught_up(ledger, sequence)

    # --- steps --------------------------------------------------------------------------------------

    async def _take(self, step: Step, life: Life) -> None:
        await self._open(step, life)
        for seconds, doing in zip(step.linger_seconds, step.doings, strict=True):
            if asked := self._current():
                await self._look_in(asked, life, seconds)
            await self._do(doing, life)
        if asked := self._current():
            match step.closing:
                case "wait":
                    await self._end(asked, life)
                case "cancel":
                    await self._cancel(asked, life)
                case "cancel session":
                    await self._cancel_session(life)
                case _:
                    await self._look_in(asked, life, 0.05)

    async def _open(self, step: Step, life: Life) -> None:
        asked = self._ask(step.play, life, 3 if step.is_patient else 1)
        match step.opening:
            case "twice":
                await _all(self._send(asked, life), self._send(asked, life))
            case "race":
                other = self._ask(step.play, life)
                await _all(self._send(asked, life), self._send(other, life))
            case "impatient":
                try:
                    await self._send(asked, life, IMPATIENT_SECONDS)
                except NoAnswerError:
                    await self._send(asked, life)
            case _:
                await self._send(asked, life)

    async def _do(self, doing: str, life: Life) -> None:
        ledger = self._ledger
        match doing:
            case "update":
                await self._update(f"name {self._lives}.{self._asked_count}", life)
            case "repeat":
                await self._create(life)
                for asked in tuple(ledger.recent.values())[:1]:
                    await self._send(asked, life)
            case "start":
                await self._send(self._ask(echo("too much?"), life), life)
            case "look":
                before, names = ledger.session, set(ledger.names)
                request = session_service_pb2.GetSessionRequest(session_id=ledger.session_id)
                reply = await life.ask(life.stubs.session.GetSession, request)
                self._witness.hear_session(before, names, reply.session)
            case _:
                pass

    def _current(self) -> Asked | None:
        return next(iter(self._ledger.unfinished.values()), None)

    # --- rpcs ---------------------------------------------------------------------------------------

    async def _create(self, life: Life) -> None:
        ledger = self._ledger
        before, names = ledger.session, set(ledger.names)
        reply = await life.ask(life.stubs.session.CreateSession, ledger.creation)
        check_creation(ledger, reply)
        self._witness.hear_session(before, names, reply.session)
        ledger.created.set()

    async def _update(self, name: str, life: Life) -> None:
        ledger = self._ledger
        update = session_service_pb2.SessionUpdate(session_id=ledger.session_id, display_name=name)
        request = session_service_pb2.UpdateSessionRequest(
            session=update, update_mask=FieldMask(paths=["display_name"])
        )
        before = ledger.session
        ledger.names.append(name)
        reply = await life.ask(life.stubs.session.UpdateSession, request)
        self._witness.hear_session(before, ledger.names, reply.session)
        self._witness.hear_update(name, reply.session)

    async def _delete(self, life: Life, *, is_forced: bool) -> None:
        ledger = self._ledger
        request = session_service_pb2.DeleteSessionRequest(session_id=ledger.session_id, force=is_forced)
        ledger.delete_count += 1
        try:
            await life.ask(life.stubs.session.DeleteSession, request)
        except RefusedError as refused:
            check_deletion(ledger, refused.reason)
        ledger.is_deleted = True
        self._witness.tally.outcomes["deleted with the session"] += len(ledger.unfinished)

    def _ask(self, play: Play, life: Life, attempts_max: int = 1) -> Asked:
        ledger = self._ledger
        self._asked_count += 1
        key = f"{ledger.session_id}/{self._asked_count}"
        text = play.parts[0].text if play.script is None else f"question {self._asked_count}"
        request = start_request(ledger.session_id, text, script=play.script, idempotency_key=key)
        if play.timeout_seconds:
            request.timeout.FromMilliseconds(int(play.timeout_seconds * 1000))
        if self._asked_count % CONTEXT_TURNS == 0 and 0 in ledger.turns:
            request.parent = 0
        if attempts_max > 1 and self._stage.attempts_max > 1:
            request.attempts_max = attempts_max
        asked = Asked(request, play, life.number)
        ledger.unanswered.append(asked)
        return asked

    async def _send(self, asked: Asked, life: Life, seconds: float = END_SECONDS) -> None:
        """Send a start, for the first time or again."""
        asked.sent_count += 1
        asked.open_count += 1
        before, unfinished = asked.seen, dict(self._ledger.unfinished)
        try:
            reply = await life.ask(life.stubs.inference.StartInference, asked.request, seconds)
        except RefusedError as refused:
            self._witness.hear_refused_start(asked, before, refused, unfinished)
            return
        self._witness.hear_start(asked, before, reply, life)
        if reply.created:
            for other in unfinished.values():
                await self._look_in(other, life, 0)
                check_made_room(asked, other)

    async def _look_in(self, asked: Asked, life: Life, seconds: float) -> None:
        """Wait for the end, but no longer than that."""
        before = asked.seen
        request = pb.WaitRequest(inference_id=asked.inference_id, until=WAIT_UNTIL_END)
        request.timeout.FromMilliseconds(int(seconds * 1000))
        reply = await life.ask(life.stubs.inference.Wait, request, seconds + END_SECONDS)
        self._witness.hear_inference(asked, before, reply.inference, life)

    async def _wait(self, asked: Asked, life: Life, seconds: float = END_SECONDS) -> None:
        """Wait for the end, which has to come."""
        began = asyncio.get_running_loop().time()
        while asked.inference_id and asked.seen.state not in TERMINAL:
            await self._look_in(asked, life, WAIT_SECONDS)
            check_in_time(asked, asyncio.get_running_loop().time() - began, seconds)

    async def _end(self, asked: Asked, life: Life) -> None:
        """Have an inference end, one way or the other."""
        if asked.play.is_endless:
            await self._cancel(asked, life)
        else:
            await self._wait(asked, life)

    async def _cancel(self, asked: Asked, life: Life) -> None:
        before = asked.seen
        asked.cancel_count += 1
        request = pb.CancelRequest(inference_id=asked.inference_id, reason=f"enough {asked.cancel_count}")
        reply = await life.ask(life.stubs.inference.Cancel, request)
        self._witness.hear_cancel(asked, before, reply, life)
        await self._wait(asked, life, STOP_SECONDS)

    async def _cancel_session(self, life: Life) -> None:
        """Cancel whatever is the first in the session's line."""
        ledger = self._ledger
        befores = {asked: asked.seen for asked in ledger.unfinished.values()}
        for asked in befores:
            asked.cancel_count += 1
        request = pb.CancelRequest(session_id=ledger.session_id, reason="enough of it")
        try:
            reply = await life.ask(life.stubs.inference.Cancel, request)
        except RefusedError as refused:
            for asked in befores:
                await self._look_in(asked, life, 0)
            check_none_active(ledger, refused.reason)
            return
        met = check_met(ledger, reply.inference.inference_id)
        self._witness.hear_cancel(met, befores.get(met, met.seen), reply, life)
        await self._wait(met, life, STOP_SECONDS)


async def _all(*sends: Coroutine[Any, Any, None]) -> None:
    """Do all of them to the end, then raise what the first one raised that failed."""
    for error in await asyncio.gather(*sends, return_exceptions=True):
        if error:
            raise error
