"""Conflict policies: lines, interruptions and rollbacks, storms of them, and servers that die in between."""

import asyncio
import signal
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from support.agent_world import call, say, script
from support.live import CANCELLED, QUEUED, RUNNING, SUCCEEDED, LiveServer, Session
from support.rpc import detail, refusal
from support.workshop import workshop
from turnwire.v1 import inference_pb2, session_service_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import check_log

pytestmark = pytest.mark.asyncio(loop_scope="session")

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = (
    inference_pb2.CONFLICT_POLICY_REJECT,
    inference_pb2.CONFLICT_POLICY_ENQUEUE,
    inference_pb2.CONFLICT_POLICY_INTERRUPT,
    inference_pb2.CONFLICT_POLICY_ROLLBACK,
)
HANG = script([{"hang": {}}])
STUBBORN = script([{"hang": {"ignoreCancel": True}}])
LINE = 50
TOOLS = {"agent": {"engine": "scripted", "tools": [{"python": "support.gadgets"}]}}


async def _running(session: Session, what: str = HANG, text: str = "hang", **fields: object) -> inference_pb2.Inference:
    started = await session.start(text, script=what, **fields)
    await session.told(started, "engine_call_started")
    return started


async def _positions(session: Session) -> dict[str, int]:
    request = pb.ListInferencesRequest(session_id=session.session_id, states=[QUEUED])
    listed = (await session.stubs.inference.ListInferences(request)).inferences
    return {each.inference_id: each.queue_position for each in listed}


async def _is_active(session: Session) -> bool:
    request = session_service_pb2.GetSessionRequest(session_id=session.session_id)
    return (await session.stubs.session.GetSession(request)).session.HasField("active")


