"""The command line, as a shell sees it: a process, its output and its exit code."""

import asyncio
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command_line import UUID, Terminal, as_json, turnwire
from support.server import server_on
from turnwire_client import Client


def test_start_wait_and_look(server_address: str) -> None:
    started = as_json("start", "Hello there", "--profile", "scripted", target=server_address)
    assert started["created"] is True
    session_id, inference_id = started["inference"]["session_id"], started["inference"]["inference_id"]
    ended = as_json("wait", inference_id, target=server_address)
    assert ended["inference"]["state"] == "INFERENCE_STATE_SUCCEEDED"
    assert ended["turn"]["blocks"][-1]["llm_text"]["text"] == "Hello there"
    assert as_json("sessions", "show", session_id, target=server_address)["session"]["turn_count"] == 1
    assert as_json("turns", "show", session_id, target=server_address)["turn"]["inference_id"] == inference_id
    assert len(as_json("turns", "list", session_id, target=server_address)["turns"]) == 1
    listed = as_json("sessions", "list", target=server_address)["sessions"]
    assert session_id in [session["session_id"] for session in listed]

    for arguments in (("sessions", "list"), ("sessions", "show", session_id), ("turns", "list", session_id)):
        done = turnwire(*arguments, target=server_address)
        assert done.returncode == 0
        assert session_id in done.stdout or inference_id in done.stdout
    done = turnwire("wait", inference_id, target=server_address)
    assert done.stdout.splitlines()[0] == "Hello there"
    assert "Hello there" in turnwire("turns", "show", session_id, "0", target=server_address).stdout

    assert as_json("sessions", "delete", session_id, target=server_address)["deleted"] is True
    gone = turnwire("sessions", "show", session_id, target=server_address)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "SESSION_NOT_FOUND" in gone.stderr
    assert "sessions list" in gone.stderr


def test_fork_goes_on_from_a_turn(server_address: str) -> None:
    said = turnwire("chat", "--profile", "scripted", stdin="one\ntwo\n", target=server_address)
    session_id = UUID.findall(said.stdout)[-1]
    fork = as_json("sessions", "fork", session_id, "--at", "0", "--name", "a fork", target=server_address)["session"]
    assert fork["origin"] == {"session_id": session_id, "index": 0}
    assert (fork["turn_count"], fork["display_name"]) == (1, "a fork")
    done = turnwire("sessions", "fork", session_id, target=server_address)
    forked, origin = UUID.findall(done.stdout)
    assert (done.stdout, origin) == (f"session {forked} goes on from turn 1 of {session_id}\n", session_id)
    assert f"turn 1 of {session_id}" in turnwire("sessions", "show", forked, target=server_address).stdout
    assert "two" in turnwire("turns", "show", forked, target=server_address).stdout
    missing = turnwire("sessions", "fork", session_id, "--at", "7", "--json", target=server_address)
    assert missing.returncode == 1
    assert "TURN_NOT_FOUND" in missing.stdout + missing.stderr


def test_watch_writes_one_event_per_line(server_address: str) -> None:
    started = as_json("start", "Hello there", "--profile", "scripted", target=server_address)["inference"]
    arguments = ("watch", started["session_id"], "--inference", started["inference_id"], "--until", "inference_end")
    done = turnwire(*arguments, "--json", target=server_address)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert "succeeded" in events[-1]["inference_finished"]
    lines = turnwire(*arguments, target=server_address).stdout.splitlines()
    assert [line.split()[:2] for line in (lines[0], lines[-1])] == [
        ["1", "inference.queued"],
        [str(len(events)), "inference.finished"],
    ]
    assert len(lines) == len(events)
    rest = turnwire(*arguments, "--after", "3", "--json", target=server_address).stdout.splitlines()
    assert rest == done.stdout.splitlines()[3:]


