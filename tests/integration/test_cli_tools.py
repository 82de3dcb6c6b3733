"""Tool calls, approvals and pauses on the command line: asked of a person at a terminal, and answered by programs."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.agent_world import call, say
from support.command_line import Terminal, as_json, turnwire
from support.server import server_on

TOOLS = '''
from turnwire_server.tools.function import ToolFailure, tool

@tool(approval_required=True)
async def send_mail(to: str) -> str:
    """Send a mail."""
    if to == "nobody":
        raise ToolFailure("no such address", "bounced")
    return f"sent to {to}"

@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b
'''

SEND, LOOK = call("send_mail", to="me"), call("look", q=1)
SCRIPTS = {
    "mail": ([say("Let me write. "), SEND], [say("Written.")]),
    "bounce": ([call("send_mail", to="nobody")], [say("Not written.")]),
    "mails": ([SEND, call("send_mail", to="you")], [call("send_mail", to="all")], [say("All written.")]),
    "look": ([LOOK, call("peek")], [say("Seen.")]),
    "both": ([SEND, LOOK], [say("Both.")]),
    "add": ([call("add", a=1, b=2)], [say("It is three.")]),
    "form": ([say("no JSON")], [say("{}")]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("tools")
    (directory / "post_office.py").write_text(TOOLS)
    profiles = {
        name: {
            "engine": "scripted",
            "tools": [{"python": "post_office"}],
            "engine_options": {"script": {"calls": [{"steps": list(steps)} for steps in calls]}},
        }
        for name, calls in SCRIPTS.items()
    }
    (directory / "profiles.json").write_text(json.dumps({"default": "mail", "profiles": profiles}))
    path = os.pathsep.join([str(directory), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    arguments = ("--profiles", str(directory / "profiles.json"), "--drain-grace-seconds", "0")
    with server_on(directory / "turnwire.db", *arguments, environment={"PYTHONPATH": path}) as started:
        yield started.address


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A file of tools of the client."""
    path = tmp_path / "tools.json"
    schema = {"type": "object", "properties": {"q": {"type": "integer"}}}
    path.write_text(json.dumps([{"name": "look", "input_schema": schema}, {"name": "peek", "approvalRequired": True}]))
    return str(path)


def chat(server: str, *arguments: str, say: str = "Hello") -> Terminal:
    """A chat in which something was said."""
    terminal = Terminal("chat", *arguments, target=server)
    terminal.read_until("> ")
    terminal.type(f"{say}\n")
    return terminal


def leave(terminal: Terminal) -> None:
    """Ends a chat at its prompt."""
    terminal.read_until("> ")
    terminal.type("\x04")  # Ctrl-D
    terminal.read_all()
    assert terminal.wait() == 0


def uses(session_id: str, server: str) -> list[tuple[str, str]]:
    """What came of each tool call of the newest turn: its id, and the result or the code of the error."""
    turn = as_json("turns", "show", session_id, target=server)["turn"]
    found = [block["tool_use"] for block in turn["blocks"] if "tool_use" in block]
    return [(use["tool_call"], use.get("result") or use["error"]["code"]) for use in found]


def newest_session(server: str) -> str:
    found: str = as_json("sessions", "list", "--limit", "1", target=server)["sessions"][0]["session_id"]
    return found


# --- a person at a terminal -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "outcome", "shown"),
    [
        (["y"], '"sent to me"', 'send_mail -> "sent to me"'),
        (["what?", "", "Yes"], '"sent to me"', 'send_mail -> "sent to me"'),
        (["n", "not to me"], "denied", "send_mail -> denied: not to me"),
        (["e", "to you", "[]", '{"to": "you"}'], '"sent to you"', 'send_mail -> "sent to you"'),
        (["e", ""], '"sent to me"', 'send_mail -> "sent to me"'),
    ],
    ids=["yes", "asked again", "no", "edited", "edited to nothing"],
)
def test_a_person_decides_about_a_call(server: str, answers: Sequence[str], outcome: str, shown: str) -> None:
    terminal = chat(server)
    assert "Let me write." in terminal.read_until('[send_mail({"to": "me"})]')
    for answer in answers:
        terminal.read_until("?") if answer == "not to me" else terminal.read_until(": ")
        terminal.type(f"{answer}\n")
    assert shown in terminal.read_until("Written.")
    leave(terminal)
    assert uses(newest_session(server), server) == [("call_1", outcome)]


