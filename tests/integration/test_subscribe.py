"""SubscribeEvents: every row of its table, its cursors, its heartbeat, and how streams end."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from support.rpc import SMALL_WINDOW, Stubs, connect, refusal, script, violations
from support.server import server_on
from support.snapshots import fold_messages, take_snapshot, view_of_messages
from support.subscribe_table import Row, subscribe_table
from turnwire.v1 import event_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_log

FINISHED, CAUGHT_UP, DELETED = (
    pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED,
    pb.SUBSCRIPTION_END_REASON_CAUGHT_UP,
    pb.SUBSCRIPTION_END_REASON_SESSION_DELETED,
)
AFTER = 3  # the cursor of the rows with after_sequence; it is inside the first inference


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as found:
        yield found


@dataclass
class Scene:
    """A session whose first inference has ended and whose second one runs, with some output."""

    session_id: str
    finished: str
    unfinished: str
    log: list[event_pb2.Event]

    def named(self, row: Row) -> str:
        return {"none": "", "finished": self.finished, "unfinished": self.unfinished}[row.inference]


async def _scene(stubs: Stubs) -> Scene:
    session_id = await stubs.create_session()
    first = await stubs.start(session_id, "first", script=script({"text": {"text": "abc " * 40}}))
    await stubs.finish(first.inference_id)
    second = await stubs.start(session_id, "second", script=script({"text": {"text": "xyz"}}, {"hang": {}}))
    log: list[event_pb2.Event] = []
    request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
    async for response in stubs.inference.SubscribeEvents(request):
        log.extend(response.events)
        if log and log[-1].HasField("llm_final") and log[-1].inference_id == second.inference_id:
            break
    return Scene(session_id, first.inference_id, second.inference_id, log)


def _request(row: Row, scene: Scene) -> pb.SubscribeEventsRequest:
    request = pb.SubscribeEventsRequest(
        session_id=scene.session_id,
        inference_id=scene.named(row),
        until=pb.SubscribeUntil.Value(f"SUBSCRIBE_UNTIL_{row.until}"),
    )
    if row.start == "after_sequence":
        request.after_sequence = AFTER
    else:
        getattr(request, row.start).SetInParent()
    return request


def _expected(row: Row, scene: Scene) -> list[int]:
    """Return the sequences that are due before anything new happens."""
    after = {"from_beginning": 0, "after_sequence": AFTER}.get(row.start, len(scene.log))
    name = scene.named(row)
    return [e.sequence for e in scene.log if e.sequence > after and (not name or e.inference_id == name)]


def _check_snapshot(row: Row, scene: Scene, snapshot: list[event_pb2.Event]) -> None:
    assert bool(snapshot) == (row.first_event == "snapshot")
    if snapshot:
        name = scene.named(row)
        log = [event for event in scene.log if name in {"", event.inference_id}]
        assert snapshot == fold_messages(log)
        assert view_of_messages(snapshot) == view_of_messages(log)


@pytest.mark.parametrize("row", subscribe_table(), ids=str)
async def test_each_row_of_the_table(stubs: Stubs, row: Row) -> None:
    scene = await _scene(stubs)
    watch = Watch(scene.session_id, scene.named(row))
    call = aiter(stubs.inference.SubscribeEvents(_request(row, scene)))
    if row.end == "INVALID_FIELD":
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(call)
        assert violations(refused.value) == {"": "subscribe.until_inference_end"}
        return
    begun = (await take_snapshot(call)).responses if row.start == "snapshot" else [await anext(call)]
    watch.begin(begun[0].after_sequence)
    for response in begun:
        watch.take(response)
    assert begun[0].opened.head_sequence == len(scene.log)
    _check_snapshot(row, scene, [event for response in begun for event in response.snapshot.events])
    due = _expected(row, scene)
    while [event.sequence for event in watch.events] != due:
        watch.take(await anext(call))
    cancelled = await stubs.inference.Cancel(pb.CancelRequest(inference_id=scene.unfinished))
    await stubs.finish(cancelled.inference.inference_id)
    await _check_end(row, call, watch, len(due))


async def _check_end(row: Row, call: AsyncIterator[pb.SubscribeEventsResponse], watch: Watch, due: int) -> None:
    """After what was due: the end that the row says, or what the second inference's end has added."""
    if row.end != "never":
        while not watch.end:
            watch.take(await anext(call))
        assert watch.end == pb.SubscriptionEndReason.Value(f"SUBSCRIPTION_END_REASON_{row.end}")
        with pytest.raises(StopAsyncIteration):
            await anext(call)
    live = row.inference != "finished" and row.end != "CAUGHT_UP"
    while live and not (watch.events and watch.events[-1].HasField("inference_finished")):
        watch.take(await anext(call))
    if row.end == "never" and not live:
        watch.take(await anext(call))  # a heartbeat, and nothing else
    if row.first_event != "snapshot":
        first = watch.events[0].sequence if watch.events else None
        assert (first is None) == (row.first_event == "-"), f"first event {first}, the row says {row.first_event}"
    assert live == (len(watch.events) > due), "new events reach whoever follows an inference that lives"


