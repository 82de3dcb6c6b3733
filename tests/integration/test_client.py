"""turnwire_client against a real server."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.server import ServerProcess, server_on
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import FinishClass, InferenceState
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.turn_pb2 import BlockStatus
from turnwire_client import Client, InferenceCancelledError, SessionBusyError, errors


def script(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Engine options for the scripted engine."""
    return {"script": {"calls": [{"steps": list(steps)}], **more}}


TALK = script({"thinking": {"text": "hm, hm"}}, {"text": {"text": "It is blue. "}}, {"text": {"text": "Très bleu."}})
HANG = script({"text": {"text": "So fa"}}, {"hang": {}})
ENDLESS = script({"text": {"text": "So far so good. ", "repeat": 100_000}}, pace="0.01s")


def assert_whole(events: list[Event], first: int = 1) -> None:
    """Ordered, Unique, Gapless, Terminal."""
    assert [event.sequence for event in events] == list(range(first, first + len(events)))
    assert [event.sequence for event in events if event.HasField("inference_finished")] == [events[-1].sequence]
    assert events[-1].inference_finished.event_count == len(events)


@pytest.fixture
async def client(server_address: str) -> AsyncIterator[Client]:
    async with Client.connect(server_address) as connected:
        yield connected


async def test_one_inference_from_start_to_result(client: Client) -> None:
    handle = await client.start_inference(
        NewSession(display_name="sky"), "Why?", profile="scripted", engine_options=TALK
    )
    events = [event async for event in handle.events()]
    assert_whole(events)
    assert "".join(event.llm_thinking_delta.delta for event in events) == "hm, hm"
    assert "".join(event.llm_delta.delta for event in events) == "It is blue. Très bleu."
    result = await handle.result()
    assert result.text == "It is blue. Très bleu."
    assert result.inference.finish_class == FinishClass.FINISH_CLASS_COMPLETED
    assert result.usage == events[-1].inference_finished.usage
    assert [event async for event in handle.events()] == events
    assert [event async for event in client.watch(handle.session_id, until="caught_up")] == events


async def test_a_conversation_grows_and_branches(client: Client) -> None:
    session = await client.create_session(labels={"test": "branches"})
    for text in ("one", "two"):
        handle = await client.start_inference(session.session_id, text, profile="scripted")
        assert (await handle.result()).text == text
        assert (await anext(handle.events())).sequence == handle.inference.first_sequence
    again = await client.start_inference(session.session_id, "other two", parent=0, profile="scripted")
    turn = (await again.result(view="full")).turn
    assert [block.user.text or block.llm_text.text for block in turn.blocks] == ["one", "one", "other two", "other two"]
    assert [each.parent async for each in client.list_turns(session.session_id)] == [0, 0, 0]
    assert await client.get_turn(session.session_id, 2) == turn
    assert await client.get_turn(inference_id=again.inference_id) == turn
    found = [each.inference_id async for each in client.list_inferences(session.session_id)]
    assert len(found) == 3
    assert found[0] == again.inference_id
    assert session.session_id in [each.session_id async for each in client.list_sessions(labels={"test": "branches"})]


async def test_busy_cancel_and_go_on(client: Client) -> None:
    handle = await client.start_inference(None, "hello", profile="scripted", engine_options=ENDLESS)
    events = handle.events()
    while not (await anext(events)).HasField("llm_delta"):
        pass
    with pytest.raises(SessionBusyError) as busy:
        await client.start_inference(handle.session_id, "me too", profile="scripted")
    assert busy.value.metadata["inference_id"] == handle.inference_id
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0)
    await handle.cancel("enough")
    with pytest.raises(InferenceCancelledError, match="enough") as cancelled:
        await handle.result()
    assert cancelled.value.result.text.startswith("So far so good. ")
    assert cancelled.value.result.turn.blocks[-1].status == BlockStatus.BLOCK_STATUS_INCOMPLETE
    rest = [event async for event in events]
    assert rest[-1].inference_finished.cancelled.reason == "enough"
    assert (await handle.cancel("again")).state == InferenceState.INFERENCE_STATE_CANCELLED
    following = await client.start_inference(handle.session_id, "now", profile="scripted")
    assert (await following.result()).text == "now"


async def test_a_failure_is_typed_and_keeps_what_was_said(client: Client) -> None:
    options = script({"text": {"text": "So fa"}}, {"fail": {"reason": "ENGINE_RATE_LIMITED", "message": "slow down"}})
    handle = await client.start_inference(None, "hello", profile="scripted", engine_options=options)
    with pytest.raises(errors.EngineRateLimitedError) as failed:
        await handle.result()
    assert failed.value.result.text == "So fa"
    assert failed.value.metadata.keys() == set(errors.EngineRateLimitedError.metadata_keys)


