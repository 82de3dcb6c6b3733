"""Slow readers, and readers that vanish: many streams of one session that nobody reads, while inferences flood it.

Bounded: they slow neither the inferences nor the session's own watcher, and what one of them reads later is whole. That
they cost little memory is seen when the server is weighed.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from random import Random

import grpc

from fault.caller import WAIT_SECONDS, Caller
from fault.checks import TERMINAL, check_absence, check_not_slowed, check_not_starved, check_read_on
from fault.client import RETRY_SECONDS
from fault.host import RECONNECT
from fault.ledger import Asked
from fault.link import Life, RefusedError, ServerGoneError
from fault.plays import flood
from fault.proxy import Proxy
from fault.stage import Stage
from fault.witness import Witness
from support.rpc import SMALL_WINDOW, Stubs, connect
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch

# The streams that nobody reads, and the inferences in the meantime: 11 MB that each of the streams is behind then. The
# first time, the server is not ended before that has come to its end.
STREAMS = 20
FLOODS = 24

# How long a reader may take to get all of that, once it reads.
READ_SECONDS = 20.0

# How many times this is done with a seed: the session gets large.
LAGS_MAX = 3

# No era lasts as long.
ERA_SECONDS_MAX = 120.0

# How long such an inference may take. Without the streams it takes a tenth of a second.
FLOOD_SECONDS = 8.0


class Laggard(Caller):
    """The client of that session."""

    def __init__(self, stage: Stage, witness: Witness) -> None:
        super().__init__(stage, witness)
        self._random = Random(f"{stage.seed} lags")
        self._lag_count = 0

    async def run(self) -> None:
        """Go on until the test is over; nothing is left unfinished then."""
        link = self._stage.link
        while not (link.is_closing and self._ledger.settled_era == link.era):
            life, era = await link.life(), link.era
            try:
                await self._settle(life)
                is_due = not link.is_closing and self._is_due()
                if is_due and not self._lag_count:
                    self._stage.lag_over.clear()
                await self._stage.settle(self._ledger, era)
                if link.is_closing:
                    continue
                if is_due:
                    await self._lag(life)
                if link.era == era:
                    await link.pause(ERA_SECONDS_MAX)
            except ServerGoneError:
                self._witness.tally.counts["clients cut"] += 1
                if not life.is_ending:
                    await link.pause(RETRY_SECONDS)
            except RefusedError as refused:
                check_absence(self._ledger, refused.reason)
                raise
            finally:
                self._stage.lag_over.set()

    def _is_due(self) -> bool:
        return not self._lag_count or (self._lag_count < LAGS_MAX and self._random.random() < 0.5)

    async def _settle(self, life: Life) -> None:
        if not self._ledger.session.session_id:
            await self.create(life)
        for asked in (*self._ledger.unanswered, *self._ledger.unfinished.values()):
            if not asked.inference_id:
                await self.send(asked, life)
            await self.wait(asked, life)

    async def _lag(self, life: Life) -> None:
        """Open streams, do not read them, flood the session; then read one of them, and be gone from the others."""
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy(life.address))
            stubs = await stack.enter_async_context(connect(proxy.address, *SMALL_WINDOW, *RECONNECT))
            # Streams of one connection share its window: who wants to read later needs one that the others do not fill.
            own = await stack.enter_async_context(connect(proxy.address, *SMALL_WINDOW, *RECONNECT))
            began, era, head = time.monotonic(), self._stage.link.era, 0
            try:
                slow = await self._open(own, life)
                unread = [await self._open(stubs, life) for _ in range(STREAMS)]
                for _ in range(FLOODS):
                    asked = self.ask(flood(self._random), life)
                    await self.send(asked, life)
                    await self._see_end(asked, life)
                    head = asked.seen.last_sequence or head
                    await self.see_watchers(head, life, check_not_starved)
                    self._witness.tally.counts["floods of slow readers"] += 1
                    if self._lag_count and self._stage.link.era != era:
                        break  # everybody is to say that the session is usable
                self._stage.weigh()
                if not self._lag_count or self._random.random() < 0.5:
                    await self._read_on(*slow, head)
                proxy.cut(is_half_open=self._random.random() < 0.5)
            except grpc.aio.AioRpcError as error:
                raise life.explain(error, began) from None
        self._lag_count += 1
        self._witness.tally.counts["streams nobody read"] += len(unread)

    async def _open(self, stubs: Stubs, life: Life) -> tuple[Watch, AsyncIterator[pb.SubscribeEventsResponse]]:
        """Open a stream at the end of the log, and read no more than its first response."""
        after = self._ledger.watches[0].position
        watch = Watch(self._ledger.session_id)
        watch.begin(after)
        call = stubs.inference.SubscribeEvents(
            pb.SubscribeEventsRequest(session_id=watch.session_id, after_sequence=after)
        )
        responses = call.__aiter__()
        watch.take(await anext(responses))
        self._stage.link.history.tell("lags", life=life.number, after=after)
        return watch, responses

    async def _see_end(self, asked: Asked, life: Life) -> None:
        began = time.monotonic()
        while asked.inference_id and asked.seen.state not in TERMINAL:
            await self.look_in(asked, life, WAIT_SECONDS)
            check_not_slowed(asked, self._waited_seconds(began), FLOOD_SECONDS)

    async def _read_on(self, watch: Watch, responses: AsyncIterator[pb.SubscribeEventsResponse], head: int) -> None:
        """Resumable, Gapless: a reader that was slow gets all of it."""
        book = self._ledger.book
        began = time.monotonic()
        while watch.position < head:
            with suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    watch.take(await anext(responses))
            check_read_on(watch, head, self._waited_seconds(began), READ_SECONDS)
            book.check_known(event for event in watch.events if event.sequence <= book.head)
            del watch.events[:-1]
        self._witness.tally.counts["slow streams read"] += 1