async def test_a_cursor_beyond_the_head_is_refused(stubs: Stubs) -> None:
    scene = await _scene(stubs)
    request = pb.SubscribeEventsRequest(session_id=scene.session_id, after_sequence=len(scene.log) + 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(stubs.inference.SubscribeEvents(request)))
    code, reason, metadata = refusal(refused.value)
    assert (code, reason) == ("OUT_OF_RANGE", "CURSOR_AHEAD")
    assert metadata["head_sequence"] == str(len(scene.log))


async def test_resuming_at_every_sequence_yields_the_same_bytes(stubs: Stubs) -> None:
    scene = await _scene(stubs)
    for after in range(len(scene.log) + 1):
        watch = Watch(scene.session_id)
        watch.begin(after)
        request = pb.SubscribeEventsRequest(
            session_id=scene.session_id, after_sequence=after, until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
        )
        async for response in stubs.inference.SubscribeEvents(request):
            watch.take(response)
        assert watch.end == CAUGHT_UP
        assert [e.SerializeToString() for e in watch.events] == [e.SerializeToString() for e in scene.log[after:]]
        page = await stubs.inference.ListEvents(
            pb.ListEventsRequest(session_id=scene.session_id, after_sequence=after, page_size=3)
        )
        assert list(page.events) == scene.log[after : after + 3]
        assert page.through_sequence == min(after + 3, len(scene.log))
        assert bool(page.next_page_token) == (after + 3 < len(scene.log))


async def test_a_resume_behind_the_terminal_event_ends_at_once(stubs: Stubs) -> None:
    scene = await _scene(stubs)
    terminal = max(event.sequence for event in scene.log if event.inference_id == scene.finished)
    request = pb.SubscribeEventsRequest(
        session_id=scene.session_id,
        inference_id=scene.finished,
        after_sequence=terminal,
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    )
    responses = [response async for response in stubs.inference.SubscribeEvents(request)]
    assert [(len(r.events), r.end.reason) for r in responses] == [(0, FINISHED)]


async def test_an_idle_stream_has_a_heartbeat_with_its_position(stubs: Stubs) -> None:
    scene = await _scene(stubs)
    call = aiter(
        stubs.inference.SubscribeEvents(pb.SubscribeEventsRequest(session_id=scene.session_id, live=pb.FromLive()))
    )
    await anext(call)
    for _ in range(2):  # the server of these tests beats every 0.3 s
        beat = await anext(call)
        assert not beat.events
        assert beat.after_sequence == beat.through_sequence == len(scene.log)