def test_a_tool_that_fails_is_shown_and_the_model_goes_on(server: str) -> None:
    terminal = chat(server, "--profile", "bounce")
    terminal.read_until("approve?")
    terminal.type("y\n")
    assert "send_mail -> bounced: no such address" in terminal.read_until("Not written.")
    leave(terminal)


def test_all_calls_of_a_tool_are_approved_for_the_rest_of_the_chat(server: str) -> None:
    terminal = chat(server, "--profile", "mails")
    terminal.read_until("approve?")
    terminal.type("a\n")
    assert "approve?" not in terminal.read_until("All written.")
    terminal.read_until("> ")
    terminal.type("again\n")
    assert "approve?" not in terminal.read_until("All written.")
    leave(terminal)
    assert len(uses(newest_session(server), server)) == 6


def test_a_person_executes_what_another_program_has_offered(server: str, tools: str) -> None:
    started = as_json("start", "Hello", "--profile", "look", "--tools", tools, target=server)["inference"]
    terminal = Terminal("chat", "--session", started["session_id"], target=server)
    terminal.read_until("peek({})")
    terminal.read_until("approve?")
    terminal.type("y\n")
    terminal.read_until('look({"q": 1}) is yours')
    terminal.read_until("went wrong: ")
    terminal.type("blue\n")  # not JSON
    terminal.read_until("not the JSON")
    terminal.read_until("went wrong: ")
    terminal.type('{"colour": "blue"}\n')
    terminal.read_until("peek({}) is yours")
    terminal.read_until("went wrong: ")
    terminal.type("! too dark\n")
    terminal.read_until("Seen.")
    leave(terminal)
    assert uses(started["session_id"], server) == [("call_1", '{"colour": "blue"}'), ("call_2", "failed")]


def test_ctrl_c_at_a_question_stops_the_answer_and_keeps_the_session(server: str) -> None:
    terminal = chat(server)
    terminal.read_until("this tool: ")
    terminal.interrupt_prompt()
    terminal.read_until("CANCELLED")
    terminal.read_until("> ")
    terminal.type("again\n")
    terminal.read_until("approve?")
    terminal.type("y\n")
    terminal.read_until("Written.")
    leave(terminal)


def test_ctrl_d_at_a_question_leaves_and_the_next_chat_asks_again(server: str) -> None:
    terminal = chat(server)
    terminal.read_until("approve?")
    terminal.type("\x04")
    assert "chat --session" in terminal.read_all()
    assert terminal.wait() == 0
    session_id = newest_session(server)
    terminal = Terminal("chat", "--session", session_id, target=server)
    assert "Let me write." in terminal.read_until("approve?")
    terminal.type("y\n")
    terminal.read_until("Written.")
    leave(terminal)
    assert uses(session_id, server) == [("call_1", '"sent to me"')]


def test_somebody_else_answers_while_a_person_is_asked(server: str) -> None:
    terminal = chat(server, "--profile", "mails")
    terminal.read_until("approve?")
    [session] = as_json("sessions", "list", "--limit", "1", target=server)["sessions"]
    inference_id = session["active"]["inference_id"]
    pending = as_json("answer", inference_id, "--deny", "call_1=quicker", target=server)["pending_tool_calls"]
    assert pending == ["call_2"]
    terminal.type("y\n")
    terminal.read_until("approve?")
    terminal.type("y\n")
    assert 'send_mail -> "sent to you"' in terminal.read_until("approve?")
    terminal.type("n\n\n")
    terminal.read_until("All written.")
    leave(terminal)
    expected = [("call_1", "denied"), ("call_2", '"sent to you"'), ("call_3", "denied")]
    assert uses(session["session_id"], server) == expected


