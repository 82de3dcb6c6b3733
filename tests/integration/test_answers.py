"""Tools of the client and approvals in every dialect: the wait, the answers, and restarts in between."""

import json
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from support import aimock as mock
from support.aimock import running_aimock
from support.live import CANCELLED, FAILED, SUCCEEDED, WAITING, Session
from support.provided import Desk, Provided, provided
from support.rpc import refusal
from support.workshop import Workshop
from turnwire.v1 import inference_pb2, tool_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="session")

CITY = '{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}'
CLIENT = tool_pb2.TOOL_PLACEMENT_CLIENT
WEATHER = tool_pb2.Tool(name=mock.TOOL_NAME, description="Tells the weather.", input_schema=CITY)
TIME = tool_pb2.Tool(name=mock.SECOND_TOOL_NAME)
APPROVED_TIME = tool_pb2.Tool(name=mock.SECOND_TOOL_NAME, approval_required=True)


def _result(call: str, value: object) -> tool_pb2.ToolOutcome:
    return tool_pb2.ToolOutcome(tool_call=call, result=json.dumps(value, ensure_ascii=False))


def _error(call: str, message: str, code: str = "") -> tool_pb2.ToolOutcome:
    return tool_pb2.ToolOutcome(tool_call=call, error=tool_pb2.ToolError(message=message, code=code))


def _approved(call: str, args: Mapping[str, object] | None = None) -> tool_pb2.ToolOutcome:
    approval = tool_pb2.ToolApproval(args=json.dumps(args) if args is not None else "")
    return tool_pb2.ToolOutcome(tool_call=call, approved=approval)


def _denied(call: str, reason: str) -> tool_pb2.ToolOutcome:
    return tool_pb2.ToolOutcome(tool_call=call, denied=tool_pb2.ToolDenial(reason=reason))


async def _required(session: Session, inference: inference_pb2.Inference, count: int = 1) -> tuple[set[str], set[str]]:
    """Return what the newest tools.required asks for: calls to be answered, and calls to be approved."""
    newest = (await session.told(inference, "tools_required", count))[-1]
    return {call.id for call in newest.calls}, {call.id for call in newest.approvals}


