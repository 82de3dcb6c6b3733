"""A server that keeps events for a moment only: what it cuts is told by snapshots, and nothing else is lost."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from support.rpc import Stubs, connect, refusal, script
from support.server import server_on
from support.snapshots import take_snapshot
from turnwire.v1 import event_pb2, inference_pb2, session_service_pb2, tool_pb2
from turnwire.v1 import inference_service_pb2 as pb

TEXTS = ("first things first", "second thoughts", "third time lucky")


async def _say(stubs: Stubs, session_id: str, text: str) -> inference_pb2.Inference:
    started = await stubs.start(session_id, script=script({"text": {"text": text}}, delta_length=3))
    return (await stubs.finish(started.inference_id)).inference


async def _until_cut(stubs: Stubs, session_id: str, through: int) -> pb.ListEventsResponse:
    """Ask until the log begins after a sequence."""
    async with asyncio.timeout(20):
        while True:
            page = await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id))
            if page.earliest_sequence > through:
                return page


async def _snapshot(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    request = pb.SubscribeEventsRequest(
        session_id=session_id, snapshot=pb.FromSnapshot(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    return (await take_snapshot(aiter(stubs.inference.SubscribeEvents(request)))).events


def _texts(events: list[event_pb2.Event]) -> list[str]:
    return [event.llm_final.text for event in events if event.HasField("llm_final")]


async def test_old_events_are_cut_and_their_fold_is_kept(tmp_path: Path, servers: ExitStack) -> None:
    arguments = ("--events-retention-seconds", "0.1")
    path = tmp_path / "turnwire.db"
    server = servers.enter_context(server_on(path, *arguments))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        ended = [await _say(stubs, session_id, text) for text in TEXTS]
        page = await _until_cut(stubs, session_id, ended[-1].last_sequence)
        assert (page.earliest_sequence, page.head_sequence) == (page.head_sequence + 1, ended[-1].last_sequence)
        assert not page.events
        snapshot = await _snapshot(stubs, session_id)
        assert _texts(snapshot) == list(TEXTS)
        assert not [event for event in snapshot if event.HasField("llm_delta")]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, after_sequence=1))
        code, reason, metadata = refusal(refused.value)
        assert (code, reason) == ("OUT_OF_RANGE", "EVENTS_COMPACTED")
        assert metadata["earliest_sequence"] == str(page.earliest_sequence)
        turns = await stubs.session.ListTurns(session_service_pb2.ListTurnsRequest(session_id=session_id))
        assert len(turns.turns) == len(TEXTS)
    server.stop()
    again = servers.enter_context(server_on(path))  # this one keeps everything, and has what the other one left
    async with connect(again.address) as stubs:
        ended.append(await _say(stubs, session_id, "and after"))
        assert ended[-1].first_sequence == page.earliest_sequence
        assert _texts(await _snapshot(stubs, session_id)) == [*TEXTS, "and after"]


async def test_what_has_not_ended_keeps_its_events(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--events-retention-seconds", "0.1"))
    async with connect(server.address) as stubs:
        session_id, other = await stubs.create_session(), await stubs.create_session()
        first = await _say(stubs, session_id, TEXTS[0])
        overrides = inference_pb2.Overrides(tools=[tool_pb2.Tool(name="mine")])
        waits = await stubs.start(session_id, script=script({"toolCall": {"name": "mine"}}), overrides=overrides)
        await stubs.inference.Wait(pb.WaitRequest(inference_id=waits.inference_id))
        await _until_cut(stubs, session_id, first.last_sequence)
        done = await _say(stubs, other, TEXTS[1])
        await _until_cut(stubs, other, done.last_sequence)  # later than the other one could have been cut
        page = await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id))
        assert page.earliest_sequence == page.events[0].sequence == waits.first_sequence
        answer = tool_pb2.ToolOutcome(tool_call="call_1", result="1")
        submit = pb.SubmitToolResultsRequest(inference_id=waits.inference_id, outcomes=[answer])
        await stubs.inference.SubmitToolResults(submit)
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=waits.inference_id))
        await stubs.finish(waits.inference_id)
        await _until_cut(stubs, session_id, waits.first_sequence)