async def test_a_timeout_of_the_inference_is_its_failure(client: Client) -> None:
    handle = await client.start_inference(None, "hello", profile="scripted", engine_options=HANG, timeout=0.3)
    with pytest.raises(errors.DeadlineExceededError):
        await handle.result()


async def test_the_same_key_starts_once(client: Client) -> None:
    session = await client.create_session()
    starts = [
        client.start_inference(session.session_id, "hello", profile="scripted", idempotency_key="the-same-key-1")
        for _ in range(10)
    ]
    handles = await asyncio.gather(*starts)
    assert len({handle.inference_id for handle in handles}) == 1
    assert sorted(bool(handle.created) for handle in handles) == [False] * 9 + [True]
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await client.start_inference(session.session_id, "other", profile="scripted", idempotency_key="the-same-key-1")


async def test_refusals_are_typed(client: Client) -> None:
    with pytest.raises(errors.SessionNotFoundError):
        await client.get_session("nowhere")
    with pytest.raises(errors.InferenceNotFoundError):
        await client.inference("nothing", "nowhere").result()
    with pytest.raises(errors.ProfileNotFoundError):
        await client.start_inference(None, "hello", profile="nobody")
    with pytest.raises(errors.InvalidFieldError) as invalid:
        await client.get_session("not an id")
    assert [violation.field for violation in invalid.value.violations] == ["session_id"]
    session = await client.create_session()
    with pytest.raises(errors.EmptyTurnError):
        await client.start_inference(session.session_id, profile="scripted")
    with pytest.raises(errors.SessionAlreadyExistsError):
        await client.create_session(session.session_id)
    with pytest.raises(errors.NoActiveInferenceError):
        await client.cancel_active(session.session_id)
    with pytest.raises(errors.CursorAheadError):
        await anext(client.watch(session.session_id, start=7))
    with pytest.raises(errors.LogReplacedError):
        await anext(client.watch(session.session_id, start=0, log="another"))
    changed = await client.update_session(session.session_id, display_name="Mine", revision=1)
    assert (changed.display_name, changed.revision) == ("Mine", 2)
    with pytest.raises(errors.RevisionMismatchError):
        await client.update_session(session.session_id, display_name="Yours", revision=1)


async def test_a_watcher_learns_that_its_session_was_deleted(client: Client) -> None:
    handle = await client.start_inference(None, "hello", profile="scripted", engine_options=HANG)
    events = client.watch(handle.session_id)
    await anext(events)
    await client.delete_session(handle.session_id, force=True)
    with pytest.raises(errors.SessionDeletedError):
        _ = [event async for event in events]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_events_are_whole_across_a_restart(tmp_path: Path, ending: signal.Signals) -> None:
    path = tmp_path / "turnwire.db"
    # A hundred pieces before it pauses, so that there is a middle to be cut in.
    options = script({"text": {"text": "0123456789", "repeat": 10}}, {"pause": "2s"}, delta_length=1)
    with server_on(path, "--drain-grace-seconds", "0") as first:
        async with Client.connect(first.address) as client:
            handle = await client.start_inference(None, "hello", profile="scripted", engine_options=options)
            waiting = asyncio.ensure_future(handle.result(raise_on_failure=False))
            events: list[Event] = []
            async with handle.events() as stream:
                async for event in stream:
                    events.append(event)
                    if len(events) == 50:
                        first.signal(ending)
                        await asyncio.to_thread(first.wait)
                        second = ServerProcess(("--store", str(path), "--listen", first.address))
                        await asyncio.to_thread(second.start)
            try:
                assert_whole(events)
                result = await waiting
                if ending == signal.SIGKILL:  # the attempt is lost, and no other one is allowed
                    said = "".join(event.llm_delta.delta for event in events)
                    assert result.state == InferenceState.INFERENCE_STATE_FAILED
                    assert result.text == said != ""
                    with pytest.raises(errors.AttemptLostError):
                        await handle.result()
                else:  # the inference was handed back, and continued
                    assert result.state == InferenceState.INFERENCE_STATE_SUCCEEDED
                    assert result.text == "0123456789" * 10
                    [lost] = [event for event in events if event.HasField("inference_attempt_lost")]
                    assert lost.inference_attempt_lost.handed_back
                following = await client.start_inference(handle.session_id, "go on", profile="scripted")
                assert (await following.result()).text == "go on"
            finally:
                await asyncio.to_thread(second.stop)
