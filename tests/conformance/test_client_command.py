"""The command line of client conformance: what it runs, what it tells, and what its exit code means."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from turnwire_client.cli._app import app
from turnwire_conformance.client.case_file import load_cases
from turnwire_conformance.client.runner import NEEDED

PYTHON_SDK = [sys.executable, str(Path(__file__).resolve().parent / "adapters" / "python_sdk.py")]
ONE = ["--case", "listing/sessions"]

ADAPTERS = {
    "ends": "",
    "is silent": "import time; time.sleep(60)",
    "talks": "import sys\nfor _ in sys.stdin: print('hello', flush=True)",
    "has another contract": "import sys\nfor _ in sys.stdin: print('{\"hello\": 1}', flush=True)",
    "says nothing of what it did": "import sys\nfor _ in sys.stdin: print('{}', flush=True)",
}
COMPLAINTS = {
    "ends": "connect: ",
    "is silent": "no answer to connect within 4 s",
    "talks": "Failed to load JSON",
    "has another contract": 'no field named "hello"',
    "says nothing of what it did": "ListSessions was called 0 times",
}

# Cannot do what it is not told to be able to.
LACKING = """\
import json, sys
for line in sys.stdin:
    lacked = json.loads(line).keys() & set(sys.argv[1:])
    print('{"unsupported": "not yet"}' if lacked else "{}", flush=True)
"""


def told(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["client-conformance", *arguments])


def adapter(folder: Path, code: str, *arguments: str) -> list[str]:
    script = folder / "adapter.py"
    script.write_text(code)
    return ["--", sys.executable, str(script), *arguments]


def listed(folder: Path, lines: str) -> list[str]:
    known = folder / "known.txt"
    known.write_text(lines)
    return ["--known-failing", str(known)]


def test_the_cases_are_listed_with_what_they_prove() -> None:
    lines = told("--list").output.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [case.full_name for case in load_cases()]
    some = json.loads(told("--list", "--json", "--topic", "tools", "--topic", "wait", "--case", "is lost").output)
    assert [case["case"] for case in some["cases"]] == [
        "tools/the reply to answers is lost",
        "wait/the reply to a cancel is lost",
    ]
    assert all(case["cites"] for case in some["cases"])


def test_what_passes_is_told_in_each_form(tmp_path: Path) -> None:
    done = told(*ONE, "--junit", str(tmp_path / "told.xml"), "--", *PYTHON_SDK)
    assert (done.exit_code, "1 cases: 1 passed" in done.output) == (0, True)
    suite = ET.parse(tmp_path / "told.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("client-conformance", "1", "0")
    done = told(*ONE, "--json", "--", *PYTHON_SDK)
    assert (done.exit_code, json.loads(done.output)["counts"]) == (0, {"passed": 1})


@pytest.mark.parametrize("how", ADAPTERS)
def test_an_adapter_that_is_none_fails(how: str, tmp_path: Path) -> None:
    done = told(*ONE, "--timeout", "4", *adapter(tmp_path, ADAPTERS[how]))
    assert done.exit_code == 1
    assert COMPLAINTS[how] in done.output


def test_what_an_sdk_lacks_is_a_failure_unless_it_is_listed(tmp_path: Path) -> None:
    lacking = adapter(tmp_path, LACKING, "list")
    done = told(*ONE, *lacking)
    assert done.exit_code == 1
    assert "failed: listing/sessions\n    list is unsupported: not yet\n    list the case" in done.output
    done = told(*ONE, *listed(tmp_path, "listing/sessions  it has no listings\n"), *lacking)
    assert "skipped: listing/sessions\n    it has no listings\n    list is unsupported: not yet" in done.output
    assert done.exit_code == 1, "nothing was proved"


def test_what_is_listed_as_lacking_is_no_failure_beside_what_passes(tmp_path: Path) -> None:
    without_listings = f"""\
import json, subprocess, sys
sdk = subprocess.Popen({PYTHON_SDK!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
for line in sys.stdin:
    if "list" in json.loads(line):
        print('{{"unsupported": "not yet"}}', flush=True)
    else:
        sdk.stdin.write(line)
        print(sdk.stdout.readline(), end="", flush=True)
sdk.stdin.close()
sdk.wait()
"""
    two = [*ONE, "--case", "tools/answers are sent once"]
    known = listed(tmp_path, "listing/sessions  it has no listings\n")
    done = told(*two, *known, *adapter(tmp_path, without_listings))
    assert (done.exit_code, "2 cases: 1 passed, 1 skipped" in done.output) == (0, True), done.output


@pytest.mark.parametrize("command", sorted(NEEDED))
def test_what_every_sdk_has_to_be_able_to_do_cannot_be_lacked(command: str, tmp_path: Path) -> None:
    case = "wait/a result that is there" if command in ("start", "result") else "promises/a response comes twice"
    done = told("--case", case, *adapter(tmp_path, LACKING, command))
    assert done.exit_code == 1
    assert f"failed: {case}" in done.output
    assert f"{command} is what every SDK has to be able to do, and is unsupported: not yet" in done.output


def test_a_known_failure_is_none_until_it_passes(tmp_path: Path) -> None:
    options = [*ONE, *listed(tmp_path, "listing/sessions  the labels are forgotten\n")]
    done = told(*options, *adapter(tmp_path, ADAPTERS["says nothing of what it did"]))
    assert done.exit_code == 0
    assert "known failure: listing/sessions\n    the labels are forgotten" in done.output
    done = told(*options, "--", *PYTHON_SDK)
    assert (done.exit_code, "unexpected pass: listing/sessions" in done.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "say which adapter to run"),
        (["--topic", "weather", "--", "true"], "no topic weather; there are"),
        (["--case", "weather", "--", "true"], "no case has such a name"),
        (["--", "no-such-program"], "there is no program no-such-program"),
        (["--known-failing", "no-such-file", "--", "true"], "no-such-file"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    done = told(*arguments)
    assert done.exit_code == 2
    assert complaint in " ".join(done.output.replace("│", " ").split())


def test_a_known_failure_has_to_be_a_case(tmp_path: Path) -> None:
    done = told(*listed(tmp_path, "listing/weather  it rains\n"), "--", "true")
    assert done.exit_code == 2
    assert "no such case: listing/weather" in " ".join(done.output.replace("│", " ").split())
