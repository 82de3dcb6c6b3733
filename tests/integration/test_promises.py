"""The seven promises, on every stream of a busy server."""

import asyncio
from collections import Counter

import grpc
import pytest

from support.promises import Watch, check_agreement, check_log
from support.rpc import Stubs, connect, refusal, script, start_request
from turnwire.v1 import event_pb2, inference_pb2
from turnwire.v1 import inference_service_pb2 as pb

SESSIONS = 50
INFERENCES = 4
RACERS = 20
RECONNECT_EVENTS = 10

SCRIPT = script(
    {"thinking": {"text": "Let me see. "}},
    {"text": {"text": "The quick brown fox jumps over the läzy dog. ", "repeat": 4}},
    pace="0.002s",
)


def _subscribe(session_id: str, after: int, log: str = "") -> pb.SubscribeEventsRequest:
    return pb.SubscribeEventsRequest(session_id=session_id, after_sequence=after, log=log)


def _finished(watch: Watch) -> int:
    return sum(event.HasField("inference_finished") for event in watch.events)


async def _watch(stubs: Stubs, watch: Watch, *, slow: bool) -> None:
    """Follow a session until all of its inferences have ended."""
    watch.begin(0)
    call = stubs.inference.SubscribeEvents(_subscribe(watch.session_id, 0))
    async for response in call:
        watch.take(response)
        if _finished(watch) == INFERENCES:
            break
        if slow:  # one that is busy elsewhere for a few turns of the loop after each response
            for _ in range(50):
                await asyncio.sleep(0)
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


async def _run(stubs: Stubs, session_id: str) -> None:
    for number in range(INFERENCES):
        inference = await stubs.start(session_id, f"question {number}", script=SCRIPT)
        ended = (await stubs.finish(inference.inference_id)).inference
        assert ended.state == inference_pb2.INFERENCE_STATE_SUCCEEDED


async def _read_all(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    events: list[event_pb2.Event] = []
    token = ""
    while True:
        page = await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, page_token=token))
        events.extend(page.events)
        token = page.next_page_token
        if not token:
            return events


async def _session(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    plain, slow, cut = Watch(session_id), Watch(session_id), Watch(session_id)
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch(stubs, plain, slow=False))
        group.create_task(_watch(stubs, slow, slow=True))
        group.create_task(_watch_with_cuts(stubs, cut))
        group.create_task(_run(stubs, session_id))
    log = await _read_all(stubs, session_id)
    assert len(check_log(log)) == INFERENCES
    check_agreement(log, (plain, slow, cut))
    assert len(plain.events) == len(slow.events) == len(cut.events) == len(log)


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
    async with connect(server_address) as stubs, asyncio.TaskGroup() as group:
        for _ in range(SESSIONS):
            group.create_task(_session(stubs))
        group.create_task(_racing_session(stubs))