def test_a_person_steps_through_an_inference(server: str) -> None:
    terminal = chat(server, "--profile", "add")
    terminal.read_until("It is three.")
    leave(terminal)
    session_id = newest_session(server)
    assert turnwire("steps", "on", session_id, target=server).stdout == f"step mode is on in {session_id}\n"
    assert "step mode" in turnwire("sessions", "show", session_id, target=server).stdout
    terminal = chat(server, "--session", session_id, "--profile", "add")
    for phase in (
        "paused after engine call 1; it asks for add",
        "paused after the tools",
        "paused after engine call 2",
    ):
        terminal.read_until(phase)
        terminal.read_until("[a]bort? ")
        terminal.type("s\n")
    terminal.read_until("SUCCEEDED")
    terminal.read_until("> ")
    terminal.type("again\n")
    terminal.read_until("[a]bort? ")
    terminal.type("c\n")
    assert "[a]bort?" not in terminal.read_until("SUCCEEDED")
    terminal.read_until("> ")
    terminal.type("and again\n")
    terminal.read_until("[a]bort? ")
    terminal.type("a\n")
    terminal.read_until("STEP_ABORTED")
    leave(terminal)


# --- a pipe, and programs -----------------------------------------------------------------------------


def test_a_pipe_is_not_asked(server: str) -> None:
    done = turnwire("chat", stdin="Hello\nand more\n", target=server)
    assert done.returncode == 7
    assert done.stdout == 'Let me write. \n\n[send_mail({"to": "me"})]\n'
    inference_id = as_json("sessions", "list", "--limit", "1", target=server)["sessions"][0]["active"]["inference_id"]
    assert done.stderr.splitlines()[:2] == ["WAITING_FOR_TOOLS", 'approval  call_1  send_mail({"to": "me"})']
    assert f"answer {inference_id} --approve call_1\n" in done.stderr
    assert f"wait {inference_id}\n" in done.stderr


@pytest.mark.parametrize(("approve", "outcome"), [("all", "sent to me"), ("none", "denied: the call was not approved")])
def test_a_pipe_may_say_beforehand(server: str, approve: str, outcome: str) -> None:
    done = turnwire("chat", "--approve", approve, stdin="Hello\n", target=server)
    assert (done.returncode, outcome in done.stdout, "Written." in done.stdout) == (0, True, True), done
    done = turnwire("chat", "--approve", approve, "--json", stdin="Hello\n", target=server)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inference_finished" in json.loads(done.stdout.splitlines()[-1])


def test_a_program_is_told_what_is_required(server: str, tools: str) -> None:
    start = ("start", "Hello", "--profile", "both", "--tools", tools, "--follow")
    done = turnwire(*start, "--json", target=server)
    assert done.returncode == 7
    *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert "tools_required" in events[-1]
    assert last["inference"]["state"] == "INFERENCE_STATE_WAITING_FOR_TOOLS"
    assert last["required"] == {
        "calls": [{"id": "call_2", "name": "look", "args": '{"q": 1}'}],
        "approvals": [{"id": "call_1", "name": "send_mail", "args": '{"to": "me"}'}],
    }
    inference_id = last["inference"]["inference_id"]
    error = {
        "reason": "",
        "code": "FAILED_PRECONDITION",
        "message": "the inference is WAITING_FOR_TOOLS",
        "metadata": {"inference_id": inference_id, "state": "WAITING_FOR_TOOLS"},
    }
    assert json.loads(done.stderr) == {"error": error}
    assert as_json("wait", inference_id, target=server, code=7) == last

    told = turnwire("wait", inference_id, target=server)
    assert (told.returncode, told.stdout) == (7, "")
    command = re.search(r"answer \S+ --approve call_1 --result call_2=JSON", told.stderr)
    assert command, told.stderr
    first = as_json("answer", inference_id, "--result", 'call_2={"found": true}', target=server)
    assert first["pending_tool_calls"] == ["call_1"]
    assert as_json("wait", inference_id, target=server, code=7)["required"]["calls"] == []
    second = turnwire("answer", inference_id, "--approve", 'call_1={"to": "you"}', target=server)
    assert second.returncode == 0
    assert f"wait {inference_id}" in second.stderr
    assert turnwire("wait", inference_id, target=server).stdout == "Both.\n"
    expected = [("call_1", '"sent to you"'), ("call_2", '{"found": true}')]
    assert sorted(uses(last["inference"]["session_id"], server)) == expected


