"""A server that ends in the middle of a batch of tool calls: what was done is not done twice, and never guessed."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.agent_world import call, say, script
from support.live import FAILED, SUCCEEDED, WAITING, Ended, LiveServer, Session
from support.workshop import Workshop, workshop
from turnwire.v1 import event_pb2, tool_pb2
from turnwire_conformance.promises import check_log

ATTEMPT_LOST = 100
PROFILES: dict[str, dict[str, object]] = {
    "agent": {"engine": "scripted", "tools": [{"python": "support.gadgets"}]},
    "alone": {
        "engine": "scripted",
        "tools": [{"python": "support.gadgets"}],
        "tool_policy": {"parallelism_max": 1},
    },
}
BOTH = script([call("charge", amount=3), call("look_up", key="a")], [say("done")])


@pytest.fixture
async def shop() -> AsyncIterator[Workshop]:
    async with workshop() as opened:
        yield opened


@pytest.fixture
async def server(tmp_path: Path, shop: Workshop) -> AsyncIterator[LiveServer]:
    async with LiveServer(tmp_path, PROFILES, environment=shop.environment) as started:
        yield started


def _loss(ended: Ended) -> tuple[event_pb2.InferenceAttemptLost, list[str]]:
    """Return the one attempt_lost of an inference, and what the events that it made void are called."""
    [lost] = [event for event in ended.events if event.HasField("inference_attempt_lost")]
    after = lost.inference_attempt_lost.superseded_after_sequence
    void = [event for event in ended.events if after < event.sequence < lost.sequence]
    return lost.inference_attempt_lost, [event.WhichOneof("payload") or "" for event in void]


async def _check_session(session: Session) -> None:
    """The log keeps the promises, and the session is usable."""
    check_log(await session.log())
    following = await session.say("and now?", script=script([say("here I am")]))
    assert (following.inference.state, following.text) == (SUCCEEDED, "here I am")


async def test_what_is_settled_is_kept_and_what_may_be_repeated_is_executed_again(
    server: LiveServer, shop: Workshop
) -> None:
    session = await server.session("agent")
    started = await session.start(script=BOTH, attempts_max=2)
    charge, look_up = await shop.take("charge"), await shop.take("look_up")
    charge.answer({"paid": 3})
    await session.told(started, "tool_result")
    await server.restart(signal.SIGKILL)
    await look_up.gone.wait()
    (await shop.take("look_up")).answer("found")
    ended = await session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert (ended.inference.attempt, ended.inference.attempts_max) == (1, 2)
    assert ended.outcomes == {"call_1": '{"paid":3}', "call_2": '"found"'}
    assert ended.text == "done"
    assert sorted(shop.executed) == ["charge", "look_up", "look_up"]
    lost, void = _loss(ended)
    assert (lost.attempt, lost.handed_back) == (0, False)
    assert void == ["tool_result", "tool_done"], "the calls are a step that holds; what was told of outcomes is void"
    await _check_session(session)


async def test_an_unknown_outcome_of_what_must_not_be_repeated_ends_it(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("agent")
    started = await session.start(script=BOTH, attempts_max=5)
    await shop.take("charge")
    (await shop.take("look_up")).answer("found")
    await session.told(started, "tool_result")
    await server.restart(signal.SIGKILL)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ATTEMPT_LOST)
    assert ended.inference.error.metadata["attempt"] == "0"
    assert ended.outcomes == {"call_1": "unknown_outcome", "call_2": '"found"'}
    assert sorted(shop.executed) == ["charge", "look_up"]
    await _check_session(session)
    # The next engine call is told that the outcome is not known, and no tool is called by that.
    assert sorted(shop.executed) == ["charge", "look_up"]


async def test_without_another_attempt_nothing_is_executed_again(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("agent")
    started = await session.start(script=script([call("look_up", key="a")], [say("done")]))
    await shop.take("look_up")
    await server.restart(signal.SIGKILL)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ATTEMPT_LOST)
    assert shop.executed == ["look_up"]
    await _check_session(session)


async def test_what_had_not_begun_is_begun_by_the_next_attempt(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("alone")
    calls = [call("look_up", key="a"), call("charge", amount=3)]
    started = await session.start(script=script(calls, [say("done")]), attempts_max=2)
    await shop.take("look_up")
    await server.restart(signal.SIGKILL)
    (await shop.take("look_up")).answer("found")
    (await shop.take("charge")).answer("paid")
    ended = await session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.outcomes == {"call_1": '"found"', "call_2": '"paid"'}
    assert shop.executed == ["look_up", "look_up", "charge"]
    await _check_session(session)


async def test_attempts_are_counted_over_several_losses(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("agent")
    started = await session.start(script=script([call("look_up", key="a")], [say("done")]), attempts_max=3)
    for _ in range(3):
        await shop.take("look_up")
        await server.restart(signal.SIGKILL)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ATTEMPT_LOST)
    assert [lost.attempt for lost in ended.told("inference_attempt_lost")] == [0, 1]
    assert [event.attempt for event in ended.events if event.HasField("inference_started")] == [0, 1, 2]
    assert shop.executed == ["look_up"] * 3


async def test_a_drain_stops_tools_and_is_no_loss(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("agent")
    started = await session.start(script=BOTH)  # one attempt is enough
    charge, look_up = await shop.take("charge"), await shop.take("look_up")
    await server.restart(signal.SIGTERM)
    assert charge.gone.is_set()
    assert look_up.gone.is_set()
    (await shop.take("look_up")).answer("found")
    ended = await session.finish(started)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    assert ended.inference.attempt == 0
    assert ended.outcomes == {"call_1": "unknown_outcome", "call_2": '"found"'}
    assert shop.executed.count("charge") == 1
    lost, _ = _loss(ended)
    assert lost.handed_back
    await _check_session(session)


async def test_a_batch_of_an_approved_tool_is_recovered_as_well(server: LiveServer, shop: Workshop) -> None:
    session = await server.session("agent")
    calls = [call("look_up", key="a"), call("erase", path="/tmp/a")]
    started = await session.start(script=script(calls, [say("done")]), attempts_max=2)
    (await shop.take("look_up")).answer("found")
    await session.reach(started, WAITING)
    approved = tool_pb2.ToolOutcome(tool_call="call_2", approved=tool_pb2.ToolApproval(args='{"path": "/tmp/b"}'))
    await session.submit(started, approved)
    erase = await shop.take("erase")
    assert erase.args == {"path": "/tmp/b"}
    await server.restart(signal.SIGKILL)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ATTEMPT_LOST)
    assert ended.outcomes == {"call_1": '"found"', "call_2": "unknown_outcome"}
    assert shop.executed == ["look_up", "erase"]
