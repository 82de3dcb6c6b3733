"""Starting, waiting, cancelling, against the fake."""

import asyncio
from typing import Any

import grpc
import pytest

from turnwire.v1.error_reason_pb2 import ErrorReason
from turnwire.v1.inference_pb2 import FinishClass, InferenceState, Usage
from turnwire.v1.inference_service_pb2 import StartInferenceRequest, WaitRequest
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.session_service_pb2 import CreateSessionRequest
from turnwire.v1.turn_pb2 import Block, LlmTextBlock, Turn, UserBlock
from turnwire_client import Client, InferenceCancelledError, InferenceFailedError, Result, SessionBusyError, errors
from turnwire_client.testing import FakeServer


async def test_a_result_has_text_turn_usage_and_state(fake: FakeServer, client: Client) -> None:
    fake.reply("Rayleigh.", thinking="air", usage=Usage(input_tokens=3, output_tokens=5))
    handle = await client.start_inference(NewSession(display_name="sky"), "Why blue?")
    assert handle.created is True
    result = await handle.result()
    assert result.text == "Rayleigh."
    assert result.state == InferenceState.INFERENCE_STATE_SUCCEEDED
    assert result.usage.output_tokens == 5
    assert result.turn is not None
    assert [block.WhichOneof("kind") for block in result.turn.blocks] == ["user", "reasoning", "llm_text"]
    assert (await client.get_session(handle.session_id)).display_name == "sky"


async def test_the_second_turn_shows_what_is_new_or_everything(fake: FakeServer, client: Client) -> None:
    first = await client.start_inference(input="one")
    second = await client.start_inference(first.session_id, "two")
    assert [block.user.text for block in (await second.result()).turn.blocks if block.HasField("user")] == ["two"]
    full = (await second.result(view="full")).turn
    assert [block.user.text or block.llm_text.text for block in full.blocks] == ["one", "one", "two", "two"]
    assert not (await second.result(view="basic")).turn.blocks
    again = await client.start_inference(first.session_id, parent=0)
    assert (await again.result(view="full")).text == "one"


async def test_a_failure_is_raised_with_what_was_produced(fake: FakeServer, client: Client) -> None:
    fake.fail("ENGINE_RATE_LIMITED", text="so fa", message="slow down", engine="e", http_status="429")
    handle = await client.start_inference(input="hello")
    with pytest.raises(errors.EngineRateLimitedError, match="slow down") as failed:
        await handle.result()
    assert failed.value.result.text == "so fa"
    assert failed.value.metadata == {"engine": "e", "http_status": "429"}
    assert failed.value.error.reason == ErrorReason.ERROR_REASON_ENGINE_RATE_LIMITED
    assert isinstance(failed.value, InferenceFailedError)
    assert failed.value.retry is errors.Retry.NEW_INFERENCE
    result = await handle.result(raise_on_failure=False)
    assert result.inference.finish_class == FinishClass.FINISH_CLASS_ERROR


async def test_cancel_ends_it_and_is_idempotent(fake: FakeServer, client: Client) -> None:
    fake.hang("so fa")
    handle = await client.start_inference(input="hello")
    waiting = asyncio.ensure_future(handle.result())
    await handle.cancel("enough")
    await handle.cancel("again")
    with pytest.raises(InferenceCancelledError, match="enough") as cancelled:
        await waiting
    assert cancelled.value.result.text == "so fa"
    assert cancelled.value.reason == "enough"
    with pytest.raises(errors.NoActiveInferenceError):
        await client.cancel_active(handle.session_id)


async def test_a_timeout_leaves_the_inference_alone(fake: FakeServer, client: Client) -> None:
    fake.hang()
    handle = await client.start_inference(input="hello")
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0)
    assert fake.requests_of(WaitRequest)[0].timeout.ToTimedelta().total_seconds() == 0
    assert (await handle.get()).state == InferenceState.INFERENCE_STATE_RUNNING


async def test_result_goes_on_while_the_server_is_away(fake: FakeServer, client: Client, clock) -> None:
    handle = await client.start_inference(input="hello")
    fake.lose_reply("Wait", times=3, code=grpc.StatusCode.UNKNOWN)
    assert (await handle.result()).text == "hello"
    assert clock.slept == [0.1, 0.2, 0.4]


async def test_a_result_of_a_server_that_never_answered_is_given_up_soon(
    fake: FakeServer, client: Client, clock
) -> None:
    started = await client.start_inference(input="hello")
    fake.lose_reply("Wait", times=100, code=grpc.StatusCode.UNKNOWN)
    with pytest.raises(errors.RequestError):
        await client.inference(started.inference_id, started.session_id).result()
    assert 2 < sum(clock.slept) <= 4


async def test_a_handle_from_ids_looks_before_it_waits(fake: FakeServer, client: Client) -> None:
    fake.hang()
    started = await client.start_inference(input="hello")
    waiting = asyncio.ensure_future(client.inference(started.inference_id, started.session_id).result())
    while len(fake.requests_of(WaitRequest)) < 2:
        await client.get_session(started.session_id)
    await started.cancel()
    with pytest.raises(InferenceCancelledError):
        await waiting
    assert [request.timeout.ToTimedelta().total_seconds() for request in fake.requests_of(WaitRequest)] == [0.0, 20.0]


async def test_a_busy_session_names_the_active_inference(fake: FakeServer, client: Client) -> None:
    fake.hang()
    handle = await client.start_inference(input="hello")
    with pytest.raises(SessionBusyError) as busy:
        await client.start_inference(handle.session_id, "me too")
    assert busy.value.metadata["inference_id"] == handle.inference_id
    assert busy.value.definite
    assert busy.value.retry is errors.Retry.LATER


