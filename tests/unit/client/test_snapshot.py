"""Snapshots in the client: each inference once and whole, whatever happens to the streams; broken ones are noticed."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from turnwire.v1.event_pb2 import Event, InferenceFinished, LlmDelta
from turnwire.v1.inference_service_pb2 import (
    SnapshotPart,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
    SubscriptionEnd,
    SubscriptionOpened,
)
from turnwire_client import Client, EventStream, InferenceHandle, ProtocolError, errors
from turnwire_client._continuity import Continuity
from turnwire_client._fake_snapshot import snapshot_parts
from turnwire_client._snapshot import Snapshot
from turnwire_client.testing import Cut, FakeServer

TEXT = "one two three four five six seven eight nine ten"


async def talk(fake: FakeServer, client: Client) -> InferenceHandle:
    """A session with two inferences that have ended and one that has not; return that one."""
    session = await client.create_session()
    for text in (TEXT, "short"):
        fake.reply(text, thinking="hm")
        await client.start_inference(session.session_id, "hello")
    fake.hang(TEXT)
    return await client.start_inference(session.session_id, "hello")


def folded(events: Sequence[Event]) -> list[Event]:
    return [event for part in snapshot_parts(events) for event in part.events]


async def collect(stream: EventStream) -> list[Event]:
    return [event async for event in stream]


async def test_a_snapshot_comes_first_and_then_what_follows(fake: FakeServer, client: Client) -> None:
    handle = await talk(fake, client)
    log = fake.events_of(handle.session_id)
    expected = folded(log)
    stream = client.watch(handle.session_id, start="snapshot")
    assert stream.snapshot_through is None
    for event in expected:
        assert not stream.cursor.after_sequence, "there is no cursor inside a snapshot"
        assert await anext(stream) == event
        assert stream.is_snapshot
    assert (stream.snapshot_through, stream.cursor.after_sequence) == (len(log), len(log))
    await handle.cancel()
    for event in fake.events_of(handle.session_id)[len(log) :]:
        assert await anext(stream) == event
        assert not stream.is_snapshot
        assert stream.cursor.after_sequence == event.sequence
    assert [event.llm_final.text for event in expected if event.HasField("llm_final")] == [TEXT, "short"]
    assert [event.llm_delta.delta for event in expected if event.HasField("llm_delta")] == [TEXT]
    await stream.aclose()


@pytest.mark.parametrize("how", ["unavailable", "eof", "draining"])
async def test_a_cut_at_every_event_of_a_snapshot_repeats_nothing(fake: FakeServer, client: Client, how: Cut) -> None:
    handle = await talk(fake, client)
    expected = folded(fake.events_of(handle.session_id))
    for after_events in range(len(expected)):
        fake.cut_streams(after_events, how=how)
        assert await collect(client.watch(handle.session_id, start="snapshot", until="caught_up")) == expected


async def test_a_snapshot_that_begins_anew_later_goes_on_with_what_did_not_come(
    fake: FakeServer, client: Client, clock
) -> None:
    count = len(folded(fake.events_of((await talk(fake, client)).session_id)))
    for after_events in range(count):
        handle = await talk(fake, client)

        async def go_on(handle: InferenceHandle = handle) -> None:
            await handle.cancel()
            await client.start_inference(handle.session_id, "and another one")

        clock.on_sleep = go_on
        fake.cut_streams(after_events)
        stream = client.watch(handle.session_id, start="snapshot", until="caught_up")
        assert await collect(stream) == folded(fake.events_of(handle.session_id))


async def test_one_inference_is_told_to_its_end(fake: FakeServer, client: Client) -> None:
    handle = await talk(fake, client)
    own = [event for event in fake.events_of(handle.session_id) if event.inference_id == handle.inference_id]
    stream = handle.events(snapshot=True)
    seen = [await anext(stream) for _ in folded(own)]
    assert seen == folded(own)
    await handle.cancel()
    seen += await collect(stream)
    assert seen[-1].HasField("inference_finished")
    assert await collect(handle.events(snapshot=True)) == folded(
        [event for event in fake.events_of(handle.session_id) if event.inference_id == handle.inference_id]
    )
    with pytest.raises(ValueError, match="snapshot"):
        handle.events(3, snapshot=True)


async def test_where_events_were_removed_a_snapshot_takes_over_if_it_may(fake: FakeServer, client: Client) -> None:
    handle = await talk(fake, client)
    log = fake.events_of(handle.session_id)
    fake.refuse("EVENTS_COMPACTED", rpc="SubscribeEvents", times=2)
    with pytest.raises(errors.EventsCompactedError):
        await anext(client.watch(handle.session_id, start=3))
    anew: list[bool] = []
    stream = client.watch(handle.session_id, start=3, until="caught_up", if_compacted="snapshot")
    stream.on_snapshot = lambda: anew.append(stream.is_snapshot)
    assert await collect(stream) == folded(log)
    assert anew == [False]

    fake.cut_streams(4)
    stream = client.watch(handle.session_id, until="caught_up", if_compacted="snapshot")
    stream.on_snapshot = lambda: anew.append(stream.is_snapshot)
    seen = [await anext(stream) for _ in range(4)]
    fake.refuse("EVENTS_COMPACTED", rpc="SubscribeEvents")
    assert [*seen, *await collect(stream)] == [*log[:4], *folded(log)]
    assert anew == [False, False]
    assert stream.is_snapshot


async def test_a_snapshot_that_retention_overtakes_begins_anew(fake: FakeServer, client: Client, clock) -> None:
    handle = await talk(fake, client)
    fake.refuse("EVENTS_COMPACTED", rpc="SubscribeEvents", times=3)
    stream = client.watch(handle.session_id, start="snapshot", until="caught_up")
    assert await collect(stream) == folded(fake.events_of(handle.session_id))
    assert len(clock.slept) == 3


async def test_every_stream_asks_for_the_cancel(fake: FakeServer, client: Client) -> None:
    handle = await talk(fake, client)
    fake.cut_streams(1, times=2)
    stream = handle.events(cancel_after_disconnect=2.5)
    for _ in range(3):
        await anext(stream)
    await stream.aclose()
    watch = client.watch(handle.session_id, inference_id=handle.inference_id, cancel_after_disconnect=timedelta(0))
    await anext(watch)
    await watch.aclose()
    asked = [request.cancel_after_disconnect.ToTimedelta() for request in fake.requests_of(SubscribeEventsRequest)]
    assert asked == [timedelta(seconds=2.5)] * 3 + [timedelta(0)]
    assert fake.requests_of(SubscribeEventsRequest)[-1].HasField("cancel_after_disconnect")
    with pytest.raises(ValueError, match="a time has to be"):
        handle.events(cancel_after_disconnect=-1)
    await anext(handle.events())
    assert not fake.requests_of(SubscribeEventsRequest)[-1].HasField("cancel_after_disconnect")


def told(sequence: int, inference: str = "i", *, last: bool = False) -> Event:
    made = Event(sequence=sequence, session_id="s", inference_id=inference)
    if last:
        made.inference_finished.CopyFrom(InferenceFinished())
    else:
        made.llm_delta.CopyFrom(LlmDelta(delta="x"))
    return made


def test_what_is_held_is_one_inference_and_those_that_have_not_ended() -> None:
    snapshot = Snapshot()
    first, second = [told(1, "a"), told(5, "a", last=True)], [told(2, "b"), told(9, "b", last=True)]
    assert snapshot.take(SnapshotPart(events=first[:1]), 20) == []
    assert snapshot.take(SnapshotPart(events=[first[1], second[0]]), 20) == first
    assert snapshot.take(SnapshotPart(events=[second[1], told(3, "c")]), 20) == second
    assert snapshot.take(SnapshotPart(events=[told(4, "d")]), 20) == []
    snapshot.begin_anew()
    ended = [told(3, "c"), told(21, "c", last=True)]
    assert snapshot.take(SnapshotPart(events=[*first, *second, *ended, told(4, "d")]), 30) == ended
    assert snapshot.take(SnapshotPart(last=True), 30) == [told(4, "d")]


def part(*events: Event, through: int = 9, last: bool = False, log: str = "") -> SubscribeEventsResponse:
    return SubscribeEventsResponse(
        after_sequence=through,
        through_sequence=through,
        opened=SubscriptionOpened(log=log) if log else None,
        snapshot=SnapshotPart(events=events, last=last),
    )


OPENED = SubscribeEventsResponse(after_sequence=9, through_sequence=9, opened=SubscriptionOpened(log="L"))
TAIL = SubscribeEventsResponse(after_sequence=9, through_sequence=10, events=[told(10)])

BROKEN = {
    "beyond its sequence": [OPENED, part(told(10), last=True)],
    "out of order": [OPENED, part(told(3), told(2), last=True)],
    "the same twice": [OPENED, part(told(3), told(3), last=True)],
    "ended after unfinished": [OPENED, part(told(1, "a"), told(2, "b", last=True), last=True)],
    "not in the order of their ends": [OPENED, part(told(5, "a", last=True), told(4, "b", last=True), last=True)],
    "another sequence": [OPENED, part(told(3)), part(told(4), through=10, last=True)],
    "events before its end": [OPENED, TAIL],
    "a part too many": [OPENED, part(told(3), last=True), part(last=True)],
    "a hole after it": [
        OPENED,
        part(told(3), last=True),
        SubscribeEventsResponse(after_sequence=10, through_sequence=11, events=[told(11)]),
    ],
    "ended before its end": [
        OPENED,
        SubscribeEventsResponse(
            after_sequence=9, through_sequence=9, end=SubscriptionEnd(reason="SUBSCRIPTION_END_REASON_CAUGHT_UP")
        ),
    ],
    "of another session": [OPENED, part(Event(sequence=1, session_id="t"), last=True)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_snapshot_is_noticed(name: str) -> None:
    seen = Continuity("s", "", None, "")
    seen.begin_snapshot()
    for each in BROKEN[name][:-1]:
        seen.take(each)
    with pytest.raises(ProtocolError):
        seen.take(BROKEN[name][-1])


def test_a_snapshot_that_nobody_asked_for_is_noticed() -> None:
    seen = Continuity("s", "", None, "")
    seen.take(OPENED)
    with pytest.raises(ProtocolError):
        seen.take(part(told(3), last=True))


def test_a_whole_snapshot_is_let_through() -> None:
    seen = Continuity("s", "i", None, "")
    seen.begin_snapshot()
    seen.take(OPENED)
    assert (seen.after_sequence, seen.snapshot_through) == (None, None)
    assert seen.take(part(told(3), last=True)) == [told(3)]
    assert (seen.after_sequence, seen.snapshot_through, seen.started, seen.finished) == (9, 9, True, False)
    assert list(seen.take(TAIL)) == [told(10)]
