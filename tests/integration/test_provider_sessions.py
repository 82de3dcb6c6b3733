"""Whole sessions on a provider's API: whatever it does, one clean terminal event, and a usable session after it.

Later turns are built on the first one: what failed is part of the history otherwise, and aimock answers the first
word that it knows in neighbouring user messages.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from support import aimock as mock
from support.aimock import Aimock, aimock_fixture, relay_to  # noqa: F401 - a fixture
from support.rpc import Stubs, connect
from support.server import server_on
from turnwire.v1 import event_pb2, inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import check_inference

SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
KEY_ENV = "TURNWIRE_TEST_KEY"
ENGINE_UNAVAILABLE, ENGINE_RATE_LIMITED, ENGINE_STREAM_BROKEN = 103, 104, 107


@pytest.fixture
async def served(aimock: Aimock, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Stubs, Aimock]]:
    """A real server whose profiles lead to aimock: `plain-...` straight, `cut-...` through a relay that breaks off."""
    async with relay_to(aimock, events_max=3, how="reset") as (_, port):
        profiles = {
            f"{kind}-{dialect}": {
                "engine": "pydantic_ai",
                "model": aimock.model(dialect),
                "engine_options": {**aimock.options(dialect, *ports), "api_key_env": KEY_ENV},
            }
            for dialect in mock.DIALECTS
            for kind, ports in (("plain", ()), ("cut", (port,)))
        }
        path = tmp_path / "profiles.yaml"
        path.write_text(yaml.safe_dump({"default": "plain-anthropic", "profiles": profiles}))
        arguments = ("--profiles", str(path), "--drain-grace-seconds", "0")
        server = server_on(tmp_path / "turnwire.db", *arguments, environment={KEY_ENV: mock.KEY})
        await asyncio.to_thread(server.start)
        try:
            async with connect(server.address) as stubs:
                yield stubs, aimock
        finally:
            await asyncio.to_thread(server.stop)


async def _start(stubs: Stubs, session_id: str, profile: str, text: str, **fields: object) -> inference_pb2.Inference:
    request = pb.StartInferenceRequest(session_id=session_id, profile=profile, **fields)  # type: ignore[arg-type]
    request.input.add(user=turn_pb2.UserBlock(text=text))
    return (await stubs.inference.StartInference(request)).inference


async def _say(stubs: Stubs, session_id: str, profile: str, text: str, **fields: object) -> pb.WaitResponse:
    started = await _start(stubs, session_id, profile, text, **fields)
    return await stubs.finish(started.inference_id)


async def _check(stubs: Stubs, ended: inference_pb2.Inference) -> list[event_pb2.Event]:
    request = pb.SubscribeEventsRequest(
        session_id=ended.session_id,
        inference_id=ended.inference_id,
        from_beginning=pb.FromBeginning(),
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    )
    events = [e async for response in stubs.inference.SubscribeEvents(request) for e in response.events]
    check_inference(events)
    return events


@pytest.mark.timeout(180)
@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_a_session_goes_through_everything_a_provider_does(served: tuple[Stubs, Aimock], dialect: str) -> None:
    stubs, _ = served
    session_id = await stubs.create_session()
    plain = f"plain-{dialect}"

    answered = await _say(stubs, session_id, plain, mock.PLAIN)
    assert answered.inference.state == SUCCEEDED
    assert answered.turn.blocks[-1].llm_text.text == mock.PLAIN_TEXT
    assert answered.inference.usage.output_tokens > 0
    assert any(event.HasField("llm_delta") for event in await _check(stubs, answered.inference))

    broken = await _say(stubs, session_id, f"cut-{dialect}", mock.SLOW, parent=0)
    assert (broken.inference.state, broken.inference.error.reason) == (FAILED, ENGINE_STREAM_BROKEN)
    await _check(stubs, broken.inference)
    assert broken.turn.state == turn_pb2.TURN_STATE_CLOSED

    for text, reason, status in ((mock.LIMITED, ENGINE_RATE_LIMITED, "429"), (mock.FAILING, ENGINE_UNAVAILABLE, "500")):
        refused = await _say(stubs, session_id, plain, text, parent=0)
        assert (refused.inference.state, refused.inference.error.reason) == (FAILED, reason)
        assert refused.inference.error.metadata["http_status"] == status
        assert mock.KEY not in refused.inference.error.message
        await _check(stubs, refused.inference)

    hanging = await _start(stubs, session_id, plain, mock.HANGING, parent=0)
    waiting = await stubs.inference.Wait(pb.WaitRequest(inference_id=hanging.inference_id), timeout=0.8)
    assert waiting.inference.state == inference_pb2.INFERENCE_STATE_RUNNING
    await stubs.inference.Cancel(pb.CancelRequest(inference_id=hanging.inference_id))
    cancelled = (await stubs.finish(hanging.inference_id)).inference
    assert cancelled.state == CANCELLED
    assert cancelled.end_time.ToNanoseconds() - cancelled.cancel_requested_time.ToNanoseconds() < 2e9
    await _check(stubs, cancelled)

    again = await _say(stubs, session_id, plain, mock.PLAIN, parent=0)
    assert again.inference.state == SUCCEEDED
    assert again.turn.blocks[-1].llm_text.text == mock.PLAIN_TEXT


async def test_a_request_cannot_lead_the_servers_key_elsewhere(served: tuple[Stubs, Aimock]) -> None:
    stubs, _ = served
    session_id = await stubs.create_session()
    options = inference_pb2.Overrides(engine_options='{"base_url": "http://127.0.0.1:9/elsewhere"}')
    refused = (await _say(stubs, session_id, "plain-openai-chat", mock.PLAIN, overrides=options)).inference
    assert refused.state == FAILED
    assert refused.error.reason == 102
