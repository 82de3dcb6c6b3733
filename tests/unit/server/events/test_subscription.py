"""A watcher that begins with a snapshot: without a seam to what follows, however the log moves meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from contract.store_harness import Harness
from support.event_view import view_of
from support.session_logs import CODEC, DisturbedStore, fold, open_disturbed, tell, write_log
from turnwire_server.domain.errors import EventsCompactedError
from turnwire_server.domain.event import Event, InferenceFinished, LlmDelta, LlmStart
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.subscription import Delivery, End, StartKind, Subscription, Until, subscribe
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.base import Base
from turnwire_server.wire.event import decode_frames, encode_frame

SNAPSHOT = Subscription("local", "s", StartKind.SNAPSHOT, until=Until.CAUGHT_UP)


class SteppingClock(SystemClock):
    """A clock on which a second passes with each look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_seconds = 0.0

    def monotonic(self) -> float:
        self.now_seconds += 1
        return self.now_seconds


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    opened = await Harness().open(open_disturbed)
    yield opened
    await opened.end()


def _store(harness: Harness) -> DisturbedStore:
    assert isinstance(harness.store, DisturbedStore)
    return harness.store


def _subscribe(harness: Harness, request: Subscription, fanout: Fanout) -> AsyncGenerator[Delivery]:
    return subscribe(harness.store, fanout, request, SystemClock(), CODEC, 60)


async def _read(harness: Harness, request: Subscription, fanout: Fanout) -> list[Delivery]:
    async with aclosing(_subscribe(harness, request, fanout)) as stream:
        return [delivery async for delivery in stream]


def _snapshot(deliveries: list[Delivery]) -> list[Event]:
    return decode_frames(b"".join(frame for d in deliveries if d.snapshot for frame in d.snapshot.frames))


def _events(deliveries: list[Delivery]) -> list[Event]:
    return decode_frames(b"".join(frame for d in deliveries for frame in d.frames))


async def test_a_snapshot_comes_in_responses_at_the_head_and_then_the_end(harness: Harness) -> None:
    log = await write_log(harness)
    deliveries = await _read(harness, SNAPSHOT, Fanout())
    assert [(d.after_sequence, d.through_sequence) for d in deliveries] == [(len(log), len(log))] * len(deliveries)
    assert [bool(d.opened) for d in deliveries] == [True] + [False] * (len(deliveries) - 1)
    assert [d.snapshot.is_last for d in deliveries if d.snapshot] == [True]
    assert [d.end for d in deliveries][-1] is End.CAUGHT_UP
    assert _snapshot(deliveries) == fold(log)


async def test_an_inference_that_has_ended_is_told_and_the_stream_ends_also_after_a_cut(harness: Harness) -> None:
    log = await write_log(harness)
    ended = [event for event in log if isinstance(event.payload, InferenceFinished)]
    unfinished = next(event for event in log if event.inference_id not in {each.inference_id for each in ended})
    for cut in (0, 10, unfinished.sequence - 1):
        await harness.store.compact("local", "s", Base(cut, b"".join(map(encode_frame, fold(log[:cut])))))
        for terminal in ended:
            request = replace(SNAPSHOT, inference_id=terminal.inference_id, until=Until.INFERENCE_END)
            deliveries = await _read(harness, request, Fanout())
            assert deliveries[-1].end is End.INFERENCE_FINISHED
            assert _snapshot(deliveries) == [e for e in fold(log) if e.inference_id == terminal.inference_id]
            assert _events(deliveries) == []