async def _refused(session: Session, inference: inference_pb2.Inference, *outcomes: tool_pb2.ToolOutcome) -> list[str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.submit(inference, *outcomes)
    code, reason, metadata = refusal(caught.value)
    assert code == "FAILED_PRECONDITION"
    return [reason, metadata.get("tool_calls", metadata.get("state", ""))]


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_client_answers_with_a_result_and_with_an_error(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    started = await desk.session.start(mock.TOOLS, tools=[WEATHER, TIME])
    waiting = await desk.session.reach(started, WAITING)
    assert waiting.usage.input_tokens == 11
    assert await _required(desk.session, started) == ({mock.TOOL_ID, mock.SECOND_TOOL_ID}, set())
    open_turn = await desk.session.turn()
    assert open_turn.state == turn_pb2.TURN_STATE_OPEN
    assert [block.tool_call.name for block in open_turn.blocks if block.HasField("tool_call")] == [
        mock.TOOL_NAME,
        mock.SECOND_TOOL_NAME,
    ]

    partial = pb.SubmitToolResultsRequest(
        inference_id=started.inference_id, outcomes=[_error(mock.SECOND_TOOL_ID, "the clock stands", "broken")]
    )
    answered = await desk.session.stubs.inference.SubmitToolResults(partial)
    assert answered.inference.state == WAITING
    assert list(answered.pending_tool_calls) == [mock.TOOL_ID]
    assert await _refused(desk.session, started, _result(mock.SECOND_TOOL_ID, 1)) == [
        "TOOL_CALL_NOT_PENDING",
        mock.SECOND_TOOL_ID,
    ]
    both = (_result(mock.TOOL_ID, 1), _result("call_nobody", 1))
    assert await _refused(desk.session, started, *both) == ["TOOL_CALL_NOT_PENDING", "call_nobody"]
    assert await _refused(desk.session, started, _approved(mock.TOOL_ID)) == ["TOOL_CALL_NOT_PENDING", mock.TOOL_ID]
    assert len(desk.asked) == 1, "no answer, no engine call"

    key, last = started.inference_id, _result(mock.TOOL_ID, {"sky": "grün 🦊"})
    first = await desk.session.submit(started, last, key=key)
    ended = await desk.session.finish(started)
    assert (ended.inference.state, ended.inference.attempt) == (SUCCEEDED, 0), ended.inference.error
    again = await desk.session.submit(started, last, key=key)
    assert (first.inference_id, again.state) == (started.inference_id, SUCCEEDED), "a repeat tells how it is now"
    assert ended.outcomes == {mock.TOOL_ID: '{"sky": "grün 🦊"}', mock.SECOND_TOOL_ID: "broken"}
    assert ended.text == mock.TOOLS_TEXT + mock.TOOLS_RESULT_TEXT
    assert [start.placement for start in ended.told("tool_start")] == [CLIENT, CLIENT]
    assert ended.inference.usage.input_tokens == 22
    _, second = desk.asked
    assert second.calls == [(mock.TOOL_NAME, mock.TOOL_ARGS), (mock.SECOND_TOOL_NAME, mock.SECOND_TOOL_ARGS)]
    weather, time = second.results
    assert json.loads(weather) == {"sky": "grün 🦊"}
    assert "broken: the clock stands" in time
    if dialect == "anthropic":
        marks = [each["is_error"] for each in second.contents("messages", "tool_result")]
        assert marks == [False, True]
    late = await _refused(desk.session, started, _result(mock.TOOL_ID, 1))
    assert late == ["INFERENCE_NOT_WAITING", "SUCCEEDED"]


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_person_approves_with_other_arguments(provider_server: Provided, dialect: str) -> None:
    """The tool is executed with what was approved; the turn and the provider keep what the model had said."""
    desk = await provider_server.desk(dialect, "approved")
    started = await desk.session.start(mock.TOOL)
    await desk.session.reach(started, WAITING)
    assert await _required(desk.session, started) == (set(), {mock.TOOL_ID})
    assert await _refused(desk.session, started, _result(mock.TOOL_ID, 1)) == ["TOOL_CALL_NOT_PENDING", mock.TOOL_ID]
    await desk.session.submit(started, _approved(mock.TOOL_ID, {"city": "Rome", "days": 2}))
    ended = await desk.session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    expected = {"city": "Rome", "degrees": 4, "days": 2}
    assert json.loads(ended.outcomes[mock.TOOL_ID]) == expected
    [call] = [block.tool_call for block in ended.produced if block.HasField("tool_call")]
    assert json.loads(call.args) == mock.TOOL_ARGS
    _, second = desk.asked
    assert second.calls == [(mock.TOOL_NAME, mock.TOOL_ARGS)]
    assert json.loads(second.results[0]) == expected


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_person_denies_and_the_model_is_told_why(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect, "approved")
    started = await desk.session.start(mock.TOOLS)
    await desk.session.reach(started, WAITING)
    assert await _required(desk.session, started) == (set(), {mock.TOOL_ID})
    before = [result.use.tool_call for result in await desk.session.told(started, "tool_result")]
    assert before == [mock.SECOND_TOOL_ID], "what needs no approval is executed before the wait"
    await desk.session.submit(started, _denied(mock.TOOL_ID, "not in this weather"))
    ended = await desk.session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.outcomes == {mock.TOOL_ID: "denied", mock.SECOND_TOOL_ID: '"noon, CET"'}
    weather, time = desk.asked[1].results
    assert "denied: not in this weather" in weather
    assert "noon, CET" in time


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_clients_own_tool_is_approved_first_and_answered_then(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    started = await desk.session.start(mock.TOOLS, tools=[WEATHER, APPROVED_TIME])
    await desk.session.reach(started, WAITING)
    assert await _required(desk.session, started) == ({mock.TOOL_ID}, {mock.SECOND_TOOL_ID})
    both = (_result(mock.TOOL_ID, "sunny"), _approved(mock.SECOND_TOOL_ID))
    assert (await desk.session.submit(started, *both)).state == WAITING
    assert await _required(desk.session, started, 2) == ({mock.SECOND_TOOL_ID}, set())
    await desk.session.submit(started, _result(mock.SECOND_TOOL_ID, "noon"))
    ended = await desk.session.finish(started)
    assert (ended.inference.state, ended.text) == (SUCCEEDED, mock.TOOLS_TEXT + mock.TOOLS_RESULT_TEXT)
    assert ended.outcomes == {mock.TOOL_ID: '"sunny"', mock.SECOND_TOOL_ID: '"noon"'}


async def test_a_cancel_and_a_deadline_end_the_wait(provider_server: Provided) -> None:
    desk = await provider_server.desk("anthropic")
    started = await desk.session.start(mock.TOOL, tools=[WEATHER])
    await desk.session.reach(started, WAITING)
    assert (await desk.session.cancel(started)).state == CANCELLED, "nobody runs it"
    assert (await desk.session.finish(started)).inference.state == CANCELLED
    assert await _refused(desk.session, started, _result(mock.TOOL_ID, 1)) == ["INFERENCE_NOT_WAITING", "CANCELLED"]
    desk = await provider_server.desk("anthropic")
    late = await desk.session.start(mock.TOOL, tools=[WEATHER], timeout=Duration(seconds=2))
    ended = await desk.session.finish(late)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, 101)
    answered = await desk.session.say(f"{mock.PLAIN}, and never mind")
    assert answered.text == mock.PLAIN_TEXT
    assert (len(desk.asked[-1].calls), len(desk.asked[-1].results)) == (1, 1)
    assert "unknown_outcome" in desk.asked[-1].results[0], "what nobody answered is answered for the provider"


async def _wait_in_every_dialect(server: Provided) -> list[tuple[Desk, inference_pb2.Inference]]:
    waiting: list[tuple[Desk, inference_pb2.Inference]] = []
    for dialect in mock.DIALECTS:
        desk = await server.desk(dialect)
        started = await desk.session.start(mock.TOOLS, tools=[WEATHER, TIME])
        await desk.session.reach(started, WAITING)
        waiting.append((desk, started))
    return waiting


async def _check_approval(desk: Desk, inference: inference_pb2.Inference) -> None:
    """An approval that was asked for before a restart is taken after it, and the tool is executed then."""
    assert await _required(desk.session, inference) == (set(), {mock.TOOL_ID})
    await desk.session.submit(inference, _approved(mock.TOOL_ID, {"city": "Rome"}))
    ended = await desk.session.finish(inference)
    assert (ended.inference.state, ended.text) == (SUCCEEDED, mock.TOOL_RESULT_TEXT)
    assert json.loads(ended.outcomes[mock.TOOL_ID])["city"] == "Rome"


@pytest.mark.timeout(180)
async def test_a_wait_outlives_the_server(tmp_path: Path, shared_shop: Workshop) -> None:
    """Killed and stopped while all dialects wait: each goes on, with the history that it had."""
    async with AsyncExitStack() as stack:
        aimock = stack.enter_context(running_aimock())
        server = await stack.enter_async_context(provided(aimock, tmp_path, shared_shop))
        person = await server.desk("openai-chat", "approved")
        asked = await person.session.start(mock.TOOL)
        await person.session.reach(asked, WAITING)
        waiting = await _wait_in_every_dialect(server)
        await server.server.restart(signal.SIGKILL)
        for desk, inference in waiting:
            await desk.session.reach(inference, WAITING)
            assert await _required(desk.session, inference) == ({mock.TOOL_ID, mock.SECOND_TOOL_ID}, set())
            await desk.session.submit(inference, _result(mock.SECOND_TOOL_ID, "noon"))
        await server.server.restart(signal.SIGTERM)
        await _check_approval(person, asked)
        for desk, inference in waiting:
            await desk.session.submit(inference, _result(mock.TOOL_ID, {"sky": "blue"}))
            ended = await desk.session.finish(inference)
            assert ended.inference.state == SUCCEEDED, (desk.dialect, ended.inference.error)
            assert ended.inference.attempt == 0, "a restart while it waits is no loss"
            assert ended.told("inference_attempt_lost") == []
            assert ended.outcomes == {mock.TOOL_ID: '{"sky": "blue"}', mock.SECOND_TOOL_ID: '"noon"'}
            assert ended.text == mock.TOOLS_TEXT + mock.TOOLS_RESULT_TEXT
            second = desk.asked[-1]
            assert second.calls == [(mock.TOOL_NAME, mock.TOOL_ARGS), (mock.SECOND_TOOL_NAME, mock.SECOND_TOOL_ARGS)]
            weather, time = second.results
            assert json.loads(weather) == {"sky": "blue"}
            assert "noon" in time
            assert second.tools.keys() == {mock.TOOL_NAME, mock.SECOND_TOOL_NAME}, "they are still offered"
