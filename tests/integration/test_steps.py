"""Step control on real servers: pauses, how they end, and the snapshots of a turn."""

import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from support.agent_world import call, say, script
from support.live import CANCELLED, FAILED, PAUSED, RUNNING, SUCCEEDED, LiveServer, Session
from support.rpc import refusal
from support.workshop import Workshop
from turnwire.v1 import debug_service_pb2 as pb
from turnwire.v1 import inference_pb2
from turnwire_conformance.promises import check_log

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTINUE, STEP, ABORT = pb.PAUSE_ACTION_CONTINUE, pb.PAUSE_ACTION_STEP, pb.PAUSE_ACTION_ABORT
STEP_ABORTED = 115
TWO_CALLS = script([call("get_time", zone="CET")], [say("it is noon")])
LONG = Duration(seconds=3600)
SHORT = Duration(nanos=200_000_000)


async def _step(session: Session, *, enabled: bool = True, deadline: Duration = LONG, action: int = CONTINUE) -> None:
    request = pb.SetStepModeRequest(session_id=session.session_id, enabled=enabled, deadline=deadline)
    request.deadline_action = action  # type: ignore[assignment]
    await session.stubs.debug.SetStepMode(request)


async def _pauses(session: Session) -> Sequence[pb.Pause]:
    request = pb.ListPausesRequest(session_id=session.session_id)
    return (await session.stubs.debug.ListPauses(request)).pauses


async def _paused(session: Session, inference: inference_pb2.Inference) -> pb.Pause:
    """Return the pause of an inference, once it is paused."""
    await session.reach(inference, PAUSED)
    [pause] = await _pauses(session)
    assert (pause.session_id, pause.inference_id) == (session.session_id, inference.inference_id)
    return pause


async def _release(session: Session, pause: str, action: int) -> inference_pb2.Inference:
    request = pb.ReleasePauseRequest(pause=pause, action=action)  # type: ignore[arg-type]
    return (await session.stubs.debug.ReleasePause(request)).inference


async def _is_gone(session: Session, pause: str) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _release(session, pause, CONTINUE)
    return refusal(caught.value) == ("NOT_FOUND", "PAUSE_NOT_FOUND", {"pause": pause})


async def test_what_runs_already_is_paused_and_goes_step_by_step(agents: LiveServer, shared_shop: Workshop) -> None:
    session = await agents.session("agent")
    calls = script([call("charge", amount=1)], [call("get_time", zone="UTC")], [say("paid at noon")])
    started = await session.start(script=calls)
    job = await shared_shop.take("charge")
    await _step(session)
    job.answer("paid")
    phases: list[str] = []
    names: list[str] = []
    for _ in range(4):
        pause = await _paused(session, started)
        phases.append(pause.phase)
        names.append(pause.id)
        assert pause.summary
        assert pause.deadline_time.ToNanoseconds() - pause.create_time.ToNanoseconds() == 3600 * 10**9
        assert pause.deadline_action == CONTINUE
        assert (await _release(session, pause.id, STEP)).state != PAUSED
        assert await _is_gone(session, pause.id)
    ended = await session.finish(started)
    assert phases == ["after_tools", "after_inference", "after_tools", "after_inference"]
    assert (ended.inference.state, ended.text) == (SUCCEEDED, "paid at noon")
    assert ended.outcomes == {"call_1": '"paid"', "call_2": '"noon, UTC"'}
    assert [(told.pause, told.phase) for told in ended.told("debugger_pause")] == list(zip(names, phases, strict=True))
    assert [(told.pause, told.action) for told in ended.told("debugger_resumed")] == [(name, "step") for name in names]
    assert ended.inference.attempt == 0


async def test_going_on_is_without_further_pauses(agents: LiveServer) -> None:
    session = await agents.session("agent")
    await _step(session)
    started = await session.start(script=TWO_CALLS)
    pause = await _paused(session, started)
    assert pause.phase == "after_inference"
    assert "get_time" in pause.summary
    await _release(session, pause.id, CONTINUE)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.text) == (SUCCEEDED, "it is noon")
    assert len(ended.told("debugger_pause")) == 1
    # The mode is still on: the next inference is paused again, until the mode is turned off.
    following = await session.start(script=TWO_CALLS)
    await _paused(session, following)
    await _step(session, enabled=False)
    ended = await session.finish(following)
    assert ended.inference.state == SUCCEEDED
    assert [told.action for told in ended.told("debugger_resumed")] == ["continue"]
    assert (await session.say(script=TWO_CALLS)).told("debugger_pause") == []