async def test_a_lost_reply_is_asked_for_again_with_the_same_key(fake: FakeServer, client: Client, clock) -> None:
    fake.lose_reply("StartInference", times=3)
    handle = await client.start_inference(input="hello")
    keys = {request.idempotency_key for request in fake.requests_of(StartInferenceRequest)}
    assert len(fake.requests_of(StartInferenceRequest)) == 4
    assert len(keys) == 1
    assert handle.created is False
    assert [each.inference_id async for each in client.list_inferences(handle.session_id)] == [handle.inference_id]
    assert clock.slept == [0.1, 0.2, 0.4]

    fake.lose_reply("CreateSession")
    await client.create_session()
    assert len({request.idempotency_key for request in fake.requests_of(CreateSessionRequest)}) == 1
    assert len([each async for each in client.list_sessions()]) == 2


async def test_keys_differ_between_calls_and_may_be_given(fake: FakeServer, client: Client) -> None:
    await client.start_inference(input="hello")
    await client.start_inference(input="hello")
    first = await client.start_inference(input="hello", idempotency_key="mine")
    second = await client.start_inference(input="hello", idempotency_key="mine")
    keys = [request.idempotency_key for request in fake.requests_of(StartInferenceRequest)]
    assert len(set(keys)) == 3
    assert (first.inference_id, second.created) == (second.inference_id, False)
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await client.start_inference(input="other", idempotency_key="mine")


async def test_retries_are_bounded_and_a_defect_is_not_retried(fake: FakeServer, client: Client, clock) -> None:
    fake.refuse("STORE_UNAVAILABLE", times=1000)
    with pytest.raises(errors.StoreUnavailableError):
        await client.start_inference(input="hello")
    assert sum(clock.slept) <= 15
    assert len(fake.requests) == len(clock.slept) + 1

    fake.refuse("INTERNAL", rpc="CreateSession")
    with pytest.raises(errors.InternalError):
        await client.create_session()
    assert len(fake.requests_of(CreateSessionRequest)) == 1


async def test_a_server_that_is_not_there_is_unavailable(clock) -> None:
    async with Client.connect("127.0.0.1:1", clock=clock) as client:
        with pytest.raises(errors.UnavailableError) as unavailable:
            await client.create_session()
    assert unavailable.value.reason == ""
    assert not unavailable.value.definite


async def test_sessions_live_and_die(fake: FakeServer, client: Client) -> None:
    session = await client.create_session("mine", labels={"team": "a"}, metadata={"n": "1"})
    await client.create_session("other")
    assert [each.session_id async for each in client.list_sessions()] == ["other", "mine"]
    assert [each.session_id async for each in client.list_sessions(labels={"team": "a"})] == ["mine"]
    changed = await client.update_session("mine", display_name="Mine", labels={}, revision=session.revision)
    assert (changed.display_name, dict(changed.labels), dict(changed.metadata)) == ("Mine", {}, {"n": "1"})
    with pytest.raises(errors.RevisionMismatchError):
        await client.update_session("mine", profile="x", revision=session.revision)
    await client.start_inference("mine", "hello")
    assert (await client.get_turn("mine")).block_count == 2
    assert [turn.index async for turn in client.list_turns("mine")] == [0]
    await client.delete_session("mine")
    with pytest.raises(errors.SessionNotFoundError):
        await client.get_session("mine")


async def test_engine_options_and_blocks_are_sent_as_they_are(fake: FakeServer, client: Client) -> None:
    blocks = [Block(user=UserBlock(text="a")), Block(llm_text=LlmTextBlock(text="b"))]
    await client.start_inference(input=blocks, engine_options={"script": {"pace": "0s"}}, timeout=2.5, attempts_max=2)
    request = fake.requests_of(StartInferenceRequest)[0]
    assert list(request.input) == blocks
    assert request.overrides.engine_options == '{"script": {"pace": "0s"}}'
    assert request.timeout.ToTimedelta().total_seconds() == 2.5
    assert request.attempts_max == 2
    assert not request.HasField("parent")


def test_the_text_of_a_result_is_the_last_answer() -> None:
    def text(*kinds: str, given: int, shown: int = 0) -> str:
        blocks = []
        for place, kind in enumerate(kinds):
            block = Block()
            getattr(block, kind).SetInParent()
            if kind == "llm_text":
                block.llm_text.text = str(place)
            blocks.append(block)
        return Result(None, Turn(blocks=blocks[shown:], block_count=len(blocks), given_block_count=given)).text

    story = ("user", "llm_text", "tool_call", "tool_use", "llm_text", "reasoning", "llm_text")
    assert text(*story, given=1) == "46"
    assert text(*story, given=1, shown=1) == "46"  # the view DELTA
    assert text(*story, given=5) == "6"
    assert text("user", "llm_text", given=2) == ""  # the input ends with a beginning of the answer
    assert Result(None, None).text == ""


async def test_a_wait_that_is_not_held_is_repeated_with_pauses(fake: FakeServer, client: Client, clock: Any) -> None:
    fake.hang("so far")
    handle = await client.start_inference(input="hello")
    fake.hold_waits(hold=False)

    async def end_it_in_the_third_pause() -> None:
        if len(clock.slept) == 3:
            await handle.cancel()

    clock.on_sleep = end_it_in_the_third_pause
    result = await handle.result(raise_on_failure=False)
    assert result.text == "so far"
    assert clock.slept == [0.5, 0.5, 0.5]
