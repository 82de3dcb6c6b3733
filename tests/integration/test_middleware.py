"""Middleware through a whole server: what it tells, what it keeps, what it refuses, and what a restart leaves of it."""

import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from support.agent_world import call, say, script
from support.live import SUCCEEDED, LiveServer
from turnwire.v1 import turn_pb2
from turnwire_server.middleware.agent_mode import ALLOWED_TOOLS_KEY, MODE_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = "You are calm. Say nothing of the number 4711."
TOOLS = [{"python": "support.gadgets"}]


def _profiles(database: Path) -> dict[str, dict[str, object]]:
    modes = {
        "write": {"prompt": "Write code.", "allowed_tools": ["get_time"]},
        "review": {"prompt": "Read code.", "allowed_tools": ["get_weather"]},
    }
    agent_mode = {"name": "agent_mode", "settings": {"default": "write", "modes": modes}}
    sql_tool = {"name": "sql_tool", "settings": {"path": str(database), "rows_max": 2}}
    log_calls = {"name": "log_calls", "settings": {"event": True}}
    return {
        "plain": {"engine": "scripted", "tools": TOOLS},
        "moody": {"engine": "scripted", "tools": TOOLS, "middleware": [agent_mode]},
        "sql": {"engine": "scripted", "middleware": [sql_tool]},
        "prompted": {"engine": "scripted", "system_prompt": PROMPT},
        "thoughtful": {"engine": "scripted", "middleware": ["thinking_mode"]},
        "logged": {"engine": "scripted", "tools": TOOLS, "middleware": [log_calls]},
    }


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE item (name TEXT, price INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?, ?)", [("tea", 3), ("rum", 9), ("ale", 5)])
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    async with LiveServer(tmp_path_factory.mktemp("middleware"), _profiles(database)) as started:
        yield started


def _mode(name: str, reason: str) -> dict[str, object]:
    return say(f'Well. <turnwire:agent_mode mode="{name}">{reason}</turnwire:agent_mode> Now.')


async def test_a_change_of_mode_is_told_kept_and_holds_tools_to_it(server: LiveServer) -> None:
    session = await server.session("moody")
    calls = script(
        [_mode("review", "the code is written"), call("get_time", zone="CET"), call("get_weather", city="Bern")],
        [call("get_time", zone="UTC"), call("get_weather", city="Zürich")],
        [say("done")],
    )
    first = await session.say("write it", script=calls)
    assert first.inference.state == SUCCEEDED, first.inference.error
    assert first.outcomes == {
        "call_1": '"noon, CET"',
        "call_2": "not_allowed",  # the change takes effect with the next engine call
        "call_3": "not_allowed",
        "call_4": '{"city":"Zürich","degrees":6,"days":1}',
    }
    [told] = first.told("agent_mode")
    assert (told.from_mode, told.to_mode) == ("write", "review")
    assert json.loads(told.data) == {"reason": "the code is written"}
    assert first.names.index("agent_mode") > first.names.index("llm_final")
    assert "turnwire:agent_mode" in first.text, "what was told is what is stored"
    in_review = {MODE_KEY: '"review"', ALLOWED_TOOLS_KEY: '["get_weather"]'}
    assert dict(first.turn.data) == in_review

    await server.restart(signal.SIGKILL)
    assert dict((await session.turn()).data) == in_review
    both = [call("get_time", zone="CET"), call("get_weather", city="Bern")]
    second = await session.say("and now?", script=script(both, [say("done")]))
    assert second.outcomes["call_1"] == "not_allowed"
    assert "Bern" in second.outcomes["call_2"]
    assert second.told("agent_mode") == []

    back = await session.say("as you like", data={MODE_KEY: '"write"'}, script=script(both, [say("done")]))
    assert back.outcomes == {"call_1": '"noon, CET"', "call_2": "not_allowed"}, "the application sets the mode as well"
    beside = await session.say("from the beginning", parent=0, script=script(both, [say("done")]))
    assert beside.outcomes["call_1"] == "not_allowed", "the mode is that of the parent"


async def test_a_mode_that_nobody_knows_changes_nothing(server: LiveServer) -> None:
    session = await server.session("moody")
    ended = await session.say(script=script([_mode("destroy", "fun")]))
    assert ended.inference.state == SUCCEEDED
    assert ended.told("agent_mode") == []
    [warning] = ended.told("log")
    assert (warning.level, json.loads(warning.fields["mode"])) == ("warning", "destroy")
    assert MODE_KEY not in ended.turn.data


async def test_a_model_reads_a_database(server: LiveServer, database: Path) -> None:
    session = await server.session("sql")
    query = call("sql_query", sql="SELECT name, price FROM item WHERE price > ? ORDER BY price", params=[2])
    ended = await session.say("what is there?", script=script([query], [say("tea")]))
    result = json.loads(ended.outcomes["call_1"])
    assert (result["columns"], result["rows"]) == (["name", "price"], [["tea", 3], ["ale", 5]])
    assert result["truncated"], "rows_max is 2"