async def _refused(session: Session, policy: int) -> tuple[tuple[str, str, dict[str, str]], grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.start("no room", conflict_policy=policy)
    return refusal(caught.value), caught.value


@pytest.mark.timeout(180)
async def test_a_long_line_runs_in_order_and_survives_a_kill_in_its_middle(tmp_path: Path) -> None:
    middle = script([call("look_up", key="middle")], [say("found it")])
    async with (
        workshop() as shop,
        LiveServer(tmp_path, TOOLS, "--queue-depth-max", str(LINE), environment=shop.environment) as server,
    ):
        session = await server.session("agent")
        blocker = await _running(session)
        line: list[inference_pb2.Inference] = []
        for number in range(LINE):
            what = middle if number == LINE // 2 else script([say(f"number {number}")])
            line.append(await session.start(str(number), script=what, conflict_policy=ENQUEUE, attempts_max=2))
        assert [each.queue_position for each in line] == [*range(1, LINE + 1)]
        assert list((await _positions(session)).values()) == [*range(LINE, 0, -1)]

        for policy in (ENQUEUE, INTERRUPT, ROLLBACK):
            (code, reason, metadata), error = await _refused(session, policy)
            assert (code, reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
            assert metadata["queue_depth"] == metadata["queue_depth_max"] == str(LINE)
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
        request = pb.GetInferenceRequest(inference_id=blocker.inference_id)
        untouched = (await session.stubs.inference.GetInference(request)).inference
        assert untouched.state == RUNNING
        assert not untouched.HasField("cancel_requested_time"), "what is refused changes nothing"

        await session.cancel(blocker)
        await shop.take("look_up")
        assert list((await _positions(session)).values()) == [*range(LINE // 2 - 1, 0, -1)]
        await server.restart(signal.SIGKILL)
        (await shop.take("look_up")).answer("yes")
        for number, each in enumerate(line):
            ended = await session.finish(each)
            assert ended.inference.state == SUCCEEDED, ended.inference.error
            assert (ended.inference.turn_index, ended.turn.parent) == (number + 1, number)
            assert ended.text == ("found it" if number == LINE // 2 else f"number {number}")
            assert ended.inference.attempt == (number == LINE // 2)
        check_log(await session.log())


async def test_a_storm_of_interruptions(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    blocker = await _running(session)
    storm = [
        session.start(str(number), script=script([say(f"{number}")]), conflict_policy=INTERRUPT) for number in range(20)
    ]
    accepted = await asyncio.gather(*storm)
    assert {(each.state, each.queue_position) for each in accepted} == {(QUEUED, 1)}, "each was first in line"
    assert (await session.finish(blocker)).inference.state == CANCELLED
    ends = [await session.finish(each) for each in accepted]
    for number, ended in enumerate(ends):
        assert ended.inference.state in (SUCCEEDED, CANCELLED)
        assert ended.inference.state == CANCELLED or ended.text == str(number)
    by_inference = check_log(await session.log())
    assert by_inference.keys() == {blocker.inference_id, *(each.inference_id for each in accepted)}
    newest = max(accepted, key=lambda each: each.first_sequence)
    assert ends[accepted.index(newest)].inference.state == SUCCEEDED, "nobody displaced the last one"
    assert (await session.say("after the storm", script=script([say("calm")]))).text == "calm"


async def test_a_storm_of_interruptions_against_what_does_not_want_to_stop(agents: LiveServer) -> None:
    """Each displaces a hanging inference that hangs: nobody but the last one is left."""
    session = await agents.session("scripted")
    blocker = await _running(session, STUBBORN)
    storm = [session.start(str(number), script=HANG, conflict_policy=INTERRUPT) for number in range(20)]
    accepted = await asyncio.gather(*storm)
    # What was put behind another one of the storm comes to run, and has to be displaced as well.
    while await _positions(session) or await _is_active(session):
        request = pb.CancelRequest(session_id=session.session_id)
        await session.finish((await session.stubs.inference.Cancel(request)).inference)
    for each in (blocker, *accepted):
        assert (await session.finish(each)).inference.state == CANCELLED
    check_log(await session.log())
    assert (await session.say(script=script([say("calm")]))).text == "calm"


async def test_an_interruption_is_one_transaction(tmp_path: Path) -> None:
    """The reply means that both are durable: the cancel of the one, and the other one, first in line."""
    async with LiveServer(tmp_path, TOOLS) as server:
        session = await server.session("agent")
        blocker = await _running(session, STUBBORN)
        waiting = await session.start("third", script=script([say("3")]), conflict_policy=ENQUEUE)
        urgent = await session.start("second", script=script([say("2")]), conflict_policy=INTERRUPT)
        await server.restart(signal.SIGKILL)
        assert (await session.finish(blocker)).inference.state == CANCELLED
        ended = [await session.finish(each) for each in (urgent, waiting)]
        assert [(each.inference.state, each.inference.turn_index, each.text) for each in ended] == [
            (SUCCEEDED, 1, "2"),
            (SUCCEEDED, 2, "3"),
        ]
        check_log(await session.log())


async def test_a_rollback_of_a_rollback(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    first = await session.say("one", script=script([say("1")]))
    assert first.inference.turn_index == 0
    await _running(session, text="two")
    third = await session.start("three", script=HANG, conflict_policy=ROLLBACK)
    await session.told(third, "engine_call_started")
    fourth = await session.finish(await session.start("four", script=script([say("4")]), conflict_policy=ROLLBACK))
    assert (fourth.inference.turn_index, fourth.turn.parent) == (3, 0)
    said = [block.user.text or block.llm_text.text for block in fourth.turn.blocks]
    assert said == ["one", "1", "four", "4"]
    turns = [await session.turn(index) for index in range(4)]
    assert [turn.parent if turn.HasField("parent") else None for turn in turns] == [None, 0, 0, 0]
    assert (await session.finish(third)).inference.state == CANCELLED

    await _running(session, text="five")  # its parent is turn 3
    chosen = await session.start("six", script=script([say("6")]), conflict_policy=ROLLBACK, parent=1)
    assert (await session.finish(chosen)).turn.parent == 1, "one that names a parent gets it"


async def test_a_rollback_of_the_first_turn_begins_anew(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    await _running(session, text="one")
    anew = await session.finish(await session.start("two", script=script([say("2")]), conflict_policy=ROLLBACK))
    assert not anew.turn.HasField("parent")
    assert [block.user.text or block.llm_text.text for block in anew.turn.blocks] == ["two", "2"]


async def test_an_interruption_of_what_is_cancelled_already(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    blocker = await _running(session, STUBBORN)
    await session.cancel(blocker)
    urgent = await session.start("next", script=script([say("2")]), conflict_policy=INTERRUPT)
    assert (await session.finish(urgent)).text == "2"
    assert (await session.finish(blocker)).inference.state == CANCELLED


async def test_cancel_while_it_starts(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    for _ in range(30):
        started = await session.start("quick", script=HANG)
        await session.cancel(started)
        assert (await session.finish(started)).inference.state == CANCELLED
    assert len(check_log(await session.log())) == 30


@pytest.mark.parametrize("policy", [REJECT, ENQUEUE, INTERRUPT, ROLLBACK])
async def test_a_start_right_after_the_end(agents: LiveServer, policy: int) -> None:
    session = await agents.session("scripted")
    stream = aiter(
        session.stubs.inference.SubscribeEvents(
            pb.SubscribeEventsRequest(session_id=session.session_id, from_beginning=pb.FromBeginning())
        )
    )
    for number in range(25):
        started = await session.start(str(number), conflict_policy=policy, **({"parent": 0} if number else {}))
        ended = False
        while not ended:
            ended = any(
                event.HasField("inference_finished") and event.inference_id == started.inference_id
                for event in (await anext(stream)).events
            )
    assert {len(own) > 3 for own in check_log(await session.log()).values()} == {True}
    request = pb.ListInferencesRequest(session_id=session.session_id)
    listed = (await session.stubs.inference.ListInferences(request)).inferences
    assert [each.state for each in listed] == [SUCCEEDED] * 25, "none was displaced: each had ended"


async def test_two_starts_at_once(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    for _ in range(20):
        tries = await asyncio.gather(*(session.start("me", script=HANG) for _ in range(2)), return_exceptions=True)
        [accepted] = [each for each in tries if isinstance(each, inference_pb2.Inference)]
        [refused] = [each for each in tries if isinstance(each, grpc.aio.AioRpcError)]
        _, reason, metadata = refusal(refused)
        assert (reason, metadata["inference_id"]) == ("SESSION_BUSY", accepted.inference_id)
        await session.cancel(accepted)
        await session.finish(accepted)
    check_log(await session.log())