async def test_a_pause_can_end_the_inference(agents: LiveServer) -> None:
    session = await agents.session("agent")
    await _step(session)
    started = await session.start(script=TWO_CALLS)
    pause = await _paused(session, started)
    await _release(session, pause.id, ABORT)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, STEP_ABORTED)
    assert ended.inference.error.metadata == {"pause": pause.id}
    assert ended.outcomes == {}, "the tool was not executed"
    assert await _is_gone(session, pause.id)
    await _step(session, enabled=False)
    assert (await session.say(script=TWO_CALLS)).text == "it is noon"


@pytest.mark.parametrize(("action", "state"), [(CONTINUE, SUCCEEDED), (ABORT, FAILED)])
async def test_a_pause_that_nobody_releases_ends_at_its_deadline(agents: LiveServer, action: int, state: int) -> None:
    session = await agents.session("agent")
    await _step(session, deadline=SHORT, action=action)
    started = await session.start(script=TWO_CALLS)
    ended = await session.finish(started)
    assert ended.inference.state == state, ended.inference
    [paused, *_] = [event for event in ended.events if event.HasField("debugger_pause")]
    [resumed, *_] = [event for event in ended.events if event.HasField("debugger_resumed")]
    assert {told.action for told in ended.told("debugger_resumed")} == {"deadline"}
    late = resumed.create_time.ToNanoseconds() - paused.debugger_pause.deadline_time.ToNanoseconds()
    assert 0 <= late < 3e9
    assert await _pauses(session) == []
    assert len(ended.told("debugger_pause")) == 1, "CONTINUE is without further pauses"


async def test_a_cancel_ends_a_pause(agents: LiveServer) -> None:
    session = await agents.session("agent")
    await _step(session)
    started = await session.start(script=TWO_CALLS)
    pause = await _paused(session, started)
    assert (await session.cancel(started)).state == CANCELLED, "nobody runs it: it ends at once"
    ended = await session.finish(started)
    assert ended.inference.state == CANCELLED
    assert await _pauses(session) == []
    assert await _is_gone(session, pause.id)


async def test_a_timeout_ends_a_pause(agents: LiveServer) -> None:
    session = await agents.session("agent")
    await _step(session)
    started = await session.start(script=TWO_CALLS, timeout=Duration(seconds=1))
    await session.reach(started, PAUSED)
    ended = await session.finish(started)
    assert (ended.inference.state, ended.inference.error.reason) == (FAILED, 101)
    assert await _pauses(session) == []


async def test_a_pause_outlives_the_server(tmp_path: Path) -> None:
    profiles = {"agent": {"engine": "scripted", "tools": [{"python": "support.gadgets"}]}}
    async with LiveServer(tmp_path, profiles) as server:
        session, brief = await server.session("agent"), await server.session("agent")
        await _step(session)
        await _step(brief, deadline=SHORT, action=ABORT)
        started = await session.start(script=TWO_CALLS)
        pause = await _paused(session, started)
        for how in (signal.SIGKILL, signal.SIGTERM):
            await server.restart(how)
            assert await _paused(session, started) == pause
        await _release(session, pause.id, STEP)
        second = await _paused(session, started)
        assert second.phase == "after_tools"
        late = await brief.start(script=TWO_CALLS)
        await brief.told(late, "debugger_pause")
        await server.restart(signal.SIGKILL)  # takes longer than that pause may last
        assert (await brief.finish(late)).inference.error.reason == STEP_ABORTED
        await _release(session, second.id, CONTINUE)
        ended = await session.finish(started)
        assert (ended.inference.state, ended.text, ended.inference.attempt) == (SUCCEEDED, "it is noon", 0)
        assert [told.action for told in ended.told("debugger_resumed")] == ["step", "continue"]
        check_log(await session.log())


