"""EventStream against the fake: every event exactly once, whatever happens to the streams it reads from."""

import asyncio
import socket

import pytest

from turnwire.v1.event_pb2 import Event, Log
from turnwire.v1.inference_service_pb2 import SubscribeEventsRequest
from turnwire_client import Client, EventStream, Policy, StreamLostError, errors
from turnwire_client._backoff import Backoff
from turnwire_client.testing import Cut, FakeServer

TEXT = "one two three four five six seven eight nine ten"


def sequences(events: list[Event]) -> list[int]:
    return [event.sequence for event in events]


async def collect(stream: EventStream, events: list[Event]) -> None:
    async for event in stream:
        events.append(event)  # noqa: PERF401 - what came before an error counts


async def test_events_come_in_order_up_to_the_terminal_one(fake: FakeServer, client: Client) -> None:
    fake.reply(TEXT, thinking="hm")
    handle = await client.start_inference(input="hello")
    events = [event async for event in handle.events()]
    assert events == fake.events_of(handle.session_id)
    assert events[-1].HasField("inference_finished")
    assert "".join(event.llm_delta.delta for event in events) == TEXT


@pytest.mark.parametrize("how", ["unavailable", "eof", "draining"])
async def test_a_cut_at_every_event_loses_and_repeats_nothing(fake: FakeServer, client: Client, how: Cut) -> None:
    fake.reply(TEXT)
    handle = await client.start_inference(input="hello")
    expected = fake.events_of(handle.session_id)
    for after_events in range(len(expected) + 1):
        fake.cut_streams(after_events, how=how)
        assert [event async for event in handle.events()] == expected


@pytest.mark.parametrize("how", ["unavailable", "eof", "draining"])
async def test_a_stream_that_is_cut_after_each_event(fake: FakeServer, client: Client, how: Cut) -> None:
    fake.reply(TEXT)
    handle = await client.start_inference(input="hello")
    expected = fake.events_of(handle.session_id)
    fake.cut_streams(1, how=how, times=len(expected))
    assert [event async for event in handle.events()] == expected
    requests = fake.requests_of(SubscribeEventsRequest)
    # The cut that follows the terminal event needs no other stream: nothing can follow.
    assert [request.after_sequence for request in requests] == list(range(len(expected)))
    assert {request.log for request in requests[1:]} == {(await client.get_session(handle.session_id)).log}


async def test_a_watch_of_the_session_resumes_as_well(fake: FakeServer, client: Client) -> None:
    session = await client.create_session()
    for text in ("a", "b", "c"):
        fake.reply(text)
        await client.start_inference(session.session_id, text)
    expected = fake.events_of(session.session_id)
    fake.cut_streams(2, times=5)
    watch = client.watch(session.session_id, until="caught_up")
    assert [event async for event in watch] == expected


async def test_a_filter_leaves_gaps_that_are_not_losses(fake: FakeServer, client: Client) -> None:
    session = await client.create_session()
    first = await client.start_inference(session.session_id, "a")
    second = await client.start_inference(session.session_id, "b")
    fake.cut_streams(1, times=3)
    for handle in (first, second, client.inference(first.inference_id, session.session_id)):
        events = [event async for event in handle.events()]
        assert {event.inference_id for event in events} == {handle.inference_id}
        assert events[-1].inference_finished.event_count == len(events)


async def test_the_delays_grow_are_jittered_and_start_anew_after_progress(
    fake: FakeServer, client: Client, clock
) -> None:
    handle = await client.start_inference(input="hello")
    fake.cut_streams(0, times=4)
    fake.cut_streams(1, times=2)
    assert [event async for event in handle.events()] == fake.events_of(handle.session_id)
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 0.1, 0.1]


