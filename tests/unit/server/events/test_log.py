"""Appending: what could not be written is not followed by what came after it."""

import asyncio

import pytest

from support.supervised import FastClock, FlakyStore, World
from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.event import LlmDelta, LlmStart
from turnwire_server.domain.ids import LOCAL
from turnwire_server.domain.lifecycle import event_of
from turnwire_server.events.log import AttemptLog
from turnwire_server.events.patience import Patience
from turnwire_server.stores.lease import Claim, Step
from turnwire_server.wire.event import encode_event


async def _claim(world: World) -> Claim:
    await world.start("s")
    await world.store.register("me")
    [claim] = await world.store.claim("me", ["token"])
    return claim


async def test_nothing_is_written_behind_what_is_missing() -> None:
    """A store that is away for longer than it is borne with comes back, while a step waits to be committed."""
    world, clock = World(), FastClock(1000)
    claim = await _claim(world)
    log = AttemptLog(world.store, claim.lease, claim.position, encode_event, Patience(clock))
    world.store.holding = {"append"}
    pump = asyncio.create_task(log.pump())
    log.put(event_of(claim.inference, LlmStart(), clock.now(), "b"))
    await asyncio.sleep(0)
    log.put(event_of(claim.inference, LlmDelta("x", 0), clock.now(), "b"))
    step = asyncio.create_task(_commit_step(log, world.store, claim))
    with pytest.raises(StoreUnavailableError):
        await pump
    world.store.holding = set()
    with pytest.raises(StoreUnavailableError):
        await step
    assert (await world.store.get_inference(LOCAL, claim.inference.inference_id)).last_sequence == 3
    [now] = await world.store.claim("me", ["token"])
    assert (now.step, now.position) == (0, 0)


async def _commit_step(log: AttemptLog, store: FlakyStore, claim: Claim) -> None:
    await log.commit(lambda position, batch: store.commit_step(claim.lease, position, Step(1, events=batch)))
