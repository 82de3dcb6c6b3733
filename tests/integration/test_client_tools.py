"""Tool calls, schemas and steps by turnwire_client, on a real server."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.agent_world import call, say
from support.server import ServerProcess, server_on
from turnwire.v1.debug_service_pb2 import SnapshotPhase
from turnwire.v1.inference_pb2 import FinishClass, InferenceConfig, InferenceState
from turnwire.v1.tool_pb2 import Tool, ToolApproval, ToolCall, ToolDenial
from turnwire_client import Client, InferenceHandle, errors

SUCCEEDED = InferenceState.INFERENCE_STATE_SUCCEEDED
WAITING = InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS
PAUSED = InferenceState.INFERENCE_STATE_PAUSED

MAIL_TOOLS = '''
from turnwire_server.tools.function import tool

@tool
async def send_mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"
'''
ANY = '{"type": "object"}'
OURS = [Tool(name="look", input_schema=ANY), Tool(name="touch", input_schema=ANY, approval_required=True)]


def script(*calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Engine options: the steps of one engine call after the other."""
    return {"script": {"calls": [{"steps": steps} for steps in calls]}}


MIXED = script(
    [say("hm"), call("send_mail", to="me"), call("touch", q=1), call("look", q=2)],
    [call("look", q=3)],
    [say("done")],
)


def serve(directory: Path, *more: str) -> ServerProcess:
    """A server whose default profile has a tool that needs approval; in `brief` nobody has long to answer."""
    (directory / "mail_office.py").write_text(MAIL_TOOLS)
    mail = {"engine": "scripted", "tools": [{"python": "mail_office"}]}
    profiles = {
        "mail": {**mail, "tool_policy": {"approve": ["send_mail"]}},
        "brief": {**mail, "tool_policy": {"approve": ["send_mail"], "answer_seconds_max": 0.5}},
    }
    path = directory / "profiles.json"
    path.write_text(json.dumps({"default": "mail", "profiles": profiles}))
    arguments = ("--profiles", str(path), "--drain-grace-seconds", "0", *more)
    return server_on(directory / "turnwire.db", *arguments, environment={"PYTHONPATH": str(directory)})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serve(tmp_path_factory.mktemp("tools")) as started:
        yield started


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client.connect(server.address) as connected:
        yield connected


async def uses(client: Client, handle: InferenceHandle) -> dict[str, str]:
    """What came of each tool call: the result, or the code of the error."""
    turn = await client.get_turn(inference_id=handle.inference_id, view="delta")
    found = [block.tool_use for block in turn.blocks if block.HasField("tool_use")]
    assert len({use.tool_call for use in found}) == len(found)
    return {use.tool_call: use.result or use.error.code for use in found}


@pytest.mark.parametrize("ending", [None, signal.SIGKILL, signal.SIGTERM], ids=["undisturbed", "killed", "drained"])
async def test_the_loop_goes_on_whatever_becomes_of_the_server(tmp_path: Path, ending: signal.Signals | None) -> None:
    servers = [await asyncio.to_thread(serve(tmp_path).start)]

    async def look(q: int) -> int:
        if q == 2 and ending is not None:
            servers[0].signal(ending)
            await asyncio.to_thread(servers[0].wait)
            again = serve(tmp_path, "--listen", servers[0].address)
            servers.append(await asyncio.to_thread(again.start))
        return q * 10

    async def approve(asked: ToolCall) -> ToolApproval:
        return ToolApproval(args='{"q": 7}' if asked.name == "touch" else '{"to": "you"}')

    try:
        async with Client.connect(servers[0].address) as client:
            handle = await client.start_inference(input="hello", tools=OURS, engine_options=MIXED)
            result = await handle.run_tools({"look": look, "touch": lambda q: q}, approve=approve)
            assert (result.state, result.text) == (SUCCEEDED, "done")
            expected = {"call_1": '"sent to you"', "call_2": "7", "call_3": "20", "call_4": "30"}
            assert await uses(client, handle) == expected
            sequences = [event.sequence async for event in handle.events()]
            assert sequences == list(range(1, len(sequences) + 1))
    finally:
        await asyncio.to_thread(servers[-1].stop)


async def test_two_programs_answer_the_same_inference(client: Client) -> None:
    handle = await client.start_inference(input="hello", tools=OURS, engine_options=MIXED)
    other = client.inference(handle.inference_id, handle.session_id)

    def run(who: InferenceHandle, name: str) -> Any:
        async def approve(asked: ToolCall) -> bool | ToolDenial:
            return asked.name == "touch" or ToolDenial(reason=name)

        return who.run_tools({"look": lambda q: name, "touch": lambda q: name}, approve=approve)

    both = await asyncio.gather(run(handle, "one"), run(other, "two"))
    assert [(result.state, result.text) for result in both] == [(SUCCEEDED, "done")] * 2
    found = await uses(client, handle)
    assert found.pop("call_1") == "denied"
    assert set(found) == {"call_2", "call_3", "call_4"}
    assert set(found.values()) <= {'"one"', '"two"'}


