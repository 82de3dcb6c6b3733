"""The command line as a process: what it refuses before it asks a server, and what it does against the fake."""

import asyncio
import json
import os
import sys
import time
from importlib.metadata import version

import pytest

from turnwire.v1.engine_pb2 import Profile, ProfileSource
from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire.v1.inference_service_pb2 import StartInferenceRequest, SubscribeEventsRequest
from turnwire_client import Client
from turnwire_client.testing import FakeServer

NOBODY = "127.0.0.1:1"


async def turnwire(*arguments: str, target: str = NOBODY, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "turnwire_client.cli", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TURNWIRE_TARGET": target, "COLUMNS": "200"},
    )
    written, told = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, written.decode(), told.decode()


def error_of(told: str) -> dict[str, object]:
    """The one JSON object on stderr."""
    assert told.count("\n") == 1, told
    found: dict[str, object] = json.loads(told)["error"]
    assert found.keys() == {"reason", "code", "message", "metadata"}
    return found


WRONG = [
    ["start", "hi", "--timeout", "inf"],
    ["start", "hi", "--timeout", "nan"],
    ["start", "hi", "--timeout", "1e30"],
    ["start", "hi", "--timeout", "0"],
    ["start", "hi", "--timeout=-1"],
    ["start", "hi", "--session", ""],
    ["start", "hi", "--key", ""],
    ["chat", "--session", ""],
    ["watch", ""],
    ["watch", "s", "--inference", ""],
    ["watch", "s", "--after", "99999999999999999999999"],
    ["watch", "s", "--after=-1"],
    ["wait", "i", "--timeout", "nan"],
    ["wait", "i", "--timeout=-1"],
    ["cancel", "--session", ""],
    ["turns", "show", "s", "99999999999"],
    ["sessions", "list", "--limit", "0"],
    ["profiles", "show", ""],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
async def test_what_is_out_of_range_or_empty_is_wrong_usage(arguments: list[str]) -> None:
    told, in_json = await asyncio.gather(turnwire(*arguments), turnwire(*arguments, "--json"))
    assert told[:2] == (2, "")
    assert "Traceback" not in told[2]
    assert any(word in told[2] for word in ("in the range", "should be", "is empty"))
    assert in_json[:2] == (2, "")
    error = error_of(in_json[2])
    assert (error["reason"], error["code"]) == ("", "INVALID_ARGUMENT")


async def test_text_that_is_not_utf_8_is_wrong_usage() -> None:
    code, _, told = await turnwire("start", "-", stdin=b"\xff")
    assert (code, "not UTF-8" in told) == (2, True)


async def test_the_version() -> None:
    assert await turnwire("--version") == (0, f"turnwire {version('turnwire')}\n", "")


@pytest.mark.parametrize("command", [["watch", "s"], ["wait", "i"], ["chat"], ["start", "hi"]], ids=" ".join)
async def test_nobody_there_is_told_soon(command: list[str]) -> None:
    begin = time.monotonic()
    (code, _, told), (code_in_json, _, in_json) = await asyncio.gather(
        turnwire(*command, stdin=b"hi\n"), turnwire(*command, "--json", stdin=b"hi\n")
    )
    assert time.monotonic() - begin < 15  # 3 s, and two starts of Python on a busy machine
    assert (code, code_in_json) == (3, 3)
    assert f"Nobody answers at {NOBODY}" in told
    assert "connection lost" not in told
    assert error_of(in_json)["code"] == "UNAVAILABLE"


async def test_a_cut_is_told_once_and_nothing_is_lost(fake: FakeServer, client: Client) -> None:
    handle = await client.start_inference(input="hello")
    expected = [str(event.sequence) for event in fake.events_of(handle.session_id)]
    watch = ("watch", handle.session_id, "--inference", handle.inference_id, "--until", "inference_end")
    fake.cut_streams(2)
    fake.refuse("STORE_UNAVAILABLE", rpc="SubscribeEvents", times=1)  # at the first attempt: not a cut yet
    code, written, told = await turnwire(*watch, target=fake.target)
    assert (code, [line.split()[0] for line in written.splitlines()]) == (0, expected)
    assert told == "connection lost, trying again ...\n"
    assert len(fake.requests_of(SubscribeEventsRequest)) == 3
    fake.cut_streams(2)
    code, written, told = await turnwire(*watch, "--json", target=fake.target)
    assert (code, len(written.splitlines()), told) == (0, len(expected), "")


async def test_a_watch_may_begin_with_a_snapshot(fake: FakeServer, client: Client) -> None:
    fake.reply("one two three four five six seven eight")
    handle = await client.start_inference(input="hello")
    last = len(fake.events_of(handle.session_id))
    watch = ("watch", handle.session_id, "--snapshot", "--until", "caught_up")
    code, written, told = await turnwire(*watch, "--live", target=fake.target)
    assert (code, written) == (2, "")
    assert "only one of --after, --live and --snapshot" in " ".join(told.replace("│", "").split())
    code, _, _ = await turnwire(*watch, "--after", "1", target=fake.target)
    assert code == 2
    code, written, _ = await turnwire(*watch, target=fake.target)
    names = [line.split()[1] for line in written.splitlines()]
    assert (code, names.count("llm.final"), names.count("llm.delta")) == (0, 1, 0)
    assert written.splitlines()[-1].split()[:2] == [str(last), "inference.finished"]


async def test_json_shows_zeros_and_no_variants_that_are_not_set(fake: FakeServer, client: Client) -> None:
    handle = await client.start_inference(input="hello")
    _, written, _ = await turnwire("turns", "show", handle.session_id, "--json", target=fake.target)
    turn = json.loads(written)["turn"]
    assert (turn["index"], turn["inherited_block_count"], turn["given_block_count"], turn["block_count"]) == (
        0,
        0,
        1,
        2,
    )
    assert "parent" not in turn
    assert turn["blocks"][0]["user"]["text"] == "hello"
    assert not {"system", "llm_text", "tool_call"} & turn["blocks"][0].keys()
    _, written, _ = await turnwire("watch", handle.session_id, "--until", "caught_up", "--json", target=fake.target)
    delta = next(event for line in written.splitlines() if "llm_delta" in (event := json.loads(line)))
    assert delta["llm_delta"] == {"delta": "hello", "offset": "0"}
    assert "inference_finished" not in delta
    _, written, _ = await turnwire("watch", handle.session_id, "--until", "caught_up", target=fake.target)
    assert '"offset": "0"' in written
    assert '"text_omitted"' not in written


async def test_follow_shows_where_to_go_on_and_keeps_stdout_to_the_answer(fake: FakeServer) -> None:
    code, written, told = await turnwire("start", "hello", "--follow", target=fake.target)
    assert (code, written) == (0, "hello\n")
    first, end, last = told.splitlines()
    session_id = first.removeprefix("session ").split(",")[0]
    assert session_id in fake._store.sessions
    assert first == f"session {session_id}, inference {fake.events_of(session_id)[0].inference_id}"
    assert end == "SUCCEEDED"
    assert last.endswith(f"chat --session {session_id}")
    code, written, told = await turnwire("start", "hello", "--follow", "--json", target=fake.target)
    assert (code, told) == (0, "")
    assert "sequence" in json.loads(written.splitlines()[0])


async def test_a_plain_start_says_what_is_known(fake: FakeServer) -> None:
    fake.hang()
    code, written, told = await turnwire("start", "hello", target=fake.target)
    names = [line.split()[0] for line in written.splitlines()]
    assert (code, names) == (0, ["inference_id", "session_id", "state", "profile"])
    assert "wait " in told


async def test_chat_makes_no_session_before_something_is_said(fake: FakeServer) -> None:
    code, written, _ = await turnwire("chat", target=fake.target)
    assert (code, written, fake._store.sessions) == (0, "", {})
    code, written, _ = await turnwire("chat", target=fake.target, stdin=b"one\n\ntwo\n")
    ((session_id, session),) = fake._store.sessions.items()
    assert (code, len(session.turns)) == (0, 2)
    assert written.rstrip().endswith(f"chat --session {session_id}")
    first, second = fake.requests_of(StartInferenceRequest)
    assert first.HasField("new_session")
    assert second.session_id == session_id


ADVICE = {
    "EMPTY_TURN": ({}, "Give a text, or - to read it from standard input."),
    "TURN_NOT_FOUND": ({"session_id": "mine", "index": "7"}, "turns list mine`"),
    "INFERENCE_NOT_FOUND": ({"inference_id": "i"}, "turns list SESSION`"),
    "LOG_REPLACED": ({"session_id": "mine", "log": "x"}, "--log"),
    "CURSOR_AHEAD": ({"session_id": "mine", "after_sequence": "9", "head_sequence": "4"}, "ends at 4"),
    "SESSION_NOT_FOUND": ({"session_id": "mine"}, "sessions list`"),
}


@pytest.mark.parametrize("reason", ADVICE)
async def test_a_refusal_is_told_with_what_to_do_and_in_json_with_its_reason(fake: FakeServer, reason: str) -> None:
    metadata, advice = ADVICE[reason]
    fake.refuse(reason, times=2, metadata=metadata)
    code, _, told = await turnwire("start", "hi", target=fake.target)
    assert (code, told.startswith(f"error {reason}: as told\n")) == (1, True)
    assert advice in told
    code, written, told = await turnwire("start", "hi", "--json", target=fake.target)
    assert (code, written) == (1, "")
    error = error_of(told)
    assert (error["reason"], error["message"]) == (reason, "as told")
    assert metadata.items() <= error["metadata"].items()


async def test_how_an_inference_ended_is_an_error_object_as_well(fake: FakeServer) -> None:
    fake.fail("ENGINE_RATE_LIMITED", message="slow down", engine="e", http_status="429")
    code, written, told = await turnwire("start", "hi", "--follow", "--json", target=fake.target)
    assert (code, "inference_finished" in written) == (4, True)
    assert error_of(told) == {
        "reason": "ENGINE_RATE_LIMITED",
        "code": "RESOURCE_EXHAUSTED",
        "message": "slow down",
        "metadata": {"engine": "e", "http_status": "429"},
    }
    fake.hang()
    _, written, _ = await turnwire("start", "hi", "--json", target=fake.target)
    inference_id = json.loads(written)["inference"]["inference_id"]
    code, _, told = await turnwire("wait", inference_id, "--timeout", "0", "--json", target=fake.target)
    assert (code, error_of(told)["code"]) == (6, "DEADLINE_EXCEEDED")


async def test_a_profile_is_shown() -> None:
    async with FakeServer() as fake:
        fake.add_profile(
            Profile(
                name="careful",
                version=3,
                description="takes its time",
                engine="fake",
                config=InferenceConfig(model="m"),
                middleware=["log_calls", "system_prompt"],
                tools=["add"],
                is_default=True,
                lineage=[
                    ProfileSource(profile="base", version=2, source="shared.yaml"),
                    ProfileSource(profile="careful", version=3, source="own.yaml"),
                ],
                settings='{"engine": "fake", "engine_options": {"key": "***"}}',
                overrides=["model"],
            )
        )
        code, written, told = await turnwire("profiles", "show", target=fake.target)
        assert (code, told) == (0, "")
        assert written == (
            "profile      careful (the default)\n"
            "version      3\n"
            "description  takes its time\n"
            "engine       fake\n"
            "model        m\n"
            "can          -\n"
            "middleware   log_calls, system_prompt\n"
            "tools        add\n"
            "overrides    model\n"
            "made of      base 2 (shared.yaml) -> careful 3 (own.yaml)\n"
            "\n"
            "settings\n"
            '{\n  "engine": "fake",\n  "engine_options": {\n    "key": "***"\n  }\n}\n'
        )
        code, written, _ = await turnwire("profiles", "show", "careful", "--json", target=fake.target)
        assert (code, json.loads(written)["profile"]["overrides"]) == (0, ["model"])
        code, written, _ = await turnwire("profiles", "list", target=fake.target)
        assert [line.split() for line in written.splitlines()] == [
            ["PROFILE", "VERSION", "DEFAULT", "ENGINE", "MODEL", "DESCRIPTION"],
            ["careful", "3", "default", "fake", "m", "takes", "its", "time"],
            ["fake", "1", "-", "fake", "-"],
        ]
        code, written, _ = await turnwire("profiles", "list", "--json", target=fake.target)
        assert [each["name"] for each in json.loads(written)["profiles"]] == ["careful", "fake"]


async def test_the_engines_are_shown() -> None:
    async with FakeServer() as fake:
        code, written, _ = await turnwire("engines", target=fake.target)
        assert code == 0
        assert written.splitlines() == [
            "ENGINE  CAN                   DESCRIPTION",
            "fake    streaming, reasoning  as told",
        ]
        code, written, _ = await turnwire("engines", "--json", target=fake.target)
        assert json.loads(written)["engines"][0]["capabilities"]["tools"] is False


async def test_a_profile_that_is_not_there_is_told_with_where_to_look() -> None:
    async with FakeServer() as fake:
        code, _, told = await turnwire("profiles", "show", "nope", target=fake.target)
        assert code == 1
        assert "PROFILE_NOT_FOUND" in told
        assert "profiles list" in told