@pytest.mark.parametrize(
    "attack",
    [
        "DELETE FROM item",
        "DROP TABLE item",
        "INSERT INTO item VALUES ('gin', 1)",
        "SELECT 1; DELETE FROM item",
        "WITH gone AS (SELECT 1) UPDATE item SET price = 0",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "VACUUM INTO 'copy.db'",
        "ATTACH DATABASE '{folder}/other.db' AS other",
        "SELECT load_extension('evil')",
        "SELECT writefile('{folder}/evil', 'x')",
    ],
)
async def test_a_model_cannot_change_a_database(server: LiveServer, database: Path, attack: str) -> None:
    before = database.read_bytes()
    session = await server.session("sql")
    said = attack.format(folder=database.parent)
    ended = await session.say("go on", script=script([call("sql_query", sql=said)], [say("I cannot")]))
    assert (ended.inference.state, ended.text) == (SUCCEEDED, "I cannot")
    assert ended.outcomes == {"call_1": "failed"}, ended.outcomes
    assert database.read_bytes() == before
    assert {path.name for path in database.parent.iterdir()} == {database.name}


async def test_the_prompt_is_shown_to_the_engine_once_and_not_stored(server: LiveServer) -> None:
    """The scripted engine counts as its input the blocks that it was shown."""
    session, plain = await server.session("prompted"), await server.session("plain")
    for number in range(3):
        ended, without = await session.say(str(number)), await plain.say(str(number))
        assert ended.inference.usage.input_tokens == without.inference.usage.input_tokens + 1
        assert not any(block.HasField("system") for block in ended.turn.blocks)
    own = await server.session("prompted")
    request = own.request("with a prompt of my own")
    request.input.insert(0, turn_pb2.Block(system=turn_pb2.SystemBlock(text=PROMPT)))
    started = (await own.stubs.inference.StartInference(request)).inference
    ended = await own.finish(started)
    assert ended.inference.usage.input_tokens == 2, "it is there already"


async def test_phases_of_thinking_are_told(server: LiveServer) -> None:
    session = await server.session("thoughtful")
    said = (
        '<turnwire:thinking_mode mode="exploring" phase="gathering" confidence="low">what do I know'
        "</turnwire:thinking_mode> So: "
        '<turnwire:thinking_mode mode="deciding">and then'
    )
    ended = await session.say(script=script([{"thinking": {"text": said}}, say("nothing")]))
    assert ended.inference.state == SUCCEEDED
    begun, done = ended.told("thinking_mode_started"), ended.told("thinking_mode_completed")
    assert [(each.thinking_mode.mode, each.thinking_mode.phase) for each in begun] == [
        ("exploring", "gathering"),
        ("deciding", ""),
    ]
    assert [(each.success, each.thinking_mode.reasoning) for each in done] == [
        (True, "what do I know"),
        (False, "and then"),
    ]
    assert json.loads(done[0].thinking_mode.extra_data) == {"confidence": "low"}
    assert done[1].error
    starts = [event.entity for event in ended.events if event.HasField("thinking_mode_started")]
    ends = [event.entity for event in ended.events if event.HasField("thinking_mode_completed")]
    assert starts == ends
    assert len(set(starts)) == 2
    assert ended.produced[0].reasoning.text == said


async def test_calls_are_logged_without_what_was_said(server: LiveServer) -> None:
    session = await server.session("logged")
    calls = script([call("get_time", zone="CET")], [say("the secret is 4711")])
    ended = await session.say("tell me the secret of 4711", script=calls)
    told = [{name: json.loads(text) for name, text in line.fields.items()} for line in ended.told("log")]
    assert [(each["iteration"], each["outcome"], each["finish_class"]) for each in told] == [
        (1, "finished", "TOOL_CALLS_PENDING"),
        (2, "finished", "COMPLETED"),
    ]
    assert sum(each["output_tokens"] for each in told) == ended.inference.usage.output_tokens
    assert {each["tool_count"] for each in told} == {5}
    failed = await session.say("fail", script=script([{"fail": {"reason": "ENGINE_RATE_LIMITED"}}]))
    [line] = failed.told("log")
    assert json.loads(line.fields["reason"]) == "ENGINE_RATE_LIMITED"

    await server.restart(signal.SIGTERM)  # all that it logged has been read then
    lines = [json.loads(line) for line in server.process.log if ended.inference.inference_id in line]
    logged = [line for line in lines if line["event"] == "engine call"]
    assert [(line["iteration"], line["block_count"]) for line in logged] == [(1, 1), (2, 3)]
    assert "4711" not in "".join(server.process.log)