def test_answers_that_do_not_fit_are_refused_as_a_whole(server: str, tools: str) -> None:
    start = ("start", "Hello", "--profile", "both", "--tools", tools)
    inference_id = as_json(*start, target=server)["inference"]["inference_id"]
    as_json("wait", inference_id, target=server, code=7)
    refused = turnwire("answer", inference_id, "--approve", "call_1", "--error", "call_9=no", target=server)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "TOOL_CALL_NOT_PENDING" in refused.stderr
    assert f"wait {inference_id}" in refused.stderr
    done = as_json("answer", inference_id, "--deny", "call_1", "--error", "call_2=too dark", target=server)
    assert done["pending_tool_calls"] == []
    assert turnwire("wait", inference_id, target=server).stdout == "Both.\n"
    late = turnwire("answer", inference_id, "--deny", "call_1", target=server)
    assert (late.returncode, "INFERENCE_NOT_WAITING" in late.stderr) == (1, True)


def test_steps_and_snapshots_by_command(server: str) -> None:
    session_id = as_json("start", "Hello", "--profile", "add", target=server)["inference"]["session_id"]
    turnwire("wait", as_json("turns", "list", session_id, target=server)["turns"][0]["inference_id"], target=server)
    on = ("steps", "on", session_id, "--deadline", "600", "--deadline-action", "abort")
    assert as_json(*on, target=server) == {"session_id": session_id, "step_mode": True}
    start = ("start", "Hello", "--session", session_id, "--profile", "add", "--record-snapshots", "--follow")
    told = turnwire(*start, target=server)
    assert told.returncode == 7
    assert told.stdout == '[add({"a": 1, "b": 2})]\n'
    assert "steps release" in told.stderr
    [pause] = as_json("steps", "list", "--session", session_id, target=server)["pauses"]
    assert pause["phase"] == "after_inference"
    assert pause["deadline_action"] == "PAUSE_ACTION_ABORT"
    row = turnwire("steps", "list", target=server).stdout.splitlines()[1]
    assert row.startswith(pause["id"])
    assert row.endswith("after_inference  after engine call 1; it asks for add")
    inference_id = pause["inference_id"]
    waiting = as_json("wait", inference_id, target=server, code=7)
    assert waiting["pause"] == pause
    assert turnwire("steps", "release", pause["id"], "step", target=server).returncode == 0
    assert as_json("wait", inference_id, target=server, code=7)["pause"]["phase"] == "after_tools"
    gone = turnwire("steps", "release", pause["id"], target=server)
    assert (gone.returncode, "PAUSE_NOT_FOUND" in gone.stderr, "steps list" in gone.stderr) == (1, True, True)
    as_json("steps", "off", session_id, target=server)
    assert turnwire("wait", inference_id, target=server).stdout == "It is three.\n"
    assert as_json("steps", "list", "--session", session_id, target=server) == {"pauses": []}

    snapshots = as_json("turns", "snapshots", inference_id, target=server)["snapshots"]
    phases = ["PRE_INFERENCE", "POST_INFERENCE", "POST_TOOLS", "PRE_INFERENCE", "POST_INFERENCE"]
    assert [each["phase"].removeprefix("SNAPSHOT_PHASE_") for each in snapshots][:5] == phases
    shown = turnwire("turns", "snapshots", inference_id, "--phase", "post_tools", target=server).stdout.splitlines()
    assert len(shown) == 2
    assert shown[1].split()[:2] == ["1", "post_tools"]
    assert shown[1].endswith("tool_use 3")


def test_an_answer_that_misses_its_schema_is_shown_to_be_sent_back(server: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "object"}')
    start: tuple[Any, ...] = ("start", "Hello", "--profile", "form", "--output-schema", str(path))
    done = turnwire(*start, "--follow", target=server)
    assert done.returncode == 0
    assert re.search(r"no JSON\n\n\[OUTPUT_INVALID: .*\]\n\n\{\}\n$", done.stdout), done.stdout
    inference_id = as_json(*start, target=server)["inference"]["inference_id"]
    assert turnwire("wait", inference_id, target=server).stdout == "{}\n"
    path.write_text("{")
    wrong = turnwire(*start, target=server)
    assert (wrong.returncode, "is not JSON" in wrong.stderr) == (2, True)
    assert turnwire("start", "Hello", "--tools", str(tmp_path / "none"), target=server).returncode == 2