async def test_deleting_a_session_ends_its_streams_and_replaces_its_log(stubs: Stubs) -> None:
    scene = await _scene(stubs)
    watch = Watch(scene.session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(session_id=scene.session_id, from_beginning=pb.FromBeginning())
    call = aiter(stubs.inference.SubscribeEvents(request))
    watch.take(await anext(call))
    delete = session_service_pb2.DeleteSessionRequest(session_id=scene.session_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.session.DeleteSession(delete)
    assert refusal(refused.value)[1] == "SESSION_BUSY"
    delete.force = True
    await stubs.session.DeleteSession(delete)
    async for response in call:
        watch.take(response)
    assert watch.end == DELETED
    again = session_service_pb2.CreateSessionRequest()
    again.session.session_id = scene.session_id
    await stubs.session.CreateSession(again)
    for after in (0, watch.position):
        resume = pb.SubscribeEventsRequest(session_id=scene.session_id, after_sequence=after, log=watch.log)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(stubs.inference.SubscribeEvents(resume)))
        assert refusal(refused.value)[:2] == ("OUT_OF_RANGE", "LOG_REPLACED")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.inference.ListEvents(
                pb.ListEventsRequest(session_id=scene.session_id, after_sequence=after, log=watch.log)
            )
        assert refusal(refused.value)[:2] == ("OUT_OF_RANGE", "LOG_REPLACED")


async def test_an_inference_of_another_session_is_not_found(stubs: Stubs) -> None:
    scene, other = await _scene(stubs), await stubs.create_session()
    request = pb.SubscribeEventsRequest(session_id=other, inference_id=scene.finished, live=pb.FromLive())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(stubs.inference.SubscribeEvents(request)))
    assert refusal(refused.value) == ("NOT_FOUND", "INFERENCE_NOT_FOUND", {"inference_id": scene.finished})


async def test_a_long_log_arrives_in_bounded_responses(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    long = script({"text": {"text": "0123456789" * 100, "repeat": 2000}}, delta_length=1000)
    started = await stubs.start(session_id, script=long)
    await stubs.finish(started.inference_id)
    watch = Watch(session_id)
    watch.begin(0)
    sizes: list[int] = []
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
        sizes.append(response.ByteSize())
    assert max(sizes) < 2 * 1024 * 1024
    assert len(sizes) >= 2
    check_log(watch.events)
    final = next(event.llm_final for event in watch.events if event.HasField("llm_final"))
    assert final.text_omitted
    assert final.text_bytes == 2_000_000


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_watchers_that_do_not_read_cost_bounded_memory_and_slow_nobody(tmp_path: Path) -> None:
    """Bounded: the inference ends although twenty watchers never read, and what they missed is there afterwards."""
    count = 20
    long = script({"text": {"text": "0123456789" * 100, "repeat": 1500}}, delta_length=20)
    with server_on(tmp_path / "turnwire.db") as server:
        async with connect(server.address) as stubs, connect(server.address, *SMALL_WINDOW) as idle:
            warm = await stubs.create_session()
            await stubs.finish((await stubs.start(warm, script=long)).inference_id)
            session_id = await stubs.create_session()
            request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
            stalled = [aiter(idle.inference.SubscribeEvents(request)) for _ in range(count)]
            opened = [await anext(each) for each in stalled]
            before = _resident_bytes(server.pid)
            ended = await stubs.finish((await stubs.start(session_id, script=long)).inference_id)
            growth = _resident_bytes(server.pid) - before
            log_bytes = sum(response.ByteSize() for response in await _read_all(stubs, session_id))
            assert log_bytes > 10_000_000
            assert growth < count * log_bytes / 4, f"{growth} bytes for {count} watchers of {log_bytes} bytes"
            watch = Watch(session_id)
            watch.begin(0)
            watch.take(opened[0])
            while watch.position < ended.inference.last_sequence:
                watch.take(await anext(stalled[0]))
            check_log(watch.events)


async def _read_all(stubs: Stubs, session_id: str) -> list[pb.ListEventsResponse]:
    pages = [await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, page_size=10_000))]
    while token := pages[-1].next_page_token:
        request = pb.ListEventsRequest(session_id=session_id, page_size=10_000, page_token=token)
        pages.append(await stubs.inference.ListEvents(request))
    return pages
