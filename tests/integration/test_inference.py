"""StartInference, Wait and Cancel, with the races that can be named."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from support.rpc import Stubs, connect, refusal, script, start_request
from turnwire.v1 import inference_pb2, session_pb2, session_service_pb2, tool_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import check_inference

QUEUED, RUNNING = inference_pb2.INFERENCE_STATE_QUEUED, inference_pb2.INFERENCE_STATE_RUNNING
SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
STARTS = 1000


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as found:
        yield found


async def _events(stubs: Stubs, inference: inference_pb2.Inference) -> AsyncIterator[pb.SubscribeEventsResponse]:
    request = pb.SubscribeEventsRequest(
        session_id=inference.session_id,
        inference_id=inference.inference_id,
        from_beginning=pb.FromBeginning(),
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    )
    async for response in stubs.inference.SubscribeEvents(request):
        yield response


async def _check_events(stubs: Stubs, inference: inference_pb2.Inference) -> list[str]:
    events = [event async for response in _events(stubs, inference) for event in response.events]
    check_inference(events)
    return [event.WhichOneof("payload") or "" for event in events]


@pytest.mark.timeout(300)
async def test_a_start_right_after_the_terminal_event_succeeds(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
    stream = aiter(stubs.inference.SubscribeEvents(request))
    await anext(stream)
    parent_free = start_request(session_id, "again")
    for _ in range(STARTS):
        started = await stubs.inference.StartInference(parent_free)
        assert started.created
        ended = False
        while not ended:
            ended = any(event.HasField("inference_finished") for event in (await anext(stream)).events)
        parent_free.parent = 0  # every turn is built on the first one, so that the last is as short as the second
        assert started.inference.inference_id
    session = await stubs.session.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id))
    assert session.session.turn_count == STARTS


async def test_a_turn_has_what_was_given_and_what_was_produced(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    what = script(
        {"thinking": {"text": "first I think"}},
        {"text": {"text": "then I say: grüß Gott 👋"}},
        delta_length=3,
        usage={"inputTokens": 7, "outputTokens": 9, "cachedTokens": 2, "reasoningTokens": 4},
    )
    started = await stubs.start(session_id, "greet me", script=what)
    ended = await stubs.finish(started.inference_id)
    assert ended.inference.state == SUCCEEDED
    assert ended.inference.finish_class == inference_pb2.FINISH_CLASS_COMPLETED
    assert ended.inference.usage == inference_pb2.Usage(
        input_tokens=7, output_tokens=9, cached_tokens=2, reasoning_tokens=4
    )
    user, thinking, text = ended.turn.blocks
    assert user.user.text == "greet me"
    assert thinking.reasoning.text == "first I think"
    assert text.llm_text.text == "then I say: grüß Gott 👋"
    assert {block.status for block in ended.turn.blocks} == {turn_pb2.BLOCK_STATUS_COMPLETE}
    names = await _check_events(stubs, ended.inference)
    assert names[:4] == ["inference_queued", "inference_started", "turn_opened", "engine_call_started"]
    assert names[-3:] == ["engine_call_finished", "turn_closed", "inference_finished"]


async def test_a_tool_call_is_left_pending_where_no_tool_was_offered(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    what = script({"toolCall": {"name": "look_up", "args": '{"q": "turnwire"}'}})
    started = await stubs.start(session_id, script=what)
    ended = await stubs.finish(started.inference_id)
    assert ended.inference.state == SUCCEEDED
    assert ended.inference.finish_class == inference_pb2.FINISH_CLASS_TOOL_CALLS_PENDING
    assert ended.turn.blocks[-1].tool_call == tool_pb2.ToolCall(id="call_1", name="look_up", args='{"q": "turnwire"}')
    assert "tool_call" in await _check_events(stubs, ended.inference)
    answer = turn_pb2.Block(tool_use=tool_pb2.ToolUse(tool_call="call_1", result='"found"'))
    following = await stubs.start(session_id, "", input=[answer], script=script({"text": {"text": "thanks"}}))
    last = (await stubs.finish(following.inference_id)).turn.blocks
    assert [block.WhichOneof("kind") for block in last] == ["user", "tool_call", "tool_use", "llm_text"]


async def test_regenerate_and_edit_build_on_the_named_parent(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    for text in ("one", "two"):
        await stubs.finish((await stubs.start(session_id, text)).inference_id)
    edited = await stubs.finish((await stubs.start(session_id, "two, edited", parent=0)).inference_id)
    assert [b.user.text or b.llm_text.text for b in edited.turn.blocks] == ["one", "one", "two, edited", "two, edited"]
    assert (edited.turn.index, edited.turn.parent) == (2, 0)
    regenerated = await stubs.finish((await stubs.start(session_id, "", parent=1)).inference_id)
    assert len(regenerated.turn.blocks) == 5
    delta = await stubs.session.GetTurn(
        session_service_pb2.GetTurnRequest(inference_id=edited.inference.inference_id, view=turn_pb2.TURN_VIEW_DELTA)
    )
    assert [block.id for block in delta.turn.blocks] == [block.id for block in edited.turn.blocks[2:]]


async def test_a_repeat_is_answered_with_what_became_of_the_first(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    request = start_request(session_id, "once", idempotency_key=f"key-{session_id}", script=script({"hang": {}}))
    replies = await asyncio.gather(*(stubs.inference.StartInference(request) for _ in range(10)))
    assert sum(reply.created for reply in replies) == 1
    assert len({reply.inference.inference_id for reply in replies}) == 1
    request.timeout.seconds = 99  # not a part of the content
    assert not (await stubs.inference.StartInference(request)).created
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
    await stubs.finish(replies[0].inference.inference_id)
    repeated = await stubs.inference.StartInference(request)
    assert not repeated.created
    assert repeated.inference.state == CANCELLED
    request.input[0].user.text = "something else"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.inference.StartInference(request)
    assert refusal(refused.value) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", {"rpc": "StartInference"})


async def test_a_refusal_is_not_recorded_under_its_key(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    first = await stubs.start(session_id, script=script({"hang": {}}))
    request = start_request(session_id, "next", idempotency_key=f"key-{session_id}")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.inference.StartInference(request)
    assert refusal(refused.value)[1] == "SESSION_BUSY"
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
    await stubs.finish(first.inference_id)
    assert (await stubs.inference.StartInference(request)).created


async def test_a_key_of_a_deleted_session_answers_not_found(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    request = start_request(session_id, idempotency_key=f"key-{session_id}")
    await stubs.finish((await stubs.inference.StartInference(request)).inference.inference_id)
    await stubs.session.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))
    again = session_service_pb2.CreateSessionRequest(session=session_pb2.NewSession(session_id=session_id))
    await stubs.session.CreateSession(again)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.inference.StartInference(request)
    assert refusal(refused.value)[1] == "SESSION_NOT_FOUND"


async def test_a_new_session_comes_with_its_first_inference(stubs: Stubs) -> None:
    request = start_request("")
    request.new_session.display_name = "made by a start"
    request.idempotency_key = "new-session-with-first-inference"
    replies = [await stubs.inference.StartInference(request) for _ in range(2)]
    assert [reply.created for reply in replies] == [True, False]
    assert replies[0].inference.session_id == replies[1].inference.session_id
    found = await stubs.session.GetSession(
        session_service_pb2.GetSessionRequest(session_id=replies[0].inference.session_id)
    )
    assert found.session.display_name == "made by a start"
    await stubs.finish(replies[0].inference.inference_id)


async def test_wait_returns_the_state_that_was_reached(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(session_id, script=script({"hang": {}}))
    for timeout in (Duration(seconds=0), Duration(nanos=50_000_000)):
        reached = await stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id, timeout=timeout))
        assert reached.inference.state in {QUEUED, RUNNING}
    waits = [stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id)) for _ in range(5)]
    await stubs.inference.Cancel(pb.CancelRequest(inference_id=started.inference_id, reason="because"))
    assert {(await wait).inference.state for wait in waits} == {CANCELLED}


async def test_cancel_while_it_streams(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    endless = script({"text": {"text": "and on ", "repeat": 1_000_000}}, pace="0.001s")
    started = await stubs.start(session_id, script=endless)
    async for response in _events(stubs, started):
        if any(event.HasField("llm_delta") for event in response.events):
            break
    replies = [
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=started.inference_id, reason=reason))
        for reason in ("first", "second")
    ]
    ended = await stubs.finish(started.inference_id)
    assert ended.inference.state == CANCELLED
    assert ended.inference.finish_class == inference_pb2.FINISH_CLASS_INTERRUPTED
    assert ended.inference.cancel_reason == "first"
    assert {reply.inference.cancel_reason for reply in replies} == {"first"}
    partial = ended.turn.blocks[-1]
    assert partial.status == turn_pb2.BLOCK_STATUS_INCOMPLETE
    assert partial.llm_text.text.startswith("and on ")
    requested = ended.inference.cancel_requested_time.ToNanoseconds()
    assert ended.inference.end_time.ToNanoseconds() - requested < 2e9
    await _check_events(stubs, ended.inference)
    assert (await stubs.finish((await stubs.start(session_id)).inference_id)).inference.state == SUCCEEDED


async def test_what_was_seen_is_in_the_turn_whenever_the_cancel_comes(stubs: Stubs) -> None:
    """An engine without a pace is held back by its full buffer most of the time; a cancel meets it there."""
    session_id = await stubs.create_session()
    unpaced = script({"text": {"text": "0123456789abcdef", "repeat": 1_000_000}}, delta_length=16)
    for _ in range(5):
        started = await stubs.start(session_id, script=unpaced)
        async for response in _events(stubs, started):
            if any(event.HasField("llm_delta") for event in response.events):
                break
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=started.inference_id))
        await stubs.finish(started.inference_id)
        events = [event async for response in _events(stubs, started) for event in response.events]
        check_inference(events)
        delta = await stubs.session.GetTurn(
            session_service_pb2.GetTurnRequest(inference_id=started.inference_id, view=turn_pb2.TURN_VIEW_DELTA)
        )
        told = "".join(event.llm_delta.delta for event in events)
        assert delta.turn.blocks[-1].llm_text.text == told


async def test_cancel_before_the_engine_exists(stubs: Stubs) -> None:
    """A cancel at the same instant as the start, over and over: whatever it meets, the inference ends, once."""
    session_id = await stubs.create_session()
    states: set[int] = set()
    for _ in range(100):
        started = await stubs.start(session_id, script=script({"hang": {}}))
        await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
        ended = await stubs.finish(started.inference_id)
        states.add(ended.inference.state)
        assert ended.inference.state == CANCELLED
    assert states == {CANCELLED}


async def test_cancel_after_the_end_changes_nothing(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    ended = (await stubs.finish((await stubs.start(session_id)).inference_id)).inference
    reply = await stubs.inference.Cancel(pb.CancelRequest(inference_id=ended.inference_id, reason="too late"))
    assert reply.inference == ended
    assert ended.state == SUCCEEDED


async def test_an_engine_that_does_not_stop_is_abandoned(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(session_id, script=script({"text": {"text": "x"}}, {"hang": {"ignoreCancel": True}}))
    async for response in _events(stubs, started):
        if any(event.HasField("llm_final") for event in response.events):
            break
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
    ended = (await stubs.finish(started.inference_id)).inference
    assert ended.state == CANCELLED
    assert ended.end_time.ToNanoseconds() - ended.cancel_requested_time.ToNanoseconds() < 2e9
    assert (await stubs.finish((await stubs.start(session_id)).inference_id)).inference.state == SUCCEEDED


async def test_a_timeout_ends_it(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(
        session_id,
        script=script({"text": {"text": "so far"}}, {"hang": {}}),
        timeout=Duration(nanos=200_000_000),
    )
    ended = await stubs.finish(started.inference_id)
    assert ended.inference.state == FAILED
    assert ended.inference.error.reason == 101
    assert ended.inference.error.code == 4
    assert ended.inference.error.metadata == {"timeout": "0.2s"}
    assert ended.turn.blocks[-1].llm_text.text == "so far"
    await _check_events(stubs, ended.inference)


FAILURES = [
    ({"fail": {"reason": "ENGINE_RATE_LIMITED", "message": "slow down"}}, 104),
    ({"fail": {}}, 103),
    ({"crash": {"message": "boom"}}, 109),
]


@pytest.mark.parametrize(("step", "reason"), FAILURES, ids=["fails", "fails by default", "crashes"])
async def test_an_engine_that_fails_ends_it_cleanly(stubs: Stubs, step: dict[str, object], reason: int) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(session_id, script=script({"text": {"text": "so far"}}, step))
    ended = await stubs.finish(started.inference_id)
    assert ended.inference.state == FAILED
    assert ended.inference.error.reason == reason
    assert "boom" not in ended.inference.error.message, "a crash says nothing of its inside to clients"
    await _check_events(stubs, ended.inference)
    assert (await stubs.finish((await stubs.start(session_id)).inference_id)).inference.state == SUCCEEDED


async def test_a_script_that_is_none_ends_it(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    options = inference_pb2.Overrides(engine_options='{"script": {"calls": [{"steps": [{"nonsense": {}}]}]}}')
    started = await stubs.start(session_id, overrides=options)
    ended = (await stubs.finish(started.inference_id)).inference
    assert ended.error.reason == 102
    assert "nonsense" in ended.error.message


async def test_a_page_token_for_the_newest_turn_stays_with_its_turn(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    await stubs.finish((await stubs.start(session_id, "one")).inference_id)
    request = session_service_pb2.GetTurnRequest(at=session_service_pb2.TurnAt(session_id=session_id), page_size=1)
    first = await stubs.session.GetTurn(request)
    await stubs.finish((await stubs.start(session_id, "two")).inference_id)
    request.page_token = first.next_page_token
    second = await stubs.session.GetTurn(request)
    assert (first.turn.index, second.turn.index) == (0, 0)
    assert [page.turn.blocks[0].WhichOneof("kind") for page in (first, second)] == ["user", "llm_text"]
    assert not second.next_page_token


async def test_a_page_token_of_a_deleted_log_is_refused(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    await stubs.finish((await stubs.start(session_id)).inference_id)
    page = await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, page_size=2))
    await stubs.session.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id))
    again = session_service_pb2.CreateSessionRequest(session=session_pb2.NewSession(session_id=session_id))
    await stubs.session.CreateSession(again)
    await stubs.finish((await stubs.start(session_id)).inference_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.inference.ListEvents(pb.ListEventsRequest(session_id=session_id, page_token=page.next_page_token))
    assert refusal(refused.value)[:2] == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stubs.inference.ListEvents(
            pb.ListEventsRequest(session_id=session_id, page_token=page.next_page_token, log=page.log)
        )
    assert refusal(refused.value)[:2] == ("OUT_OF_RANGE", "LOG_REPLACED")


async def test_wait_on_what_is_deleted_says_that_it_is_not_there(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(session_id, script=script({"hang": {}}))
    wait = stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id))
    await stubs.session.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session_id, force=True))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await wait
    assert refusal(refused.value)[:2] == ("NOT_FOUND", "INFERENCE_NOT_FOUND")
