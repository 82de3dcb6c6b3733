"""Tool calls that wait for the client, against the fake."""

import asyncio
from typing import Any

import pytest

from turnwire.v1.event_pb2 import Log
from turnwire.v1.inference_pb2 import InferenceState
from turnwire.v1.inference_service_pb2 import ListEventsRequest, SubmitToolResultsRequest
from turnwire.v1.tool_pb2 import Tool, ToolApproval, ToolCall, ToolDenial, ToolError, ToolOutcome, ToolUse
from turnwire.v1.turn_pb2 import Block, LlmTextBlock, Turn, UserBlock
from turnwire_client import Client, InferenceCancelledError, InferenceHandle, Required, Result, errors
from turnwire_client.testing import FakeServer

WAITING = InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS
LOOK = ToolCall(id="c1", name="look", args='{"q": 1}')
PEEK = ToolCall(id="c2", name="peek")
SEND = ToolCall(id="c3", name="send", args='{"to": "me"}')


async def uses(handle: InferenceHandle) -> dict[str, str]:
    """What came of the tool calls: the result, or the code of the error with its message."""
    turn = (await handle.result()).turn
    assert turn is not None
    found = [block.tool_use for block in turn.blocks if block.HasField("tool_use")]
    return {use.tool_call: use.result or f"{use.error.code}: {use.error.message}" for use in found}


async def test_a_result_says_what_is_required_with_arguments(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, PEEK, approvals=[SEND], text="let me see")
    handle = await client.start_inference(input="hello")
    result = await handle.result()
    assert (result.state, result.text, result.turn) == (WAITING, "", None)
    assert (result.required.calls, result.required.approvals) == ((LOOK, PEEK), (SEND,))
    assert result.required.deadline_time is None
    assert result.required == await handle.required()
    told = next(event for event in fake.events_of(handle.session_id) if event.HasField("tools_required"))
    assert result.required.sequence == told.sequence
    assert not told.tools_required.calls[0].args  # they are read elsewhere


async def test_an_inference_that_does_not_wait_requires_nothing(fake: FakeServer, client: Client) -> None:
    handle = await client.start_inference(input="hello")
    assert not (await handle.result()).required
    assert await handle.required() == Required()
    assert fake.requests_of(ListEventsRequest) == []


async def test_answers_may_come_one_by_one(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, PEEK, approvals=[SEND], results={"c3": '"sent"'})
    fake.reply("well")
    handle = await client.start_inference(input="hello")
    response = await handle.submit_tool_results(results={"c1": {"found": [1, "é"]}})
    assert (response.inference.state, list(response.pending_tool_calls)) == (WAITING, ["c2", "c3"])
    assert handle.inference == response.inference
    assert (await handle.required()).calls == (PEEK,)
    await handle.submit_tool_results(errors={"c2": "nothing there"})
    assert list((await handle.submit_tool_results(approvals="c3")).pending_tool_calls) == []
    assert (await handle.result()).text == "well"
    assert await uses(handle) == {"c1": '{"found": [1, "é"]}', "c2": "failed: nothing there", "c3": '"sent"'}
    with pytest.raises(errors.InferenceNotWaitingError) as ended:
        await handle.submit_tool_results(results={"c1": 1})
    assert ended.value.metadata["state"] == "SUCCEEDED"


async def test_every_form_of_an_answer(fake: FakeServer, client: Client) -> None:
    calls = [ToolCall(id=f"c{number}", name="do") for number in range(8)]
    fake.call_tools(*calls[:3], approvals=calls[3:])
    handle = await client.start_inference(input="hello")
    await handle.submit_tool_results(
        [ToolOutcome(tool_call="c0", result="null")],
        results={"c1": "text"},
        errors={"c2": ToolError(message="no", code="mine")},
        approvals={"c3": None, "c4": {"to": "you"}},
        denials=["c5", "c6"],
    )
    await handle.submit_tool_results(denials={"c7": "never"})
    first, second = fake.requests_of(SubmitToolResultsRequest)
    assert list(first.outcomes) == [
        ToolOutcome(tool_call="c0", result="null"),
        ToolOutcome(tool_call="c1", result='"text"'),
        ToolOutcome(tool_call="c2", error=ToolError(message="no", code="mine")),
        ToolOutcome(tool_call="c3", approved=ToolApproval()),
        ToolOutcome(tool_call="c4", approved=ToolApproval(args='{"to": "you"}')),
        ToolOutcome(tool_call="c5", denied=ToolDenial()),
        ToolOutcome(tool_call="c6", denied=ToolDenial()),
    ]
    assert list(second.outcomes) == [ToolOutcome(tool_call="c7", denied=ToolDenial(reason="never"))]


