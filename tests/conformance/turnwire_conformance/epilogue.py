"""What has to hold after each case, of every session that it has made: the seven promises, and one story."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import grpc
from google.protobuf.message import Message

from turnwire.v1 import inference_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire_conformance.patterns import show
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log
from turnwire_conformance.rpcs import Refused, refused, rpcs
from turnwire_conformance.stage import Stage
from turnwire_conformance.streams import open_stream

TERMINAL = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
OUTCOMES = dict(zip(TERMINAL, ("succeeded", "failed", "cancelled"), strict=True))


async def check_sessions(stage: Stage) -> None:
    """Check every session that the case has made. Errors: AssertionError."""
    for session_id in sorted(stage.sessions):
        await _settle(stage, session_id)
        log, earliest = await _read_log(stage, session_id)
        whole = _stories(log, earliest)
        watches = [each.watch for each in stage.streams.values() if each.watch.session_id == session_id]
        if log or earliest <= 1:
            check_agreement(log, [_retained(watch, earliest) for watch in watches])
        await _check_listed(stage, session_id, log)
        await _check_inferences(stage, session_id, whole)


async def clear_sessions(stage: Stage) -> None:
    """Delete every session that the case has made, whatever it is at."""
    for session_id in sorted(stage.sessions):
        request = session_service_pb2.DeleteSessionRequest(session_id=session_id, force=True)
        with suppress(AssertionError):  # what the steps found counts
            await _ask(stage, "SessionService.DeleteSession", request)


async def _ask(stage: Stage, name: str, request: Message) -> Message | Refused:
    try:
        return await rpcs()[name].call(stage.channel, request.SerializeToString(), stage.limits.call)
    except grpc.aio.AioRpcError as error:
        return refused(error)


async def _settle(stage: Stage, session_id: str) -> None:
    """Terminal: cancel what is left, until nothing is."""
    latest = time.monotonic() + stage.limits.settle
    while True:
        answer = await _ask(stage, "InferenceService.Cancel", pb.CancelRequest(session_id=session_id))
        if isinstance(answer, Refused):
            assert answer.reason == "NO_ACTIVE_INFERENCE", f"a cancel of session {session_id} is refused: {answer}"
            return
        assert isinstance(answer, pb.CancelResponse)
        now = answer.inference
        assert time.monotonic() < latest, f"Terminal: {stage.limits.settle:g} s after its cancel, it is {show(now)}"
        if now.state not in TERMINAL:
            await asyncio.sleep(0.02)


async def _read_log(stage: Stage, session_id: str) -> tuple[list[Event], int]:
    """Return the log, and the first sequence that it has."""
    name = f"the log of {session_id}"
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    open_stream(stage, name, request, is_slow=False)
    stream = stage.streams[name]
    try:
        async with asyncio.timeout(stage.limits.call):
            while await stream.next_response():
                pass
    except grpc.aio.AioRpcError as error:
        msg = f"Resumable: {name} cannot be read: {refused(error)}"
        raise AssertionError(msg) from None
    except TimeoutError:
        await stream.leave()
        msg = f"Resumable: {name} is not read in {stage.limits.call:g} s"
        raise AssertionError(msg) from None
    del stage.streams[name]  # what is left in there is left when the case ends
    end = stream.watch.end
    assert end == pb.SUBSCRIPTION_END_REASON_CAUGHT_UP, f"Resumable: {name} ends with {show(stream.last)}"
    return stream.watch.events, stream.opened.earliest_sequence


def _stories(log: Sequence[Event], earliest: int) -> dict[str, list[Event]]:
    """Gapless, Terminal: return the events of each inference of which the log has all."""
    if earliest <= 1:
        return dict(check_log(log))
    for before, event in pairwise(log):
        assert event.sequence == before.sequence + 1, f"Gapless: {event.sequence} follows {before.sequence}"
    stories: dict[str, list[Event]] = {}
    for event in log:
        stories.setdefault(event.inference_id, []).append(event)
    whole = {name: story for name, story in stories.items() if story[0].HasField("inference_queued")}
    for story in whole.values():
        check_inference(story)
    return whole


def _retained(watch: Watch, earliest: int) -> Watch:
    """Return what a watcher saw of a log whose events before `earliest` retention has removed since."""
    events = [event for event in watch.events if event.sequence >= earliest]
    return replace(watch, events=events, start=max(watch.start, earliest - 1))


async def _check_listed(stage: Stage, session_id: str, log: Sequence[Event]) -> None:
    """Resumable: ListEvents has the same bytes."""
    listed: list[Event] = []
    token = ""
    earliest = 1
    while True:
        request = pb.ListEventsRequest(session_id=session_id, page_token=token)
        answer = await _ask(stage, "InferenceService.ListEvents", request)
        assert isinstance(answer, pb.ListEventsResponse), f"the events of {session_id} are not listed: {answer}"
        listed += answer.events
        token = answer.next_page_token
        earliest = answer.earliest_sequence
        if not token:
            break
    # Retention may have removed more of it since the stream was read.
    told, due = ([_bytes(event) for event in each if event.sequence >= earliest] for each in (listed, log))
    assert told == due, f"Resumable: {len(told)} events are listed, and they are not the {len(due)} of the stream"


def _bytes(event: Event) -> bytes:
    return event.SerializeToString(deterministic=True)


async def _check_inferences(stage: Stage, session_id: str, stories: dict[str, list[Event]]) -> None:
    """Terminal: log and inferences tell of the same ends."""
    for inference_id, story in stories.items():
        request = pb.GetInferenceRequest(inference_id=inference_id)
        answer = await _ask(stage, "InferenceService.GetInference", request)
        assert isinstance(answer, pb.GetInferenceResponse), f"inference {inference_id} is refused: {answer}"
        _check_end(answer.inference, session_id, story)


def _check_end(now: Inference, session_id: str, story: Sequence[Event]) -> None:
    finished = story[-1].inference_finished
    told = f"{show(now)}, and its log ends with {show(finished)}"
    assert now.session_id == session_id, f"an inference of session {session_id} is {told}"
    assert now.state in TERMINAL, f"Terminal: the inference is {told}"
    assert OUTCOMES[now.state] == finished.WhichOneof("outcome"), f"Terminal: the inference is {told}"
    assert now.error == finished.failed.error, f"Terminal: the inference is {told}"
    assert now.usage == finished.usage, f"Terminal: the inference is {told}"
    ends = (now.first_sequence, now.last_sequence)
    assert ends == (story[0].sequence, story[-1].sequence), f"Terminal: the inference is {told}"