async def test_it_goes_on_after_a_restart_of_the_server(fake: FakeServer, clock) -> None:
    fake.hang(TEXT)
    policy = Policy(resume=Backoff(give_up_seconds=None))
    async with Client.connect(fake.target, policy=policy, clock=clock) as client:
        handle = await client.start_inference(input="hello")
        events: list[Event] = []
        async for event in handle.events():
            events.append(event)
            if len(events) == 4:
                await fake.restart()
                await handle.cancel()
        assert events == fake.events_of(handle.session_id)
        assert events[-1].inference_finished.HasField("cancelled")


async def test_it_gives_up_in_time_and_says_where_to_go_on(fake: FakeServer, client: Client, clock) -> None:
    fake.hang(TEXT)
    handle = await client.start_inference(input="hello")
    stream = handle.events()
    seen = [await anext(stream) for _ in range(5)]
    await fake.stop()
    before = clock.now
    with pytest.raises(StreamLostError) as lost:
        await collect(stream, seen)
    assert lost.value.after_sequence == len(seen)
    assert lost.value.log == stream.cursor.log
    assert isinstance(lost.value.__cause__, errors.UnavailableError)
    assert 100 < clock.now - before <= 120
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_silence_counts_as_a_cut(fake: FakeServer, client: Client, clock) -> None:
    fake.reply(TEXT)
    handle = await client.start_inference(input="hello")
    expected = fake.events_of(handle.session_id)
    fake.cut_streams(3, how="silence")
    stream = handle.events()
    seen = [await anext(stream) for _ in range(3)]
    following = asyncio.ensure_future(anext(stream))
    clock.forget_timers()
    await clock.wait_timer()
    clock.fire()
    seen.append(await following)
    seen.extend([event async for event in stream])
    assert seen == expected
    assert {seconds for seconds, _ in clock.timers} == {45.0}


async def test_giving_up_on_one_event_does_not_lose_it(fake: FakeServer, client: Client) -> None:
    fake.hang(TEXT)
    handle = await client.start_inference(input="hello")
    known = len(fake.events_of(handle.session_id))
    stream = handle.events()
    seen = [await anext(stream) for _ in range(known)]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await handle.cancel("enough")
    seen.extend([event async for event in stream])
    assert seen == fake.events_of(handle.session_id)


async def test_the_cursor_continues_elsewhere(fake: FakeServer, client: Client) -> None:
    fake.reply(TEXT)
    handle = await client.start_inference(input="hello")
    expected = fake.events_of(handle.session_id)
    async with handle.events() as stream:
        seen = [await anext(stream) for _ in range(4)]
    again = client.inference(handle.inference_id, handle.session_id)
    seen.extend([event async for event in again.events(stream.cursor.after_sequence, stream.cursor.log)])
    assert seen == expected
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_live_starts_at_the_head(fake: FakeServer, client: Client, clock) -> None:
    session = await client.create_session()
    await client.start_inference(session.session_id, "before")
    head = len(fake.events_of(session.session_id))
    async with client.watch(session.session_id, start="live") as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await clock.wait_timer()
        await asyncio.wait({asyncio.ensure_future(client.get_session(session.session_id))})
        await client.start_inference(session.session_id, "after")
        assert (await waiting).sequence == head + 1


async def test_an_unknown_variant_is_skipped_only_if_it_may_be(fake: FakeServer, client: Client) -> None:
    fake.hang()
    handle = await client.start_inference(input="hello")
    fake.add_event(handle.session_id, handle.inference_id, ignorable=True)
    fake.add_event(handle.session_id, handle.inference_id, Log(level="info", message="after it"))
    strange = fake.add_event(handle.session_id, handle.inference_id)
    stream = handle.events()
    seen: list[Event] = []
    with pytest.raises(errors.UnknownEventError, match=f"event {strange.sequence} "):
        await collect(stream, seen)
    assert sequences(seen) == [*range(1, strange.sequence - 2), strange.sequence - 1]
    assert stream.cursor.after_sequence == strange.sequence - 1