@pytest.mark.parametrize("value", [float("nan"), object()])
async def test_what_is_not_json_is_not_sent(fake: FakeServer, client: Client, value: object) -> None:
    fake.call_tools(LOOK)
    handle = await client.start_inference(input="hello")
    with pytest.raises((ValueError, TypeError)):
        await handle.submit_tool_results(results={"c1": value})
    assert fake.requests_of(SubmitToolResultsRequest) == []


async def test_a_lost_reply_is_asked_for_again_with_the_same_key(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK)
    handle = await client.start_inference(input="hello")
    fake.lose_reply("SubmitToolResults", times=2)
    await handle.submit_tool_results(results={"c1": 1})
    requests = fake.requests_of(SubmitToolResultsRequest)
    assert (len(requests), len({request.idempotency_key for request in requests})) == (3, 1)
    await handle.submit_tool_results(results={"c1": 1}, idempotency_key=requests[0].idempotency_key)
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await handle.submit_tool_results(results={"c1": 2}, idempotency_key=requests[0].idempotency_key)


async def test_all_answers_are_taken_or_none(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, approvals=[SEND])
    handle = await client.start_inference(input="hello")
    with pytest.raises(errors.ToolCallNotPendingError) as refused:
        await handle.submit_tool_results(results={"c1": 1, "c3": 1, "c9": 1})
    assert refused.value.metadata["tool_calls"] == "c3,c9"
    assert (await handle.required()).calls == (LOOK,)


async def test_what_is_required_is_found_however_much_was_told_since(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK)
    handle = await client.start_inference(input="hello")
    for _ in range(1000):
        fake.add_event(handle.session_id, handle.inference_id, Log(message="still waiting"))
    assert (await handle.required()).calls == (LOOK,)
    starts = [request.after_sequence for request in fake.requests_of(ListEventsRequest)]
    assert starts == sorted(starts, reverse=True)
    assert len(starts) == 2


async def test_functions_answer_until_the_end(fake: FakeServer, client: Client) -> None:
    side_by_side = asyncio.Barrier(2)

    async def look(q: int) -> dict[str, int]:
        await side_by_side.wait()
        return {"found": q}

    async def peek() -> ToolError:
        await side_by_side.wait()
        return ToolError(message="too dark", code="mine")

    fake.call_tools(LOOK, PEEK)
    fake.call_tools(ToolCall(id="c4", name="crash"), ToolCall(id="c5", name="look", args='{"p": 1}'))
    fake.call_tools(ToolCall(id="c6", name="add", args='{"a": 1, "b": 2}'))
    fake.reply("well")
    handle = await client.start_inference(input="hello")
    functions = {"look": look, "peek": peek, "crash": lambda: 1 / 0, "add": lambda a, b: a + b}
    assert (await handle.run_tools(functions)).text == "well"
    found = await uses(handle)
    assert found.pop("c5").startswith("invalid_args: ")
    assert found == {
        "c1": '{"found": 1}',
        "c2": "mine: too dark",
        "c4": "crashed: the tool crashed (ZeroDivisionError)",
        "c6": "3",
    }


