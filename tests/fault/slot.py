"""One of the sessions at a time: when its session is over, the next one takes its place."""

import asyncio
from collections.abc import Callable
from itertools import count
from random import Random

from fault.checks import check_streams_ended
from fault.client import Client
from fault.laggard import Laggard
from fault.ledger import SessionLedger
from fault.provider import Patron
from fault.schedule import Lifetime, draw_lifetime
from fault.sprinter import Sprinter
from fault.stage import Stage
from fault.watcher import follow, follow_inferences
from fault.witness import Witness

# How long the streams of a deleted session may take to end, a restart of the server included.
STREAM_END_SECONDS = 20.0


async def run_slot(stage: Stage, slot: int) -> None:
    """Run one session after the other until the test is over."""
    overflow: SessionLedger | None = None
    for number in count(1):
        ledger = SessionLedger(f"session-{slot}.{number}")
        stage.present.append(ledger)
        random = Random(f"{stage.seed} slot {ledger.session_id}")
        lifetime = draw_lifetime(random, slot)
        if overflow:
            await _client(stage, overflow, lifetime).remove()
            stage.deleted.append(overflow)
        await _live(stage, ledger, lifetime, hop_events=random.randint(3, 40))
        overflow = stage.retire(ledger)
        if stage.link.is_closing:
            stage.retired.extend([overflow] if overflow else [])
            return


async def run_lags(stage: Stage) -> None:
    """Run a session with streams that nobody reads."""
    await _run(stage, "lags", lambda witness: Laggard(stage, witness))


async def run_sprint(stage: Stage, number: int) -> None:
    """Run a session of short inferences until the test is over."""
    await _run(stage, f"sprint-{number}", lambda witness: Sprinter(stage, witness))


async def run_patron(stage: Stage, profile: str) -> None:
    """Run a session on a provider until the test is over."""
    await _run(stage, f"patron-{profile}", lambda witness: Patron(stage, witness, profile))


async def _run(stage: Stage, session_id: str, client: Callable[[Witness], Sprinter | Laggard]) -> None:
    """Run a session with one watcher."""
    ledger = SessionLedger(session_id)
    stage.present.append(ledger)
    witness = Witness(ledger, stage.link, stage.tally, stage.pulse)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow(stage.link, witness))
        await client(witness).run()
        following.cancel()
    stage.retire(ledger)


def _client(stage: Stage, ledger: SessionLedger, lifetime: Lifetime) -> Client:
    return Client(stage, Witness(ledger, stage.link, stage.tally, stage.pulse), lifetime)


async def _live(stage: Stage, ledger: SessionLedger, lifetime: Lifetime, hop_events: int) -> None:
    """Run a session's client and its watchers until the client is done."""
    link, witness = stage.link, Witness(ledger, stage.link, stage.tally, stage.pulse)
    async with asyncio.TaskGroup() as group:
        following = {
            group.create_task(follow(link, witness)),
            group.create_task(follow(link, witness, hop_events)),
        }
        filtering = group.create_task(follow_inferences(link, witness))
        await Client(stage, witness, lifetime).run()
        if ledger.is_deleted and ledger.created.is_set():
            _, left = await asyncio.wait(following, timeout=STREAM_END_SECONDS)
            check_streams_ended(ledger, len(left))
        for task in (*following, filtering):
            task.cancel()