async def test_a_deleted_session_is_not_a_quiet_end(fake: FakeServer, client: Client) -> None:
    fake.hang()
    handle = await client.start_inference(input="hello")
    await client.delete_session(handle.session_id, force=True)
    with pytest.raises(errors.SessionNotFoundError):
        await anext(handle.events())

    fake.hang()
    handle = await client.start_inference(input="hello")
    stream = handle.events()
    await anext(stream)
    await client.delete_session(handle.session_id, force=True)
    with pytest.raises(errors.SessionDeletedError):
        await collect(stream, [])


async def test_a_refusal_is_raised_and_a_passing_limit_is_waited_for(fake: FakeServer, client: Client, clock) -> None:
    handle = await client.start_inference(input="hello")
    fake.refuse("TOO_MANY_WATCHERS", rpc="SubscribeEvents", retry_delay=7.0)
    with pytest.raises(errors.TooManyWatchersError):
        await anext(handle.events())

    stream = handle.events()
    fake.cut_streams(1)
    events = [await anext(stream)]
    fake.refuse("TOO_MANY_WATCHERS", rpc="SubscribeEvents", retry_delay=7.0)
    events.extend([event async for event in stream])
    assert events == fake.events_of(handle.session_id)
    assert clock.slept == [0.1, 7.0]


async def test_a_cursor_of_another_log_is_refused(fake: FakeServer, client: Client) -> None:
    session = await client.create_session("mine")
    await client.start_inference(session.session_id, "hello")
    await client.delete_session("mine")
    await client.create_session("mine")
    with pytest.raises(errors.LogReplacedError):
        await anext(client.watch("mine", start=3, log=session.log))
    with pytest.raises(errors.CursorAheadError) as ahead:
        await anext(client.watch("mine", start=3))
    assert ahead.value.metadata == {"session_id": "mine", "after_sequence": "3", "head_sequence": "0"}


async def test_closing_the_client_does_not_look_like_a_cancelled_task(fake: FakeServer) -> None:
    client = Client.connect(fake.target)
    session = await client.create_session()
    stream = client.watch(session.session_id)
    waiting = asyncio.ensure_future(anext(stream))
    while not fake.requests_of(SubscribeEventsRequest):
        await client.get_session(session.session_id)
    await client.close()
    with pytest.raises(StreamLostError, match="closed"):
        await waiting


async def test_a_server_that_never_answered_is_given_up_soon(clock) -> None:
    async with Client.connect("127.0.0.1:1", clock=clock) as client:
        stream = client.watch("s")
        begin = clock.now
        with pytest.raises(errors.UnavailableError):
            await anext(stream)
        assert 2 < clock.now - begin <= 4
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_first_stream_that_says_nothing_is_given_up_soon(clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel takes connections, nobody ever answers
        async with Client.connect(f"127.0.0.1:{mute.getsockname()[1]}", clock=clock) as client:
            waiting = asyncio.ensure_future(anext(client.watch("s")))
            await clock.wait_timer()
            assert [seconds for seconds, _ in clock.timers] == [20.0]
            clock.now += 20.0
            clock.fire()
            with pytest.raises(StreamLostError, match="no answer for 4"):
                await waiting


async def test_cuts_are_told_once_each(fake: FakeServer, client: Client, clock) -> None:
    fake.reply(TEXT)
    handle = await client.start_inference(input="hello")
    fake.cut_streams(1)
    stream = handle.events()
    told: list[float] = []
    stream.on_cut = lambda: told.append(clock.now)
    begin = clock.now
    await anext(stream)
    fake.refuse("STORE_UNAVAILABLE", rpc="SubscribeEvents", times=3)
    await anext(stream)
    assert told == [begin]
    assert clock.now > begin
    await stream.aclose()


async def test_a_handle_of_a_start_outlives_a_restart_before_its_first_event(
    fake: FakeServer, client: Client, clock
) -> None:
    handle = await client.start_inference(input="hello")
    fake.refuse("STORE_UNAVAILABLE", rpc="SubscribeEvents", times=10)
    assert [event async for event in handle.events()] == fake.events_of(handle.session_id)
    assert sum(clock.slept) > 4
