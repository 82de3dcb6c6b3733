"""The README's own text, run: buf curl against a real server, with no code of ours on the client's side."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import ServerProcess, server_on
from turnwire_server.bootstrap import installed_engines
from turnwire_server.config.profile_file import ParametersEntry, ProfileEntry, ToolPolicyEntry
from turnwire_server.config.profiles import load_profiles

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADING = "## From any other language"


def _section(heading: str) -> str:
    return README.split(heading, 1)[1].split("\n## ", 1)[0]


def _block(text: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} block"
    return found[1]


def _documents(text: str) -> list[dict[str, object]]:
    """Return the JSON documents that buf curl has printed one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        while text[position].isspace():
            position += 1
        document, position = decoder.raw_decode(text, position)
        found.append(document)
    return found


TURNWIRE = re.compile(r"^(?:\.venv/bin/)?turnwire .*$", re.MULTILINE)


def _ten_lines() -> dict[str, list[str]]:
    """Every `turnwire` line of the section's blocks, by its command, as arguments of a process."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", _section("## Ten lines"), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True)[1:] for block in blocks for line in TURNWIRE.findall(block)]
    return {arguments[0]: [sys.executable, "-m", "turnwire_client.cli", *arguments] for arguments in lines}


def test_the_ten_lines_run(tmp_path: Path) -> None:
    commands = _ten_lines()
    assert list(commands) == ["serve", "start", "chat"]
    own = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    server = subprocess.Popen(
        commands.pop("serve"),
        cwd=tmp_path,
        env={**own, "TURNWIRE_LISTEN": "127.0.0.1:0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening on ").strip()
        for command in commands.values():
            done = subprocess.run(
                command,
                cwd=tmp_path,
                env={**own, "TURNWIRE_TARGET": address},
                input="Hello there\n",  # what is said to chat
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("Hello there\n")
            assert "SUCCEEDED" in done.stderr
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert (tmp_path / "turnwire.db").exists()


@pytest.mark.parametrize("time", ["first", "again"])
def test_buf_curl_as_the_readme_shows_it(server_process: ServerProcess, tmp_path: Path, time: str) -> None:
    """Twice on one store: nothing in it works only once."""
    script = _block(_section(HEADING), "sh")
    assert "127.0.0.1:7450" in script
    for rpc in ("StartInference", "SubscribeEvents", "Cancel", "Wait"):
        assert f"$SERVER/{rpc}" in script
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:7450", server_process.address)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    started, *stream, waited, hanging, cancelled = _documents(done.stdout)
    assert started["created"] is True
    events = [event for response in stream for event in response.get("events", [])]  # type: ignore[attr-defined]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert "inferenceFinished" in events[-1]
    assert stream[-1]["end"] == {"reason": "SUBSCRIPTION_END_REASON_INFERENCE_FINISHED"}
    assert waited["inference"]["state"] == "INFERENCE_STATE_SUCCEEDED"  # type: ignore[index]
    assert waited["turn"]["blocks"][-1]["llmText"]["text"] == "Hello from curl"  # type: ignore[index]
    assert hanging["created"] is True
    assert cancelled["inference"]["cancelReason"] == "enough"  # type: ignore[index]


def test_the_python_example_runs(server_process: ServerProcess, tmp_path: Path) -> None:
    example = _block(README, "python").replace("127.0.0.1:7450", server_process.address)
    paths = os.pathsep.join(str(ROOT / part) for part in ("client", "gen/python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Hello there\nHello there\n"


LOOP = "## Tools, approvals, structured output, steps"


def test_the_commands_about_tools_and_steps_as_the_readme_shows_them(tmp_path: Path) -> None:
    served = re.search(r"`PYTHONPATH=(\S+) turnwire serve --profiles (\S+)`", _section(LOOP))
    assert served
    blocks = re.findall(r"^```sh\n(.*?)^```$", _section(LOOP), re.MULTILINE | re.DOTALL)
    known = os.environ.get("PYTHONPATH", "")
    paths = os.pathsep.join([str(ROOT / served[1]), *([known] if known else [])])
    outcomes: list[subprocess.CompletedProcess[str]] = []
    arguments = ("--profiles", str(ROOT / served[2]))
    with server_on(tmp_path / "turnwire.db", *arguments, environment={"PYTHONPATH": paths}) as server:
        for block in blocks:
            command = f'turnwire() {{ {sys.executable} -m turnwire_client.cli "$@"; }}\n{block}'
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                env={**os.environ, "TURNWIRE_TARGET": server.address},
                input="Hello\n",  # what is said to chat
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            outcomes.append(done)
    tools, steps = outcomes
    assert "answer" in tools.stderr
    assert tools.stdout.count("I wrote to Ana. The other mail was not approved.") == 2
    assert tools.stdout.count("denied: the call was not approved") == 2  # both, in the chat
    assert "step mode is on" in steps.stdout
    assert "steps release" in steps.stderr
    phases = [line.split()[1] for line in steps.stdout.split("NEWEST BLOCK\n")[1].splitlines()]
    assert phases[:2] == ["pre_inference", "post_inference"]


def test_the_python_example_with_tools_runs(tmp_path: Path) -> None:
    calls = [
        [{"toolCall": {"name": "get_weather", "args": '{"city": "Oslo"}'}}],
        [{"text": {"text": "cold"}}],  # which misses the schema
        [{"text": {"text": '{"celsius": -3}'}}],
    ]
    options = {"script": {"calls": [{"steps": steps} for steps in calls]}}
    profiles = tmp_path / "profiles.json"
    profiles.write_text(
        json.dumps({"default": "a", "profiles": {"a": {"engine": "scripted", "engine_options": options}}})
    )
    with server_on(tmp_path / "turnwire.db", "--profiles", str(profiles)) as server:
        example = _block(_section(LOOP), "python").replace("127.0.0.1:7450", server.address)
        paths = os.pathsep.join(str(ROOT / part) for part in ("client", "gen/python"))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", example],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "-3\n"), done.stderr


def test_what_is_said_about_betterproto_is_what_the_contract_tests_know() -> None:
    known = (ROOT / "tests/contract/test_betterproto.py").read_text(encoding="utf-8")
    assert known.count("betterproto2 0.10 writes a FieldMask") == 1
    assert "betterproto2 0.10 writes a FieldMask" in _section(HEADING)


def test_the_path_that_buf_is_found_on() -> None:
    text = " ".join(_section(HEADING).split())
    assert "`make setup && export PATH=$PWD/.venv/bin:$PATH`" in text


def test_the_profile_files_do_what_is_said_of_them(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    paths = [tmp_path / f"{number}.yaml" for number in range(len(blocks))]
    for path, block in zip(paths, blocks, strict=True):
        path.write_text(block, encoding="utf-8")
    shared, both = (load_profiles([str(path) for path in some], {}, installed_engines()) for some in (paths[:1], paths))
    assert set(shared.by_name) == set(both.by_name) == {"assistant", "local"}
    assistant, local = both.get(""), both.get("local")
    assert (assistant.config.reasoning_effort, assistant.config.max_output_tokens) == ("low", 2000)
    assert [use.name for use in assistant.middleware] == ["tool_result_reorder", "log_calls", "system_prompt"]
    assert [source.kind for source in assistant.tools] == ["python", "mcp"]
    assert "base_url" not in shared.get("").engine_options
    assert assistant.engine_options["base_url"] == "https://proxy.example/v1"
    assert local.engine_options == {"dialect": "openai-chat", "base_url": "http://127.0.0.1:8080/v1"}
    assert not local.capabilities.images


def test_every_field_of_a_profile_is_listed() -> None:
    table = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| `.*$", _section("## Profiles"), re.MULTILINE))))
    models = (ProfileEntry, ParametersEntry, ToolPolicyEntry)
    assert {name for model in models for name in model.model_fields} <= table


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`?\bmake ([a-z-]+)\b", text)) - {"sure"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert named
    assert named <= there, f"not in the Makefile: {named - there}"
