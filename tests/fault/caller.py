"""What any client of a session can do: every rpc, with what its reply has to be."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from fault.checks import (
    CANCEL_END_SECONDS,
    TERMINAL,
    check_cancel_ends,
    check_caught_up,
    check_creation,
    check_deletion,
    check_in_time,
    check_made_room,
    check_met,
    check_none_active,
    check_wait,
    check_wait_agrees,
)
from fault.ledger import Asked, SessionLedger
from fault.link import Life, RefusedError, ServerGoneError
from fault.plays import Play
from fault.stage import Stage
from fault.witness import Witness
from support.rpc import start_request
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2
from turnwire.v1.inference_pb2 import WAIT_UNTIL_END

# How long an inference may take that has an end, on a busy machine. Troubles are not counted.
END_SECONDS = 20.0

# How long one may take whose server was killed.
STOP_SECONDS = 8.0

# How long a watcher may be behind.
WATCH_SECONDS = 8.0
LOOK_SECONDS = 1.0

# What is promised for a cancel, and what its way there and back may take on a machine that has other things to do. What
# the server's own times say is held to the promise itself: see Witness.
CANCEL_SECONDS = CANCEL_END_SECONDS + 1.5

# Every so many turns build on the first one again: an engine is given all that its turn is built on.
CONTEXT_TURNS = 30

WAIT_SECONDS = 2.0

# Every so many waits for an end are followed by a GetInference.
WAITS_COMPARED = 8


class Caller:
    """The rpcs of one session's client. Each raises what Life.ask does, and AssertionError for what must not be."""

    def __init__(self, stage: Stage, witness: Witness) -> None:
        self._stage = stage
        self._witness = witness
        self._ledger = witness.ledger
        self._asked_count = 0
        self._wait_count = 0

    async def create(self, life: Life) -> None:
        """Create the session, or have it told that it is there."""
        ledger = self._ledger
        before, names = ledger.session, set(ledger.names)
        reply = await life.ask(life.stubs.session.CreateSession, ledger.creation)
        check_creation(ledger, reply)
        self._witness.hear_session(before, names, reply.session)
        ledger.created.set()

    async def look(self, life: Life) -> None:
        """Read the session."""
        ledger = self._ledger
        before, names = ledger.session, set(ledger.names)
        request = session_service_pb2.GetSessionRequest(session_id=ledger.session_id)
        reply = await life.ask(life.stubs.session.GetSession, request)
        self._witness.hear_session(before, names, reply.session)

    async def update(self, name: str, life: Life) -> None:
        """Name the session."""
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

    async def delete(self, life: Life, *, is_forced: bool) -> None:
        """Delete the session."""
        ledger = self._ledger
        request = session_service_pb2.DeleteSessionRequest(session_id=ledger.session_id, force=is_forced)
        ledger.delete_count += 1
        try:
            await life.ask(life.stubs.session.DeleteSession, request)
        except RefusedError as refused:
            check_deletion(ledger, refused.reason)
        ledger.is_deleted = True
        self._witness.tally.outcomes["deleted with the session"] += len(ledger.unfinished)

    def ask(self, play: Play, life: Life, attempts_max: int = 1) -> Asked:
        """Make up a start. It counts as unanswered from now on."""
        ledger = self._ledger
        self._asked_count += 1
        key = f"{ledger.session_id}/{self._asked_count}"
        text = play.text or (play.parts[0].text if play.script is None else f"question {self._asked_count}")
        request = start_request(ledger.session_id, text, script=play.script, idempotency_key=key)
        request.profile = play.profile
        if play.timeout_seconds:
            request.timeout.FromMilliseconds(int(play.timeout_seconds * 1000))
        if self._asked_count % CONTEXT_TURNS == 0 and 0 in ledger.turns:
            request.parent = 0
        if attempts_max > 1:
            request.attempts_max = attempts_max
        asked = Asked(request, play, life.number)
        ledger.unanswered.append(asked)
        return asked

    async def send(self, asked: Asked, life: Life, seconds: float = END_SECONDS) -> None:
        """Send a start, for the first time or again."""
        if asked.sent_life != life.number:
            asked.open_count = 0  # what was sent to a server that is gone is not carried out any more
            asked.sent_life = life.number
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
                await self.look_in(other, life, 0)
                check_made_room(asked, other)

    async def look_in(self, asked: Asked, life: Life, seconds: float) -> None:
        """Wait for the end, but no longer than that."""
        before, began = asked.seen, time.monotonic()
        has_ended_before = asked.has_ended_in_log
        request = pb.WaitRequest(inference_id=asked.inference_id, until=WAIT_UNTIL_END)
        request.timeout.FromMilliseconds(int(seconds * 1000))
        reply = await life.ask(life.stubs.inference.Wait, request, seconds + END_SECONDS)
        left = 0 if life.is_ending else seconds - (time.monotonic() - began)
        check_wait(reply.inference, left, has_ended_before=has_ended_before)
        self._witness.hear_inference(asked, before, reply.inference, life)
        self._wait_count += 1
        if reply.inference.state in TERMINAL and self._wait_count % WAITS_COMPARED == 0:
            get = pb.GetInferenceRequest(inference_id=asked.inference_id)
            now = (await life.ask(life.stubs.inference.GetInference, get)).inference
            check_wait_agrees(reply.inference, now)
            self._witness.tally.counts["waits compared"] += 1

    async def wait(self, asked: Asked, life: Life, seconds: float = END_SECONDS) -> None:
        """Wait for the end, which has to come."""
        began = time.monotonic()
        while asked.inference_id and asked.seen.state not in TERMINAL:
            await self.look_in(asked, life, WAIT_SECONDS)
            if self._is_endless(asked):
                await self.cancel(asked, life)
            check_in_time(asked, self._waited_seconds(began), seconds)

    async def end(self, asked: Asked, life: Life) -> None:
        """Have an inference end, one way or the other."""
        if asked.play.is_endless:
            await self.cancel(asked, life)
        else:
            await self.wait(asked, life)

    async def cancel(self, asked: Asked, life: Life) -> None:
        """Cancel an inference, which ends then."""
        before = asked.seen
        asked.count_cancel()
        request = pb.CancelRequest(inference_id=asked.inference_id, reason=f"enough {asked.cancel_count}")
        reply = await life.ask(life.stubs.inference.Cancel, request)
        self._witness.hear_cancel(asked, before, reply, life)
        await self._see_cancelled(asked, life)

    async def cancel_session(self, life: Life) -> None:
        """Cancel whatever is the first in the session's line."""
        ledger = self._ledger
        befores = {asked: asked.seen for asked in ledger.unfinished.values()}
        for asked in befores:
            asked.count_cancel()
        request = pb.CancelRequest(session_id=ledger.session_id, reason="enough of it")
        try:
            reply = await life.ask(life.stubs.inference.Cancel, request)
        except RefusedError as refused:
            for asked in befores:
                await self.look_in(asked, life, 0)
            check_none_active(ledger, refused.reason)
            return
        met = check_met(ledger, reply.inference.inference_id)
        self._witness.hear_cancel(met, befores.get(met, met.seen), reply, life)
        await self._see_cancelled(met, life)

    async def see_watchers(
        self, sequence: int, life: Life, check: Callable[[SessionLedger, int], None] = check_caught_up
    ) -> None:
        """Resumable: the session's watchers get there, too; `check` says so of those that do not."""
        ledger, began = self._ledger, time.monotonic()
        while ledger.behind(sequence):
            if life.is_ending:
                raise ServerGoneError
            ledger.moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await ledger.moved.wait()
            if self._waited_seconds(began) > WATCH_SECONDS:
                check(ledger, sequence)

    async def _see_cancelled(self, asked: Asked, life: Life) -> None:
        """CancelEnds: what was acknowledged as cancelled is terminal soon."""
        began = time.monotonic()
        while asked.seen.state not in TERMINAL:
            await self.look_in(asked, life, WAIT_SECONDS)
            check_cancel_ends(asked, self._waited_seconds(began), CANCEL_SECONDS)
        self._stage.slowest_cancel_seconds = max(self._stage.slowest_cancel_seconds, time.monotonic() - began)

    def _waited_seconds(self, began: float) -> float:
        """Return how long it has been since then, without troubles, and without what the machine did else."""
        excused = self._stage.pulse.excuse_seconds(began)
        return time.monotonic() - began - self._stage.link.troubles.seconds(began) - excused

    def _is_endless(self, asked: Asked) -> bool:
        """Whether an inference will not end by itself: the clock was set back, and its deadline is far away now."""
        is_due = bool(asked.play.timeout_seconds) and asked.seen.state not in TERMINAL
        return is_due and self._stage.link.was_set_back_since(asked.first_life)


async def all_of(*sends: Coroutine[Any, Any, None]) -> None:
    """Do all of them to the end, then raise what the first one raised that failed."""
    for error in await asyncio.gather(*sends, return_exceptions=True):
        if error:
            raise error
