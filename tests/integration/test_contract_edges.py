"""The edges of the contract, as a client in any language meets them: generated stubs, and a server in its own process.

What is refused says why in the documented form and changes nothing; what is accepted ends; and the session takes the
next inference. At the end the server's log has no crash that the tests did not ask for.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from support.agent_world import call, say, script
from support.live import CANCELLED, FAILED, PAUSED, QUEUED, SUCCEEDED, WAITING, LiveServer, Session
from support.rpc import refusal, violations
from turnwire.v1 import debug_service_pb2 as debug_pb
from turnwire.v1 import engine_service_pb2, inference_pb2, session_pb2, session_service_pb2, tool_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.engine_service_pb2_grpc import EngineServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEBIBYTE = 1024 * 1024
UNKNOWN = "01990000-0000-7000-8000-000000000000"
TOOLS: dict[str, object] = {"engine": "scripted", "tools": [{"python": "support.gadgets"}]}
PROFILES: dict[str, dict[str, object]] = {
    "scripted": {"engine": "scripted", "output_repairs_max": 0},
    "agent": TOOLS,
    "aborting": {**TOOLS, "tool_policy": {"on_error": "abort"}},
    "locked": {**TOOLS, "overrides": "none"},
    "plain": {"engine": "scripted", "capabilities": {"tools": False, "images": False, "structured_output": False}},
}
ASK = tool_pb2.Tool(name="ask")
HANG = script([{"hang": {}}])
Config = inference_pb2.InferenceConfig
Outcome = tool_pb2.ToolOutcome


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    async with LiveServer(tmp_path_factory.mktemp("edges"), PROFILES) as opened:
        yield opened
    log = "".join(opened.process.log)
    assert "crashed" not in log
    assert "Traceback" not in log


@pytest_asyncio.fixture(loop_scope="session")
async def session(server: LiveServer) -> Session:
    return await server.session()


async def _refused(work: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await work
    return refused.value


async def _asked(session: Session, count: int = 1, tool: tool_pb2.Tool = ASK) -> inference_pb2.Inference:
    """Return an inference that waits for answers to so many calls: c0, c1, ..."""
    calls = [{"toolCall": {"id": f"c{number}", "name": tool.name}} for number in range(count)]
    return await session.reach(await session.start(tools=[tool], script=script(calls, [say("done")])), WAITING)


def _result(number: int, text: str = "1") -> Outcome:
    return Outcome(tool_call=f"c{number}", result=text)


async def _check_usable(session: Session, inference: inference_pb2.Inference) -> None:
    """Check that all who can be asked agree on an inference that has ended, and that the session takes the next one."""
    ended = await session.finish(inference)
    got = await session.stubs.inference.GetInference(pb.GetInferenceRequest(inference_id=inference.inference_id))
    assert got.inference == ended.inference
    assert await session.turn(ended.inference.turn_index) == ended.turn
    assert ended.events[-1].sequence == ended.inference.last_sequence
    assert ended.events[-1].inference_finished.usage == ended.inference.usage
    assert (await session.say("and on", script=script([say("fine")]))).inference.state == SUCCEEDED


# --- answers of clients ------------------------------------------------------------------------

BAD_ANSWERS: dict[str, tuple[list[Outcome], str]] = {
    "none": ([], "outcomes"),
    "too many": ([_result(number) for number in range(129)], "outcomes"),
    "nothing in one": ([Outcome(tool_call="c0")], "outcomes[0].outcome"),
    "one twice": ([_result(0), _result(0, "2")], "outcomes[1].tool_call"),
    "no JSON": ([_result(0, "{")], "outcomes[0].result"),
    "no text": ([_result(0, "")], "outcomes[0].result"),
    "not a number": ([_result(0, "NaN")], "outcomes[0].result"),
    "nested without end": ([_result(0, "[" * 100_000 + "]" * 100_000)], "outcomes[0].result"),
    "a byte too large": ([_result(0, f'"{"x" * (MEBIBYTE - 1)}"')], "outcomes[0].result"),
    "arguments that are no object": (
        [Outcome(tool_call="c0", approved=tool_pb2.ToolApproval(args="[]"))],
        "outcomes[0].approved.args",
    ),
    "a long code": ([Outcome(tool_call="c0", error=tool_pb2.ToolError(code="x" * 65))], "outcomes[0].error.code"),
}
NOT_PENDING: dict[str, tuple[list[Outcome], str]] = {
    "unknown": ([_result(7)], "c7"),
    "unknown, beside a known one": ([_result(0), _result(7), _result(8)], "c7,c8"),
    "approved, which nobody asked for": ([Outcome(tool_call="c0", approved=tool_pb2.ToolApproval())], "c0"),
    "denied, which nobody asked for": ([Outcome(tool_call="c0", denied=tool_pb2.ToolDenial())], "c0"),
}


async def test_an_answer_that_is_refused_changes_nothing(session: Session) -> None:
    waits = await _asked(session, 2)
    for outcomes, field in BAD_ANSWERS.values():
        assert field in violations(await _refused(session.submit(waits, *outcomes)))
    for outcomes, listed in NOT_PENDING.values():
        code, reason, metadata = refusal(await _refused(session.submit(waits, *outcomes)))
        assert (code, reason) == ("FAILED_PRECONDITION", "TOOL_CALL_NOT_PENDING")
        assert metadata == {"inference_id": waits.inference_id, "tool_calls": listed}
    now = (
        await session.stubs.inference.GetInference(pb.GetInferenceRequest(inference_id=waits.inference_id))
    ).inference
    assert now == waits
    assert (await session.submit(waits, _result(0), _result(1))).state == QUEUED
    assert refusal(await _refused(session.submit(waits, _result(0))))[1] in {
        "INFERENCE_NOT_WAITING",
        "TOOL_CALL_NOT_PENDING",
    }
    await _check_usable(session, waits)


async def test_answers_as_large_and_as_many_as_can_be(session: Session) -> None:
    waits = await _asked(session, 130)
    text = f'"{"x" * (MEBIBYTE - 2)}"'
    request = pb.SubmitToolResultsRequest(
        inference_id=waits.inference_id, outcomes=[_result(0, text), *map(_result, range(1, 128))]
    )
    answered = await session.stubs.inference.SubmitToolResults(request)
    assert answered.inference.state == WAITING
    assert [*answered.pending_tool_calls] == ["c128", "c129"]
    await session.submit(waits, _result(128), _result(129))
    ended = await session.stubs.finish(waits.inference_id)
    assert (ended.inference.state, ended.turn.block_count) == (SUCCEEDED, 262)
    (told,) = [event for event in await session.events(waits) if event.tool_result.use.tool_call == "c0"]
    assert told.tool_result.result_omitted


async def test_an_answer_is_repeated_by_its_key_and_by_nothing_else(session: Session) -> None:
    waits, other = await _asked(session, 2), await _asked(await session.server.session())
    for _ in range(2):
        assert (await session.submit(waits, _result(0), key=session.session_id)).state == WAITING
    for refused in (
        session.submit(waits, _result(1), key=session.session_id),
        session.submit(other, _result(0), key=session.session_id),
    ):
        code, reason, metadata = refusal(await _refused(refused))
        assert (code, reason, metadata) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", {"rpc": "SubmitToolResults"})
    await session.submit(waits, _result(1))
    await session.finish(waits)
    assert (await session.submit(waits, _result(0), key=session.session_id)).state == SUCCEEDED
    error = await _refused(session.submit(waits, _result(0)))
    assert refusal(error)[1:] == (
        "INFERENCE_NOT_WAITING",
        {"inference_id": waits.inference_id, "state": "SUCCEEDED"},
    )
    await session.cancel(other)


async def test_a_call_of_a_client_is_approved_first_and_answered_then(session: Session) -> None:
    waits = await _asked(session, 1, tool_pb2.Tool(name="ask", approval_required=True))
    assert refusal(await _refused(session.submit(waits, _result(0))))[1] == "TOOL_CALL_NOT_PENDING"
    approval = Outcome(tool_call="c0", approved=tool_pb2.ToolApproval(args='{"x":1}'))
    assert (await session.submit(waits, approval)).state == WAITING
    first, second = await session.told(waits, "tools_required", 2)
    assert [each.id for each in first.approvals] == [each.id for each in second.calls] == ["c0"]
    assert refusal(await _refused(session.submit(waits, approval)))[1] == "TOOL_CALL_NOT_PENDING"
    await session.submit(waits, _result(0))
    await _check_usable(session, waits)


async def test_more_calls_than_one_event_can_list(session: Session) -> None:
    calls = [{"toolCall": {"id": f"{number}".ljust(256, "x"), "name": "ask"}} for number in range(1000)]
    ended = await session.say(tools=[ASK], script=script(calls))
    assert ended.inference.state == FAILED
    assert ended.inference.error.metadata.keys() == {"output_bytes_max"}
    assert ended.produced[0].tool_call.id == calls[0]["toolCall"]["id"]  # what had arrived is kept
    await _check_usable(session, ended.inference)
    await _step_mode(session)
    paused = await session.reach(await session.start(tools=[ASK], script=script(calls[:600])), PAUSED)
    pause = await _pause(session)
    assert len(pause.summary) == 256
    await _release(session, pause.id)
    await session.reach(paused, WAITING)
    await session.cancel(paused)


@pytest.mark.parametrize(("name", "is_abort"), [("get_weather", True), ("nobody", False)])
async def test_only_a_tool_that_was_executed_can_end_an_inference(
    session: Session, name: str, *, is_abort: bool
) -> None:
    what = script([call(name, city="Atlantis")], [say("done")])
    ended = await session.say(profile="aborting", script=what)
    assert ended.inference.state == (FAILED if is_abort else SUCCEEDED)
    assert ended.inference.error.metadata == ({"tool": name} if is_abort else {})
    await _check_usable(session, ended.inference)


# --- step control ------------------------------------------------------------------------------


async def _step_mode(session: Session, **fields: Any) -> None:
    request = debug_pb.SetStepModeRequest(session_id=session.session_id, enabled=True, **fields)
    await session.stubs.debug.SetStepMode(request)


async def _release(
    session: Session, pause: str, action: debug_pb.PauseAction.ValueType = debug_pb.PAUSE_ACTION_UNSPECIFIED
) -> None:
    await session.stubs.debug.ReleasePause(debug_pb.ReleasePauseRequest(pause=pause, action=action))


async def _pause(session: Session) -> debug_pb.Pause:
    request = debug_pb.ListPausesRequest(session_id=session.session_id)
    (found,) = (await session.stubs.debug.ListPauses(request)).pauses
    return found


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"deadline": Duration()}, "deadline"),
        ({"deadline": Duration(seconds=86_400, nanos=1)}, "deadline"),
        ({"deadline_action": debug_pb.PAUSE_ACTION_STEP}, "deadline_action"),
        ({"deadline_action": 9}, "deadline_action"),
    ],
)
async def test_step_modes_that_are_refused(session: Session, fields: Mapping[str, Any], field: str) -> None:
    assert field in violations(await _refused(_step_mode(session, **fields)))


async def test_a_pause_is_released_once_and_by_its_own_name(session: Session) -> None:
    await _step_mode(session, deadline=Duration(seconds=86_400))
    paused = await session.reach(await session.start(tools=[ASK], script=script([call("ask")])), PAUSED)
    pause = await _pause(session)
    assert (pause.inference_id, pause.phase) == (paused.inference_id, "after_inference")
    error = await _refused(session.submit(paused, Outcome(tool_call="call_1", result="1")))
    assert refusal(error)[1:] == ("INFERENCE_NOT_WAITING", {"inference_id": paused.inference_id, "state": "PAUSED"})
    for name in ("nope", f"{pause.id}1", paused.inference_id, f"{UNKNOWN}.1", ":::", "ü\n"):
        assert refusal(await _refused(_release(session, name))) == ("NOT_FOUND", "PAUSE_NOT_FOUND", {"pause": name})
    await _release(session, pause.id)
    assert refusal(await _refused(_release(session, pause.id)))[1] == "PAUSE_NOT_FOUND"
    await session.reach(paused, WAITING)
    await session.cancel(paused)
    await session.stubs.debug.SetStepMode(debug_pb.SetStepModeRequest(session_id=session.session_id))
    await _check_usable(session, paused)


@pytest.mark.parametrize("how", ["abort", "cancel", "deadline", "timeout", "deletion"])
async def test_every_end_of_a_pause(session: Session, how: str) -> None:
    soon = Duration(nanos=1_000_000)
    action = debug_pb.PAUSE_ACTION_ABORT
    await _step_mode(session, deadline=soon if how == "deadline" else None, deadline_action=action)
    if how == "deadline":  # it may be over before anybody has seen it
        ended = await session.say()
        assert ended.inference.error.metadata == {"pause": f"{ended.inference.inference_id}.1"}
        assert [each.action for each in ended.told("debugger_resumed")] == ["deadline"]
        return
    timeout = Duration(seconds=1) if how == "timeout" else None
    paused = await session.reach(await session.start(timeout=timeout), PAUSED)
    pause = (await _pause(session)).id
    if how == "abort":
        await _release(session, pause, action)
    elif how == "cancel":
        await session.cancel(paused)
    elif how == "deletion":
        request = session_service_pb2.DeleteSessionRequest(session_id=session.session_id, force=True)
        await session.stubs.session.DeleteSession(request)
    if how != "deletion":
        ended = await session.finish(paused)
        state, reason = {
            "abort": (FAILED, inference_pb2.FINISH_CLASS_ERROR),
            "cancel": (CANCELLED, inference_pb2.FINISH_CLASS_INTERRUPTED),
            "timeout": (FAILED, inference_pb2.FINISH_CLASS_ERROR),
        }[how]
        assert (ended.inference.state, ended.inference.finish_class) == (state, reason)
    assert refusal(await _refused(_release(session, pause)))[1] == "PAUSE_NOT_FOUND"


# --- what may be asked for ---------------------------------------------------------------------

OVERRIDES: dict[str, dict[str, Any]] = {
    "model": {"config": Config(model="m")},
    "config": {"config": Config(temperature=0.0)},
    "tools": {"tools": [tool_pb2.Tool(name="get_time", placement=tool_pb2.TOOL_PLACEMENT_SERVER)]},
    "output_schema": {"schema": "{}"},
    "engine_options": {"script": "{}"},
    "record_snapshots": {"snapshots": True},
}


@pytest.mark.parametrize("name", OVERRIDES)
async def test_what_a_profile_does_not_allow(session: Session, name: str) -> None:
    error = await _refused(session.start(profile="locked", **OVERRIDES[name]))
    assert refusal(error) == (
        "FAILED_PRECONDITION",
        "OVERRIDE_NOT_ALLOWED",
        {"profile": "locked", "override": name},
    )
    assert (await session.say(profile="locked")).inference.state == SUCCEEDED


async def test_what_a_profile_does_not_allow_a_session(server: LiveServer) -> None:
    new = session_pb2.NewSession(config=Config(seed=0), profile="locked")
    request = pb.StartInferenceRequest(new_session=new, input=[turn_pb2.Block(user=turn_pb2.UserBlock(text="a"))])
    error = await _refused(server.stubs.inference.StartInference(request))
    assert refusal(error)[1:] == ("OVERRIDE_NOT_ALLOWED", {"profile": "locked", "override": "config"})


@pytest.mark.parametrize(
    ("capability", "fields"),
    [
        ("tools", {"tools": [ASK]}),
        ("structured_output", {"schema": "{}"}),
        ("images", {"input": [turn_pb2.Block(user=turn_pb2.UserBlock(images=[turn_pb2.Image(file="f")]))]}),
    ],
)
async def test_what_a_profile_cannot_do(session: Session, capability: str, fields: Mapping[str, Any]) -> None:
    error = await _refused(session.start(profile="plain", **fields))
    assert refusal(error) == (
        "FAILED_PRECONDITION",
        "CAPABILITY_MISSING",
        {"profile": "plain", "capability": capability},
    )


BAD_TOOLS = {
    "overrides.tools[0]": tool_pb2.Tool(name="x", placement=tool_pb2.TOOL_PLACEMENT_SERVER, description="mine"),
    "overrides.tools[0].name": tool_pb2.Tool(name="x" * 65),
    "overrides.tools[0].description": tool_pb2.Tool(name="x", description="é" * 8193),
    "overrides.tools[0].placement": tool_pb2.Tool(name="x", placement=3),  # type: ignore[arg-type]
    "overrides.tools[0].input_schema": tool_pb2.Tool(name="x", input_schema=f'{{"title":"{"y" * 65_536}"}}'),
}


@pytest.mark.parametrize("field", BAD_TOOLS)
async def test_tools_that_are_refused(session: Session, field: str) -> None:
    assert field in violations(await _refused(session.start(tools=[BAD_TOOLS[field]])))


async def test_a_tool_that_the_profile_has_not(session: Session) -> None:
    missing = tool_pb2.Tool(name="nothing", placement=tool_pb2.TOOL_PLACEMENT_SERVER)
    ended = await session.say(profile="agent", tools=[missing])
    assert ended.inference.state == FAILED
    assert ended.inference.error.metadata == {"source": "nothing"}
    await _check_usable(session, ended.inference)


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        "1",
        '{"type":"nope"}',
        '{"pattern":"("}',
        '{"$ref":"https://example.com/x"}',
        '{"$ref":"file:///etc/passwd"}',
        '{"$ref":"#/$defs/none"}',
        '{"$anchor":"a","$ref":"#a"}',
        '{"$schema":"https://example.com/mine"}',
        '{"not":' * 5000 + "{}" + "}" * 5000,
    ],
)
async def test_output_schemas_that_are_refused(session: Session, schema: str) -> None:
    assert "overrides.output_schema" in violations(await _refused(session.start(schema=schema)))


@pytest.mark.parametrize(
    ("schema", "output", "is_valid"),
    [
        ("true", "[1]", True),
        ("false", "[1]", False),
        ('{"type":"object"}', ' {"a":1}\n', True),
        ('{"type":"object"}', '{"a":1} {"a":2}', False),
        ('{"type":"object"}', '```json\n{"a":1}\n```', False),
        ('{"type":"object"}', '{"a":NaN}', False),
        ('{"type":"object"}', "", False),
        ('{"type":"string","pattern":"^(a+)+$"}', f'"{"a" * 50}!"', False),
        ('{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}', "{}", True),
    ],
)
async def test_what_satisfies_a_schema(session: Session, schema: str, output: str, *, is_valid: bool) -> None:
    ended = await session.say(schema=schema, script=script([say(output)]))
    assert ended.text == output  # kept, whatever it is
    assert ended.inference.state == (SUCCEEDED if is_valid else FAILED)
    assert ended.inference.error.metadata.keys() == (set() if is_valid else {"violation"})
    await _check_usable(session, ended.inference)


# --- listings ----------------------------------------------------------------------------------


async def test_a_page_token_belongs_to_its_listing_and_its_filters(session: Session) -> None:
    await session.say("one")
    inference_id, session_id = (await session.say("two", snapshots=True)).inference.inference_id, session.session_id
    stubs, engine = session.stubs, EngineServiceStub(session.stubs.channel)
    listings: list[tuple[Any, Any, Any]] = [
        (
            stubs.inference.ListInferences,
            pb.ListInferencesRequest(session_id=session_id),
            pb.ListInferencesRequest(session_id=session_id, states=[SUCCEEDED]),
        ),
        (
            stubs.inference.ListEvents,
            pb.ListEventsRequest(session_id=session_id),
            pb.ListEventsRequest(session_id=session_id, inference_id=inference_id),
        ),
        (
            stubs.session.ListTurns,
            session_service_pb2.ListTurnsRequest(session_id=session_id),
            session_service_pb2.ListTurnsRequest(session_id=session_id, newest_first=True),
        ),
        (
            stubs.session.GetTurn,
            session_service_pb2.GetTurnRequest(inference_id=inference_id),
            session_service_pb2.GetTurnRequest(at=session_service_pb2.TurnAt(session_id=session_id, index=1)),
        ),
        (
            stubs.debug.ListTurnSnapshots,
            debug_pb.ListTurnSnapshotsRequest(inference_id=inference_id),
            debug_pb.ListTurnSnapshotsRequest(inference_id=inference_id, phase=debug_pb.SNAPSHOT_PHASE_PRE_INFERENCE),
        ),
        (
            engine.ListProfiles,
            engine_service_pb2.ListProfilesRequest(),
            engine_service_pb2.ListEnginesRequest(),
        ),
    ]
    for list_, one, other in listings:
        one.page_size = 1
        token = (await list_(one)).next_page_token
        assert token
        one.page_token = other.page_token = token
        assert await list_(one)
        is_engines = isinstance(other, engine_service_pb2.ListEnginesRequest)
        list_other: Any = engine.ListEngines if is_engines else list_
        for wrong in (token, f"{token[:-2]}xx", "ü"):
            other.page_token = wrong
            assert refusal(await _refused(list_other(other))) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", {})


async def test_what_never_ran_has_no_turn_and_no_snapshots(session: Session) -> None:
    blocker = await session.start(script=HANG)
    queued = await session.start(conflict_policy=inference_pb2.CONFLICT_POLICY_ENQUEUE, snapshots=True)
    assert (await session.cancel(queued)).state == CANCELLED
    request = debug_pb.ListTurnSnapshotsRequest(inference_id=queued.inference_id)
    assert not (await session.stubs.debug.ListTurnSnapshots(request)).snapshots
    get = session_service_pb2.GetTurnRequest(inference_id=queued.inference_id)
    error = await _refused(session.stubs.session.GetTurn(get))
    assert refusal(error)[1:] == ("TURN_NOT_OPENED", {"inference_id": queued.inference_id})
    await session.cancel(blocker)
    await _check_usable(session, blocker)