def test_chat_reads_a_pipe_and_continues_the_session(server_address: str) -> None:
    done = turnwire("chat", "--profile", "scripted", stdin="first thing\n\nsecond thing\n", target=server_address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("first thing") < done.stdout.index("second thing")
    session_id = UUID.findall(done.stdout)[-1]
    again = turnwire(
        "chat", "--session", session_id, "--profile", "scripted", "--json", stdin="third\n", target=server_address
    )
    assert all("sequence" in json.loads(line) for line in again.stdout.splitlines())
    assert as_json("sessions", "show", session_id, target=server_address)["session"]["turn_count"] == 3


@pytest.fixture
def client_made_session(server_address: str) -> str:
    """A session with a name, whose session_id is as long as those that the server mints."""

    async def create() -> str:
        async with Client.connect(server_address) as client:
            return (await client.create_session(display_name="a long display name")).session_id

    return asyncio.run(create())


@pytest.fixture(scope="module")
def hanging_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose default profile says a little and then nothing."""
    directory = tmp_path_factory.mktemp("hanging")
    profiles = directory / "profiles.yaml"
    entries = {
        name: {"engine": "scripted", "engine_options": {"script": {"calls": [{"steps": steps}]}}}
        for name, steps in {
            "hanging": [{"text": {"text": "So far so good"}}, {"hang": {}}],
            "stubborn": [{"text": {"text": "So far so good"}}, {"hang": {"ignore_cancel": True}}],
        }.items()
    }
    profiles.write_text(json.dumps({"profiles": entries, "default": "hanging"}))
    with server_on(directory / "turnwire.db", "--profiles", str(profiles), "--drain-grace-seconds", "0") as server:
        yield server.address


def test_cancel_and_the_exit_codes_of_ends(hanging_server: str) -> None:
    started = as_json("start", "Hello", target=hanging_server)["inference"]
    unfinished = turnwire("wait", started["inference_id"], "--timeout", "0", target=hanging_server)
    assert unfinished.returncode == 6
    busy = turnwire("start", "Hello", "--session", started["session_id"], target=hanging_server)
    assert busy.returncode == 1
    assert f"cancel {started['inference_id']}" in busy.stderr
    as_json("cancel", "--session", started["session_id"], "--reason", "enough", target=hanging_server)
    cancelled = turnwire("wait", started["inference_id"], target=hanging_server)
    assert cancelled.returncode == 5
    assert "enough" in cancelled.stderr
    failed = turnwire("start", "Hello", "--timeout", "0.2", "--follow", target=hanging_server)
    assert failed.returncode == 4
    assert "So far so good" in failed.stdout
    assert "DEADLINE_EXCEEDED" in failed.stderr


def test_ctrl_c_stops_the_answer_and_keeps_the_session(hanging_server: str) -> None:
    terminal = Terminal("chat", target=hanging_server)
    assert "at the prompt Ctrl-C or Ctrl-D leaves" in terminal.read_until("> ")
    for _ in range(2):
        terminal.type("Hello\n")
        terminal.read_until("So far so good")
        terminal.interrupt()
        terminal.read_until("CANCELLED")
        terminal.read_until("> ")
    terminal.type("\x04")  # Ctrl-D
    session_id = UUID.findall(terminal.read_all())[0]
    assert terminal.wait() == 0
    session = as_json("sessions", "show", session_id, target=hanging_server)["session"]
    assert session["turn_count"] == 2
    assert "active" not in session


def test_ctrl_c_at_the_prompt_leaves_and_nothing_was_made(hanging_server: str) -> None:
    before = len(as_json("sessions", "list", target=hanging_server)["sessions"])
    terminal = Terminal("chat", target=hanging_server)
    assert "a new session" in terminal.read_until("> ")
    terminal.interrupt_prompt()
    assert "Go on with" not in terminal.read_all()
    assert terminal.wait() == 0
    assert len(as_json("sessions", "list", target=hanging_server)["sessions"]) == before


def test_a_second_ctrl_c_leaves(hanging_server: str) -> None:
    terminal = Terminal("chat", "--profile", "stubborn", target=hanging_server)
    terminal.read_until("> ")
    terminal.type("Hello\n")
    terminal.read_until("So far so good")
    terminal.interrupt()
    terminal.read_until("again leaves")
    terminal.interrupt()
    terminal.read_until("chat --session ")
    assert terminal.wait() == 0


def test_tables_on_80_columns_keep_ids_and_times_whole(hanging_server: str) -> None:
    started = as_json("start", "Hello", target=hanging_server)["inference"]
    session_id, inference_id = started["session_id"], started["inference_id"]
    for command, whole in (
        (("sessions", "list", "--limit", "1"), (session_id, "active")),
        (("turns", "list", session_id), (inference_id, "OPEN")),
    ):
        terminal = Terminal(*command, target=hanging_server, columns=80)
        header, row = terminal.read_all().splitlines()
        assert terminal.wait() == 0
        assert set(whole) <= set(row.split())
        assert command[0] == "turns" or re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", row)
        assert max(len(header), len(row)) <= 80
    as_json("cancel", inference_id, target=hanging_server)


def test_only_the_name_is_cut_and_with_an_ellipsis(server_address: str, client_made_session: str) -> None:
    terminal = Terminal("sessions", "list", target=server_address, columns=80)
    row = next(line for line in terminal.read_all().splitlines() if line.startswith(client_made_session))
    assert terminal.wait() == 0
    assert re.search(r"  a lo\w*\u2026$|  a long \w*\u2026$", row)
    assert len(row) == 80
    assert "a long display name" in turnwire("sessions", "list", target=server_address).stdout


def test_ctrl_c_ends_a_watch_and_tells_where_to_go_on(hanging_server: str) -> None:
    started = as_json("start", "Hello", target=hanging_server)["inference"]
    terminal = Terminal("watch", started["session_id"], target=hanging_server)
    terminal.read_until("So far so good")
    terminal.interrupt()
    assert started["session_id"] in terminal.read_until("--log")
    assert terminal.wait() == 130


def test_ctrl_c_of_a_watch_in_json_has_the_cursor(hanging_server: str) -> None:
    started = as_json("start", "Hello", target=hanging_server)["inference"]
    terminal = Terminal("watch", started["session_id"], "--json", target=hanging_server)
    terminal.read_until("So far so good")
    terminal.read_until("\n")
    terminal.interrupt()
    error = json.loads(terminal.read_all().splitlines()[-1])["error"]
    assert (error["code"], error["metadata"].keys()) == ("CANCELLED", {"after_sequence", "log"})
    assert terminal.wait() == 130


def test_what_is_wrong_is_told_with_what_to_do() -> None:
    nobody = turnwire("sessions", "list", "--target", "127.0.0.1:1")
    assert nobody.returncode == 3
    assert "serve" in nobody.stderr
    assert "--target" in nobody.stderr
    assert turnwire("watch").returncode == 2
    assert turnwire("watch", "s", "--until", "inference_end").returncode == 2
    assert turnwire("cancel").returncode == 2


def test_every_command_has_help_and_json() -> None:
    commands = [["start"], ["chat"], ["watch"], ["wait"], ["cancel"], ["answer"], ["engines"], ["demo"]]
    commands += [
        ["sessions", "list"],
        ["sessions", "show"],
        ["sessions", "fork"],
        ["sessions", "delete"],
        ["turns", "list"],
        ["turns", "show"],
        ["turns", "snapshots"],
        ["steps", "on"],
        ["steps", "off"],
        ["steps", "list"],
        ["steps", "release"],
        ["profiles", "list"],
        ["profiles", "show"],
    ]
    for command in commands:
        done = turnwire(*command, "--help")
        assert done.returncode == 0
        assert "--json" in done.stdout
    assert "--store" in turnwire("serve", "--help").stdout


def test_demo_and_the_commands_it_prints(tmp_path: Path) -> None:
    done = turnwire("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    for words in ("They ask about resuming", "each event once, in order", "SUCCEEDED", "29 reasoning"):
        assert words in done.stdout
    commands = [line.strip() for line in done.stdout.splitlines() if "turnwire_client.cli" in line]
    assert len(commands) == 4
    assert commands[0].endswith("serve --store .turnwire-demo/turnwire.db")
    with server_on(tmp_path / ".turnwire-demo" / "turnwire.db") as server:
        environment = {**os.environ, "TURNWIRE_TARGET": server.address}
        for command in commands[1:]:
            again = subprocess.run(
                shlex.split(command),
                cwd=tmp_path,
                env=environment,
                input="Thank you\n",
                capture_output=True,
                text=True,
                check=True,
            )
            assert "each event once" in again.stdout or "Thank you" in again.stdout


def test_demo_in_json(tmp_path: Path) -> None:
    done = turnwire("demo", "--dir", str(tmp_path / "here"), "--json")
    assert done.returncode == 0, done.stderr
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert last["inference"]["state"] == "INFERENCE_STATE_SUCCEEDED"
    assert len(last["commands"]) == 4