async def test_who_has_seen_an_end_that_was_cut_away_is_told_of_it(harness: Harness) -> None:
    log = await write_log(harness)
    terminal = next(event for event in log if isinstance(event.payload, InferenceFinished))
    cut = terminal.sequence
    await harness.store.compact("local", "s", Base(cut, b"".join(map(encode_frame, fold(log[:cut])))))
    request = Subscription("local", "s", StartKind.LIVE, 0, terminal.inference_id, Until.INFERENCE_END)
    for start, after in ((StartKind.LIVE, 0), (StartKind.AFTER_SEQUENCE, cut), (StartKind.AFTER_SEQUENCE, len(log))):
        (delivery,) = await _read(harness, replace(request, start=start, after_sequence=after), Fanout())
        assert (delivery.end, delivery.frames) == (End.INFERENCE_FINISHED, ())
    for start, after in ((StartKind.FROM_BEGINNING, 0), (StartKind.AFTER_SEQUENCE, cut - 1)):
        with pytest.raises(EventsCompactedError) as refused:
            await _read(harness, replace(request, start=start, after_sequence=after), Fanout())
        assert refused.value.metadata["earliest_sequence"] == str(cut + 1)


async def test_what_is_committed_while_the_snapshot_is_read_follows_it(harness: Harness) -> None:
    await harness.session()
    claim = await harness.running()
    position = await tell(harness, claim, 0, LlmStart(), *(LlmDelta("a", n) for n in range(5)))
    fanout = Fanout()
    published = len(harness.commits)

    async def say_more(read: int) -> None:
        nonlocal position, published
        position = await tell(harness, claim, position, LlmDelta("b", position - 1))
        if read % 2:  # the topic is told late, or in one go with the next
            fanout.publish(harness.commits[published:])
            published = len(harness.commits)

    _store(harness).disturb = say_more
    request = replace(SNAPSHOT, until=Until.FOLLOW)
    deliveries: list[Delivery] = []
    async with aclosing(_subscribe(harness, request, fanout)) as stream:
        async for delivery in stream:
            deliveries.append(delivery)
            if len(_events(deliveries)) >= 5:
                break
    _store(harness).disturb = None
    log = await harness.events()
    opened = deliveries[0].opened
    assert opened is not None
    head, reached = opened.head_sequence, deliveries[-1].through_sequence
    assert _snapshot(deliveries) == fold(log[:head])
    assert _events(deliveries) == log[head:reached]
    assert view_of([*_snapshot(deliveries), *_events(deliveries)]) == view_of(log[:reached])
    for before, after in pairwise(deliveries):
        assert before.through_sequence == after.after_sequence


@pytest.mark.parametrize("is_published", [False, True])
async def test_a_deletion_in_the_middle_ends_the_stream(harness: Harness, is_published: bool) -> None:
    await write_log(harness)
    fanout = Fanout()

    async def delete(read: int) -> None:
        if read == 3:
            published = len(harness.commits)
            await harness.delete("s", force=True)
            if is_published:
                fanout.publish(harness.commits[published:])

    _store(harness).disturb = delete
    deliveries = await _read(harness, SNAPSHOT, fanout)
    assert deliveries[-1].end is End.SESSION_DELETED
    assert not any(d.snapshot and d.snapshot.is_last for d in deliveries)


async def test_a_drain_in_the_middle_ends_the_stream(harness: Harness) -> None:
    await write_log(harness)
    fanout = Fanout()

    async def drain(read: int) -> None:
        if read == 3:
            fanout.close()

    _store(harness).disturb = drain
    deliveries = await _read(harness, SNAPSHOT, fanout)
    assert deliveries[-1].end is End.DRAINING
    assert _store(harness).read_count == 3


async def test_a_snapshot_that_takes_long_has_heartbeats(harness: Harness) -> None:
    log = await write_log(harness)
    stream = subscribe(harness.store, Fanout(), SNAPSHOT, SteppingClock(), CODEC, 5)
    async with aclosing(stream):
        deliveries = [delivery async for delivery in stream]
    empty = [d for d in deliveries if not (d.opened or d.snapshot or d.end)]
    assert len(empty) > 3
    assert {(d.after_sequence, d.through_sequence) for d in empty} == {(len(log), len(log))}
    assert _snapshot(deliveries) == fold(log)


async def test_others_have_their_turn_while_a_snapshot_is_read(harness: Harness) -> None:
    await write_log(harness)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    await _read(harness, SNAPSHOT, Fanout())
    counting.cancel()
    assert turns >= len(await harness.chunks()) > 40