async def test_what_nobody_answers_in_time_is_answered_with_an_error(client: Client) -> None:
    before = datetime.now(UTC)
    handle = await client.start_inference(
        input="hello", profile="brief", tools=OURS, engine_options=script([call("look", q=1)], [say("then not")])
    )
    result = await handle.result()
    assert result.state == WAITING
    [required] = result.required.calls
    assert (required.name, json.loads(required.args)) == ("look", {"q": 1})
    assert result.required.deadline_time is not None
    assert (result.required.deadline_time - before).total_seconds() > 0
    assert (await handle.result(until_end=True)).text == "then not"
    assert await uses(client, handle) == {"call_1": "timeout"}
    assert not await handle.required()


async def test_step_mode_from_pause_to_pause(client: Client) -> None:
    options = script([call("look", q=1)], [say("done")])
    session = await client.create_session()
    await client.set_step_mode(session.session_id, True, deadline=600, deadline_action="abort")
    assert (await client.get_session(session.session_id)).step_mode
    handle = await client.start_inference(
        session.session_id, "hello", tools=OURS, engine_options=options, record_snapshots=True
    )
    phases: list[str] = []
    result = await handle.run_tools({"look": lambda q: q})
    while result.state == PAUSED:
        [pause] = [each async for each in client.list_pauses(session.session_id)]
        assert pause.inference_id == handle.inference_id
        phases.append(pause.phase)
        assert (await client.release_pause(pause.id, "step")).inference_id == handle.inference_id
        with pytest.raises(errors.PauseNotFoundError):
            await client.release_pause(pause.id)
        result = await handle.run_tools({"look": lambda q: q})
    assert (result.text, phases) == ("done", ["after_inference", "after_tools", "after_inference"])
    assert [each async for each in client.list_pauses()] == []
    taken = [each async for each in client.list_turn_snapshots(handle.inference_id)]
    counts = [each.turn.block_count for each in taken]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    wanted = [each async for each in client.list_turn_snapshots(handle.inference_id, phase="post_inference")]
    assert [each.phase for each in wanted] == [SnapshotPhase.SNAPSHOT_PHASE_POST_INFERENCE] * 2

    handle = await client.start_inference(session.session_id, "hello", tools=OURS, engine_options=options)
    await handle.result()
    [pause] = [each async for each in client.list_pauses(session.session_id)]
    await client.release_pause(pause.id, "abort")
    with pytest.raises(errors.StepAbortedError) as aborted:
        await handle.result()
    assert aborted.value.metadata == {"pause": pause.id}
    await client.set_step_mode(session.session_id, False)
    handle = await client.start_inference(session.session_id, "hello", engine_options=script([say("on")]))
    assert (await handle.result()).text == "on"


async def test_an_answer_is_held_to_its_schema(client: Client) -> None:
    schema = {"type": "object", "required": ["n"]}

    async def ask(*answers: str) -> InferenceHandle:
        options = script(*([say(answer)] for answer in answers))
        return await client.start_inference(input="give me n", output_schema=schema, engine_options=options)

    assert (await (await ask('{"n": 1}')).result()).text == '{"n": 1}'
    repaired = await ask("no", '{"n": 2}')
    assert (await repaired.result()).text == '{"n": 2}'
    assert [event.error.error.metadata.keys() async for event in repaired.events() if event.HasField("error")] == [
        {"violation"}
    ]
    with pytest.raises(errors.OutputInvalidError) as invalid:
        await (await ask("no", "neither")).result()
    assert invalid.value.result.text == "neither"
    with pytest.raises(errors.InvalidFieldError) as refused:
        await client.start_inference(input="hello", output_schema={"type": 1})
    assert [violation.field for violation in refused.value.violations] == ["overrides.output_schema"]


async def test_the_configuration_of_a_session_is_below_that_of_a_request(client: Client) -> None:
    session = await client.create_session(config=InferenceConfig(model="session", temperature=0.5))

    async def effective(config: InferenceConfig | None = None) -> tuple[str, float, int]:
        found = (await (await client.start_inference(session.session_id, "hello", config=config)).result()).inference
        return found.config.model, found.config.temperature, found.config.max_output_tokens

    assert await effective() == ("session", 0.5, 0)
    assert await effective(InferenceConfig(model="mine", max_output_tokens=9)) == ("mine", 0.5, 9)
    changed = await client.update_session(session.session_id, config=InferenceConfig(temperature=1))
    assert changed.config == InferenceConfig(temperature=1)
    assert await effective() == ("", 1.0, 0)


async def test_every_conflict_policy(client: Client) -> None:
    waiting = script([call("look", q=1)], [say("done")])
    first = await client.start_inference(input="one", tools=OURS, engine_options=waiting)
    await first.result()
    second = await client.start_inference(first.session_id, "two", conflict_policy="enqueue")
    third = await client.start_inference(first.session_id, "three", conflict_policy="interrupt")
    with pytest.raises(errors.SessionBusyError):
        await client.start_inference(first.session_id, "four", conflict_policy="reject")
    assert (await first.result(raise_on_failure=False)).inference.finish_class == FinishClass.FINISH_CLASS_INTERRUPTED
    ended = [await handle.result(until_end=True) for handle in (third, second)]
    assert [result.text for result in ended] == ["three", "two"]
    fifth = await client.start_inference(first.session_id, "five", tools=OURS, engine_options=waiting)
    await fifth.result()
    sixth = await client.start_inference(first.session_id, "six", conflict_policy="rollback")
    said = (await sixth.result(view="full", until_end=True)).turn
    assert said is not None
    assert [block.user.text for block in said.blocks if block.HasField("user")] == ["one", "three", "two", "six"]