async def test_a_crash_is_logged_where_it_happened(
    fake: FakeServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    fake.call_tools(PEEK)
    handle = await client.start_inference(input="hello")
    await handle.run_tools({"peek": lambda: {}["secret"]})
    assert "secret" not in (await uses(handle))["c2"]
    [record] = caplog.records
    assert (record.name, record.exc_info is not None) == ("turnwire_client", True)


async def test_somebody_is_asked_one_thing_after_the_other(fake: FakeServer, client: Client) -> None:
    decisions: dict[str, bool | ToolApproval | ToolDenial] = {
        "c1": ToolApproval(args='{"q": 2}'),
        "c3": True,
        "c4": ToolDenial(reason="not me"),
        "c5": False,
    }
    asked: list[str] = []
    is_being_asked = False

    async def approve(call: ToolCall) -> bool | ToolApproval | ToolDenial:
        nonlocal is_being_asked
        assert not is_being_asked
        is_being_asked = True
        await client.get_session(handle.session_id)
        is_being_asked = False
        asked.append(call.id)
        return decisions[call.id]

    others = [ToolCall(id=name, name="send") for name in ("c4", "c5")]
    fake.call_tools(LOOK, approvals=[SEND, *others], results={"c3": '"sent"'})
    fake.reply("well")
    handle = await client.start_inference(input="hello", tools=[Tool(name="look", approval_required=True)])
    assert (await handle.run_tools({"look": lambda q: q * 10}, approve=approve)).text == "well"
    assert asked == ["c1", "c3", "c4", "c5"]
    assert await uses(handle) == {
        "c1": "20",  # executed with the arguments that were approved
        "c3": '"sent"',
        "c4": "denied: not me",
        "c5": "denied: the call was not approved",
    }


async def test_what_is_not_for_it_is_left_to_others(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, PEEK, approvals=[SEND])
    fake.reply("well")
    handle = await client.start_inference(input="hello")
    left = await handle.run_tools({"look": lambda q: q})
    assert left.state == WAITING
    assert (left.required.calls, left.required.approvals) == ((PEEK,), (SEND,))
    assert len(fake.requests_of(SubmitToolResultsRequest)) == 1
    await handle.submit_tool_results(results={"c2": 0}, approvals=["c3"])
    assert (await handle.run_tools({})).text == "well"


async def test_somebody_else_was_quicker(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, approvals=[SEND, ToolCall(id="c4", name="send")])
    fake.call_tools(PEEK)
    fake.reply("well")
    handle = await client.start_inference(input="hello")
    other = client.inference(handle.inference_id, handle.session_id)

    async def look(q: int) -> int:
        await other.submit_tool_results(results={"c1": 100})
        return q

    async def approve(call: ToolCall) -> bool:
        if call.id == "c3":
            await other.submit_tool_results(approvals=["c3"])
        return call.id == "c4"

    async def peek() -> None:
        await other.submit_tool_results(results={"c2": 100})  # and so the inference does not wait any more

    assert (await handle.run_tools({"look": look, "peek": peek}, approve=approve)).text == "well"
    assert await uses(handle) == {"c1": "100", "c2": "100", "c3": "{}", "c4": "{}"}


async def test_the_loop_goes_on_through_a_restart(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK)
    fake.reply("well")
    handle = await client.start_inference(input="hello")

    async def look(q: int) -> int:
        await fake.restart()
        return q

    assert (await handle.run_tools({"look": look})).text == "well"


async def test_a_cancel_while_a_function_runs_is_raised(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK)
    handle = await client.start_inference(input="hello")

    async def look(q: int) -> int:
        await handle.cancel("enough")
        return q

    with pytest.raises(InferenceCancelledError, match="enough"):
        await handle.run_tools({"look": look})


async def test_what_cannot_be_told_is_raised_after_all_have_ended(fake: FakeServer, client: Client) -> None:
    fake.call_tools(LOOK, approvals=[SEND])
    handle = await client.start_inference(input="hello")
    let_go, ended = asyncio.Event(), []

    async def look(q: int) -> int:
        await let_go.wait()
        ended.append(q)
        return q

    async def approve(_: ToolCall) -> bool:
        let_go.set()
        raise LookupError("nobody to ask")

    with pytest.raises(LookupError):
        await handle.run_tools({"look": look}, approve=approve)
    assert ended == [1]
    assert (await handle.required()).approvals == (SEND,)  # it waits, and can be gone on with


def test_the_text_of_a_result_begins_anew_after_a_repair() -> None:
    def said(text: str) -> Block:
        return Block(llm_text=LlmTextBlock(text=text))

    repair = Block(user=UserBlock(text="not JSON"), metadata={"turnwire.output_repair@v1": "true"})
    again = Block(user=UserBlock(text="and?"))
    answered = Block(tool_use=ToolUse(tool_call="c1", result="1"))

    def text(*blocks: Block) -> str:
        given = Block(user=UserBlock(text="give me JSON"))
        return Result(Any, Turn(blocks=[given, *blocks], block_count=len(blocks) + 1, given_block_count=1)).text

    assert text(said("a"), repair, said("{}")) == "{}"
    assert text(said("a"), answered, said("b"), repair, said("c"), said("d")) == "cd"
    assert text(said("a"), repair) == ""
    assert text(said("a"), again, said("b")) == "ab"
