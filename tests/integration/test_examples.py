"""Every example, run as its first lines say, against a real server."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.command_line import as_json, turnwire
from support.server import ServerProcess, server_on

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(path: str, target: str, **environment: str) -> str:
    """What an example writes."""
    paths = os.pathsep.join(str(ROOT / part) for part in ("client", "gen/python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / path)],
        env={**os.environ, "PYTHONPATH": paths, "TURNWIRE_TARGET": target, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def command_of(path: str) -> tuple[str, list[str]]:
    """The PYTHONPATH and the profile files of the `turnwire serve` in the comment of a file."""
    text = (EXAMPLES / path).read_text(encoding="utf-8")
    found = re.search(r"^# +(?:PYTHONPATH=(\S+) )?turnwire serve --profiles (\S+)$", text, re.MULTILINE)
    assert found, path
    return found[1] or "", found[2].split(",")


def serve(servers: ExitStack, path: str, store: Path) -> ServerProcess:
    """A server as the comment of a profile file says, in no environment that has keys."""
    modules, files = command_of(path)
    known = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join([str(ROOT / modules), *([known] if known else [])])
    profiles = [argument for file in files for argument in ("--profiles", str(ROOT / file))]
    server = server_on(store / "turnwire.db", *profiles, environment={"PYTHONPATH": paths, "OPENAI_API_KEY": ""})
    return servers.enter_context(server)


def test_the_tool_agent(servers: ExitStack, tmp_path: Path) -> None:
    server = serve(servers, "tool_agent/profiles.yaml", tmp_path)
    lines = run("tool_agent/client.py", server.address).splitlines()
    assert lines[:3] == [
        "Let me look at the weather. ",
        '[get_weather {"city": "Lisbon"}]',
        '[get_weather {"city": "Oslo", "days": 2}]',
    ]
    assert set(lines[3:5]) == {  # side by side: either may be the first
        '[call_1: [{"celsius":17,"rain":false}]]',
        '[call_2: [{"celsius":-1,"rain":false},{"celsius":-3,"rain":true}]]',
    }
    assert lines[5:9] == [
        "",
        '[packing_list {"coldest_celsius": -3, "rain": true}]',
        '[call_3: ["coat","boots","umbrella"]]',
        "Lisbon is mild, Oslo is freezing: take a coat, boots and an umbrella.",
    ]
    assert re.fullmatch(r"\[\d+ tokens in, \d+ out\]", lines[9])


def test_the_approval_flow_with_a_restart_while_it_waits(servers: ExitStack, tmp_path: Path) -> None:
    server = serve(servers, "approval_flow/profiles.yaml", tmp_path)
    expected = [
        "approved: send_mail to ana@example.com",
        "denied:   send_mail to everyone@elsewhere.net",
        "I wrote to Ana. The other mail was not approved.",
    ]
    assert run("approval_flow/client.py", server.address).splitlines() == expected

    started = as_json("start", "Send it.", target=server.address)["inference"]
    as_json("wait", started["inference_id"], target=server.address, code=7)
    server.kill()
    server = serve(servers, "approval_flow/profiles.yaml", tmp_path)
    ids = {"TURNWIRE_INFERENCE": started["inference_id"], "TURNWIRE_SESSION": started["session_id"]}
    assert run("approval_flow/client.py", server.address, **ids).splitlines() == expected
    turn = as_json("turns", "show", started["session_id"], target=server.address)["turn"]
    uses = [block["tool_use"] for block in turn["blocks"] if "tool_use" in block]
    by_call = {use["tool_call"]: use.get("result") or use["error"]["message"] for use in uses}
    assert by_call == {"call_1": '"sent 48 characters to ana@example.com"', "call_2": "only to example.com"}


def test_the_structured_extraction(servers: ExitStack, tmp_path: Path) -> None:
    server = serve(servers, "structured_extraction/profiles.yaml", tmp_path)
    repaired, *lines = run("structured_extraction/client.py", server.address).splitlines()
    assert repaired.startswith("repaired: ")
    assert "a lot" in repaired
    assert lines == ["2026-117: 129.00 for 3 chairs"]


def test_two_of_several_profiles(servers: ExitStack, tmp_path: Path) -> None:
    server = serve(servers, "without_keys.yaml", tmp_path)
    listed, *told = run("two_profiles.py", server.address).split("\n\n")
    assert [line.split()[0] for line in listed.splitlines()] == ["careful", "echo", "fast", "local"]
    assert listed.splitlines()[0].endswith("(base -> base -> careful)")
    assert told == [
        "fast: gpt-5-mini, low effort\nWhat is a monad?",
        "careful: gpt-5, high effort\nWhat is a monad?",
        "A request may not change the model of careful.\n",
    ]


def test_the_quickstart(server_address: str) -> None:
    lines = run("quickstart.py", server_address).splitlines()
    assert lines[:2] == ["> Why is the sky blue?", "Why is the sky blue?"]
    assert re.match(r"Everything is kept in session \S+\.$", lines[-1])


def test_the_tests_with_the_fake_pass() -> None:
    paths = os.pathsep.join(str(ROOT / part) for part in ("client", "gen/python"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", "-c", os.devnull]
    done = subprocess.run(
        [*command, str(EXAMPLES / "test_with_fake.py")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def commands() -> Sequence[str]:
    """Every other command in the comments of the examples."""
    found: list[str] = []
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        lines = re.findall(r"^#     (turnwire (?!serve).*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        found += [line.split("#")[0].strip() for line in lines]
    return found


@pytest.mark.parametrize("command", commands())
def test_the_commands_in_comments_are_right(command: str) -> None:
    """They are commands that exist; what they do is tested elsewhere."""
    words = [word for word in command.split()[1:] if not word.startswith("-")]
    assert turnwire(*words[: 2 if words[0] in {"profiles", "turns"} else 1], "--help").returncode == 0