async def test_pauses_are_listed_over_all_sessions(tmp_path: Path) -> None:
    async with LiveServer(tmp_path, {"scripted": {"engine": "scripted"}}) as server:
        sessions = [await server.session("scripted") for _ in range(5)]
        pauses: list[str] = []
        for session in sessions:
            await _step(session)
            pauses.append((await _paused(session, await session.start())).id)
        debug = server.stubs.debug
        listed: list[str] = []
        sizes: list[int] = []
        request = pb.ListPausesRequest(page_size=2)
        while not sizes or request.page_token:
            response = await debug.ListPauses(request)
            listed += [pause.id for pause in response.pauses]
            sizes.append(len(response.pauses))
            request.page_token = response.next_page_token
        assert listed == pauses, "the oldest first"
        assert sizes == [2, 2, 1]
        first = await debug.ListPauses(pb.ListPausesRequest(page_size=2))
        own = pb.ListPausesRequest(session_id=sessions[0].session_id, page_token=first.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await debug.ListPauses(own)
        assert refusal(caught.value)[1] == "INVALID_PAGE_TOKEN"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await debug.ListPauses(pb.ListPausesRequest(session_id="nobody"))
        assert refusal(caught.value)[1] == "SESSION_NOT_FOUND"


async def test_snapshots_show_the_turn_between_the_phases(agents: LiveServer) -> None:
    session = await agents.session("agent")
    await session.say("before")
    ended = await session.say(script=TWO_CALLS, snapshots=True)
    debug = session.stubs.debug
    request = pb.ListTurnSnapshotsRequest(inference_id=ended.inference.inference_id)
    snapshots = (await debug.ListTurnSnapshots(request)).snapshots
    pre, post, tools, final = (
        pb.SNAPSHOT_PHASE_PRE_INFERENCE,
        pb.SNAPSHOT_PHASE_POST_INFERENCE,
        pb.SNAPSHOT_PHASE_POST_TOOLS,
        pb.SNAPSHOT_PHASE_FINAL,
    )
    assert [(each.phase, each.iteration) for each in snapshots] == [
        (pre, 1),
        (post, 1),
        (tools, 1),
        (pre, 2),
        (post, 2),
        (final, 2),
    ]
    kinds = [[block.WhichOneof("kind") for block in each.turn.blocks] for each in snapshots]
    assert kinds == [
        ["user"],
        ["user", "tool_call"],
        ["user", "tool_call", "tool_use"],
        ["user", "tool_call", "tool_use"],
        ["user", "tool_call", "tool_use", "llm_text"],
        ["user", "tool_call", "tool_use", "llm_text"],
    ], "in the view DELTA: without the turn before"
    assert [list(each.turn.blocks) for each in snapshots][-1] == list(ended.turn.blocks[2:])
    assert [each.turn.block_count for each in snapshots] == [3, 4, 5, 5, 6, 6]

    paged: list[pb.TurnSnapshot] = []
    request.page_size = 4
    sizes: list[int] = []
    while not sizes or request.page_token:
        response = await debug.ListTurnSnapshots(request)
        paged += response.snapshots
        sizes.append(len(response.snapshots))
        request.page_token = response.next_page_token
    assert (paged, sizes) == (list(snapshots), [4, 2])
    only = pb.ListTurnSnapshotsRequest(inference_id=ended.inference.inference_id, phase=pre)
    assert [each.iteration for each in (await debug.ListTurnSnapshots(only)).snapshots] == [1, 2]
    unasked = await session.say(script=TWO_CALLS)
    none = pb.ListTurnSnapshotsRequest(inference_id=unasked.inference.inference_id)
    assert list((await debug.ListTurnSnapshots(none)).snapshots) == []


async def test_step_mode_does_not_hold_up_a_call_under_way(agents: LiveServer) -> None:
    session = await agents.session("scripted")
    await _step(session)
    started = await session.start(script=script([{"hang": {}}]))
    await session.told(started, "engine_call_started")
    assert (await session.cancel(started)).state in (RUNNING, CANCELLED)
    assert (await session.finish(started)).inference.state == CANCELLED
