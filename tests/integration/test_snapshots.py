"""Snapshots of real servers: with what follows they show what all events show, wherever they begin and whatever was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from support.rpc import Stubs, connect, refusal, script, start_request
from support.server import server_on
from support.session_logs import CODEC
from support.snapshots import fold_messages, take_snapshot, view_of_messages
from turnwire.v1 import event_pb2, inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_client import Client
from turnwire_client.errors import EventsCompactedError
from turnwire_conformance.promises import Watch
from turnwire_server.bootstrap import Server, running_server
from turnwire_server.config.settings import Settings
from turnwire_server.events.retention import retire
from turnwire_server.stores.base import Retired

WORDS = "one two three four fünf "
TALK = script(
    {"thinking": {"text": "Let me see. ", "repeat": 5}}, {"text": {"text": WORDS, "repeat": 40}}, pace="0.002s"
)
SLOW = script({"text": {"text": WORDS, "repeat": 200}}, pace="0.005s")


def _request(
    session_id: str,
    inference_id: str = "",
    until: pb.SubscribeUntil.ValueType = pb.SUBSCRIBE_UNTIL_CAUGHT_UP,
) -> pb.SubscribeEventsRequest:
    return pb.SubscribeEventsRequest(
        session_id=session_id, inference_id=inference_id, snapshot=pb.FromSnapshot(), until=until
    )


async def _follow(stubs: Stubs, request: pb.SubscribeEventsRequest) -> tuple[list[event_pb2.Event], Watch]:
    """Return the snapshot that a stream begins with, and what follows until its end, checked."""
    call = aiter(stubs.inference.SubscribeEvents(request))
    snapshot = await take_snapshot(call)
    watch = Watch(request.session_id, request.inference_id)
    watch.begin(snapshot.through_sequence)
    for response in snapshot.responses:
        watch.take(response)
    async for response in call:
        watch.take(response)
    assert watch.end
    return snapshot.events, watch


async def _log(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    watch = Watch(session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
    return watch.events


def _check(snapshot: list[event_pb2.Event], watch: Watch, log: list[event_pb2.Event]) -> None:
    """Check a snapshot and what followed it against the whole log."""
    own = [event for event in log if watch.inference_id in {"", event.inference_id}]
    before = [event for event in own if event.sequence <= watch.start]
    assert snapshot == fold_messages(before)
    assert watch.events == [event for event in own if event.sequence > watch.start]
    assert fold_messages([*snapshot, *watch.events]) == fold_messages(own)
    assert view_of_messages([*snapshot, *watch.events]) == view_of_messages(own)


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as found:
        yield found


async def test_at_many_moments_of_a_running_inference(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    await stubs.finish((await stubs.start(session_id, "before")).inference_id)
    started = await stubs.start(session_id, script=TALK)
    moments: list[asyncio.Task[tuple[list[event_pb2.Event], Watch]]] = []
    request = _request(session_id, started.inference_id, pb.SUBSCRIBE_UNTIL_INFERENCE_END)
    live = pb.SubscribeEventsRequest(
        session_id=session_id,
        inference_id=started.inference_id,
        from_beginning=pb.FromBeginning(),
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    )
    count = 0
    async for response in stubs.inference.SubscribeEvents(live):
        count += len(response.events)
        if len(moments) * 8 < count:
            moments.append(asyncio.create_task(_follow(stubs, request)))
    seen = await asyncio.gather(*moments)
    log = await _log(stubs, session_id)
    starts = {watch.start for _, watch in seen}
    assert len(starts) >= 10
    for snapshot, watch in seen:
        _check(snapshot, watch, log)
    _check(*await _follow(stubs, _request(session_id)), log)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = Settings(listen="127.0.0.1:0", store=str(tmp_path / "turnwire.db"), drain_grace_seconds=0)
    async with running_server(settings) as running:
        yield running


async def test_after_the_beginning_was_cut_and_cut_again(server: Server) -> None:
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        for _ in range(3):
            await stubs.finish((await stubs.start(session_id)).inference_id)
        started = await stubs.start(session_id, script=script({"text": {"text": WORDS}}, {"hang": {}}))
        await _until_said(stubs, started)
        log = await _log(stubs, session_id)
        for through in (1, 2, 4, 7, 11, 15, 20, started.first_sequence - 1):
            assert await retire(server.store, Retired("local", session_id, through), CODEC.decode, CODEC.encode)
            for name in {"", *(event.inference_id for event in log)}:
                _check(*await _follow(stubs, _request(session_id, name)), log)
            beginning = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
            first = await anext(aiter(stubs.inference.SubscribeEvents(beginning)))
            assert (first.after_sequence, first.opened.earliest_sequence) == (through, through + 1)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stubs.inference.SubscribeEvents(
                    pb.SubscribeEventsRequest(session_id=session_id, after_sequence=through - 1)
                ).read()
            assert refusal(refused.value)[1] == "EVENTS_COMPACTED"
        ended = _request(session_id, log[0].inference_id, pb.SUBSCRIBE_UNTIL_INFERENCE_END)
        snapshot, watch = await _follow(stubs, ended)
        assert watch.end == pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
        assert snapshot[-1].HasField("inference_finished")
        assert not await retire(
            server.store, Retired("local", session_id, started.first_sequence), CODEC.decode, CODEC.encode
        )


async def _until_said(stubs: Stubs, inference: inference_pb2.Inference, deltas: int = 1) -> None:
    """Return once an inference has said something in its present attempt."""
    said: dict[int, int] = {}
    request = pb.SubscribeEventsRequest(
        session_id=inference.session_id, inference_id=inference.inference_id, from_beginning=pb.FromBeginning()
    )
    async for response in stubs.inference.SubscribeEvents(request):
        for event in response.events:
            said[event.attempt] = said.get(event.attempt, 0) + event.HasField("llm_delta")
            if event.attempt == inference.attempt and said[event.attempt] >= deltas:
                return


async def test_after_a_lost_attempt_and_a_restart(tmp_path: Path, servers: ExitStack) -> None:
    path = tmp_path / "turnwire.db"
    server = servers.enter_context(server_on(path))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        start = start_request(session_id, "go", script=SLOW, attempts_max=2)
        started = (await stubs.inference.StartInference(start)).inference
        await _until_said(stubs, started, 20)
        lost, _ = await _follow(stubs, _request(session_id))
    server.kill()
    assert sum(event.HasField("llm_delta") for event in lost) == 1
    server = servers.enter_context(server_on(path))
    async with connect(server.address) as stubs:
        started.attempt = 1
        await _until_said(stubs, started, 20)
        request = _request(session_id, started.inference_id, pb.SUBSCRIBE_UNTIL_INFERENCE_END)
        snapshot, watch = await _follow(stubs, request)
        _check(snapshot, watch, await _log(stubs, session_id))
        names = [event.WhichOneof("payload") for event in snapshot]
        assert names.count("inference_attempt_lost") == 1
        assert names.count("llm_delta") == 1, "what was void is not there"
        assert snapshot[-1].llm_delta.offset == 0
        whole, _ = await _follow(stubs, _request(session_id))
    server.stop()
    async with connect(servers.enter_context(server_on(path)).address) as stubs:
        again, watch = await _follow(stubs, _request(session_id))
        assert again == whole
        _check(again, watch, await _log(stubs, session_id))


async def test_the_client_begins_with_a_snapshot_and_where_events_were_removed(server: Server) -> None:
    async with Client.connect(server.address) as client:
        handle = await client.start_inference(input="hello", profile="scripted")
        await handle.result()
        following = await client.start_inference(
            handle.session_id, "hello", profile="scripted", engine_options={"script": MessageToDict(TALK)}
        )
        stream = client.watch(handle.session_id, start="snapshot", until="caught_up")
        before = [event async for event in stream]
        through = stream.snapshot_through
        assert through == stream.cursor.after_sequence
        await following.result()
        rest = [e async for e in client.watch(handle.session_id, start=through or 0, until="caught_up")]
        log = [event async for event in client.watch(handle.session_id, until="caught_up")]
        assert fold_messages([*before, *rest]) == fold_messages(log)
        cut = Retired("local", handle.session_id, log[-1].sequence)
        assert await retire(server.store, cut, CODEC.decode, CODEC.encode)
        with pytest.raises(EventsCompactedError):
            await anext(handle.events(0))
        for each in (handle, following):
            stream = each.events(if_compacted="snapshot")
            told = [event async for event in stream]
            assert told == [event for event in fold_messages(log) if event.inference_id == each.inference_id]
            assert stream.is_snapshot


async def test_the_client_that_leaves_has_its_inference_cancelled(server: Server) -> None:
    async with Client.connect(server.address) as client:
        hanging = {"script": {"calls": [{"steps": [{"text": {"text": "hm"}}, {"hang": {}}]}]}}
        handle = await client.start_inference(input="hello", profile="scripted", engine_options=hanging)
        async with handle.events(cancel_after_disconnect=0) as events:
            async for event in events:
                if event.HasField("llm_delta"):
                    break
        result = await handle.result(raise_on_failure=False)
        assert result.state == inference_pb2.INFERENCE_STATE_CANCELLED
