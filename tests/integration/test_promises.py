"""The seven promises, on every stream of a busy server."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest

from support.rpc import SMALL_WINDOW, Stubs, connect, refusal, script, start_request
from turnwire.v1 import event_pb2, inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_agreement, check_log

if TYPE_CHECKING:
    from turnwire.testing.v1.script_pb2 import Script
    from turnwire.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

SESSIONS = 50
INFERENCES = 4
RACERS = 20
RECONNECT_EVENTS = 10

SCRIPT = script(
    {"thinking": {"text": "Let me see. "}},
    {"text": {"text": "The quick brown fox jumps over the läzy dog. ", "repeat": 4}},
    pace="0.002s",
)
# One session says far more, in small commits, than the 1 MiB of events that the server holds in memory for watchers.
LONG = script({"text": {"text": "Löng. ", "repeat": 150_000}}, delta_length=16_000, pace="0.001s")
LONG_BYTES_MIN = 3 * 1024 * 1024
# What a slow watcher reads from the store in the end comes in responses of this size and more.
CATCHING_UP_BYTES_MIN = 192 * 1024


def _subscribe(session_id: str, after: int, log: str = "") -> pb.SubscribeEventsRequest:
    return pb.SubscribeEventsRequest(session_id=session_id, after_sequence=after, log=log)


def _finished(watch: Watch) -> int:
    return sum(event.HasField("inference_finished") for event in watch.events)


async def _watch(inference: InferenceServiceAsyncStub, watch: Watch, *, after: asyncio.Event | None = None) -> None:
    """Follow a session until all of its inferences have ended; read nothing but the opening before `after` is set."""
    watch.begin(0)
    call = inference.SubscribeEvents(_subscribe(watch.session_id, 0))
    async for response in call:
        watch.take(response)
        if _finished(watch) == INFERENCES:
            break
        if after is not None:
            await after.wait()
    call.cancel()


async def _watch_with_cuts(stubs: Stubs, watch: Watch) -> None:
    """Do the same, over a new stream after every few events."""
    while _finished(watch) < INFERENCES:
        watch.begin(watch.position)
        call = stubs.inference.SubscribeEvents(_subscribe(watch.session_id, watch.position, watch.log))
        enough = len(watch.events) + RECONNECT_EVENTS
        async for response in call:
            watch.take(response)
            if len(watch.events) >= enough or _finished(watch) == INFERENCES:
                break
        call.cancel()


async def _run(stubs: Stubs, session_id: str, said: Script, ended: asyncio.Event) -> None:
    for number in range(INFERENCES):
        inference = await stubs.start(session_id, f"question {number}", script=said)
        last = (await stubs.finish(inference.inference_id)).inference
        assert last.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
    ended.set()


async def _read_all(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    events: list[event_pb2.Event] = []
    token = ""
    while True:
        page = await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, page_token=token))
        events.extend(page.events)
        token = page.next_page_token
        if not token:
            return events


async def _session(stubs: Stubs, slow_stub: InferenceServiceAsyncStub, said: Script) -> Watch:
    """Run a session under the eyes of its three watchers; return the slow one."""
    session_id = await stubs.create_session()
    plain, slow, cut = Watch(session_id), Watch(session_id), Watch(session_id)
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch(stubs.inference, plain))
        group.create_task(_watch(slow_stub, slow, after=ended))
        group.create_task(_watch_with_cuts(stubs, cut))
        group.create_task(_run(stubs, session_id, said, ended))
    log = await _read_all(stubs, session_id)
    assert len(check_log(log)) == INFERENCES
    check_agreement(log, (plain, slow, cut))
    assert len(plain.events) == len(slow.events) == len(cut.events) == len(log)
    return slow


async def _long_session(stubs: Stubs, slow_stub: InferenceServiceAsyncStub) -> None:
    """One whose slow watcher falls behind what the server holds in memory for it."""
    slow = await _session(stubs, slow_stub, LONG)
    assert sum(slow.response_bytes) > LONG_BYTES_MIN
    caught_up = sum(size for size in slow.response_bytes if size >= CATCHING_UP_BYTES_MIN)
    assert caught_up > sum(slow.response_bytes) / 2, f"the slow watcher was not slow: {slow.response_bytes}"


async def _race(stubs: Stubs, session_id: str) -> tuple[str, str]:
    request = start_request(session_id, "me first", script=script({"hang": {}}))
    try:
        response = await stubs.inference.StartInference(request)
    except grpc.aio.AioRpcError as error:
        code, reason, metadata = refusal(error)
        return f"{code} {reason}", metadata["inference_id"]
    assert response.created
    return "created", response.inference.inference_id


async def _racing_session(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    results = await asyncio.gather(*(_race(stubs, session_id) for _ in range(RACERS)))
    assert Counter(result for result, _ in results) == {"created": 1, "ABORTED SESSION_BUSY": RACERS - 1}
    assert len({inference_id for _, inference_id in results}) == 1, "every refusal names the one that was created"
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
    ended = await stubs.finish(results[0][1])
    assert ended.inference.state == inference_pb2.INFERENCE_STATE_CANCELLED
    check_log(await _read_all(stubs, session_id))


@pytest.mark.timeout(300)
async def test_every_promise_holds_on_every_stream_of_a_busy_server(server_address: str) -> None:
    async with (
        connect(server_address) as stubs,
        connect(server_address, *SMALL_WINDOW) as slow,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(SESSIONS - 1):
            group.create_task(_session(stubs, slow.inference, SCRIPT))
        group.create_task(_long_session(stubs, slow.inference))
        group.create_task(_racing_session(stubs))
