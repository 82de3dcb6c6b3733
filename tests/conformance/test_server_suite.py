"""The conformance suite against our own server: on each store, in each arrangement, by the command that users have."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.arrangements import ARRANGEMENTS
from support.server import ServerProcess
from turnwire_conformance import known_failing
from turnwire_conformance.case import load_own_runs
from turnwire_conformance.readiness import NotReadyError
from turnwire_conformance.runner import Target, run_all
from violations.exchange import Plant
from violations.kinds import refuses, sends
from violations.proxy import Proxy

# The memory store as it is by default is proved from the wheel (tools/check_wheel.py), and behind the reference server.
SERVERS = [("sqlite", name) for name in ARRANGEMENTS] + [("memory", name) for name in ARRANGEMENTS if name]

KNOWN_FAILING = Path(__file__).with_name("known_failing.txt")
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "conformance.md"


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "turnwire_client.cli", "conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("store", "arrangement"), SERVERS)
def test_our_server_keeps_the_contract(store: str, arrangement: str, tmp_path: Path) -> None:
    kept = "memory" if store == "memory" else str(tmp_path / "turnwire.db")
    with ServerProcess(("--store", kept, *ARRANGEMENTS[arrangement])) as server:
        done = conformance(
            *(server.address, "--arrangement", arrangement, "--known-failing", str(KNOWN_FAILING)),
            *("--junit", str(tmp_path / "junit.xml"), "--json"),
        )
    outcomes = json.loads(done.stdout)["outcomes"]
    bad = {each["name"]: each["detail"] for each in outcomes if each["status"] in {"failed", "unexpected pass"}}
    assert not bad
    assert done.returncode == 0
    run = [each for each in outcomes if each["status"] != "skipped"]
    assert len(run) == len([each for each in load_own_runs() if each.arrangement == arrangement])
    assert len(ET.parse(tmp_path / "junit.xml").findall("testcase")) == len(load_own_runs())


def test_every_arrangement_has_cases() -> None:
    assert {run.arrangement for run in load_own_runs()} == ARRANGEMENTS.keys()


def test_nobody_listens() -> None:
    done = conformance("127.0.0.1:1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "nobody listens at 127.0.0.1:1" in done.stderr


def test_a_wrong_command_line_says_what_there_is(tmp_path: Path) -> None:
    done = conformance("--list", "--topic", "weather")
    assert done.returncode == 2
    assert "no topic weather" in done.stderr
    (tmp_path / "known.txt").write_text("cancel/no-such-case  because\n")
    done = conformance("127.0.0.1:1", "--known-failing", str(tmp_path / "known.txt"))
    assert done.returncode == 2
    assert "no such case" in done.stderr


def test_the_list_that_the_documentation_shows_can_be_used(tmp_path: Path) -> None:
    shown = re.findall(r"```\n(# topic/name .*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "known.txt").write_text("".join(shown), encoding="utf-8")
    known = known_failing.load(tmp_path / "known.txt")
    assert known
    known_failing.check_names(known, [run.full_name for run in load_own_runs()])


def test_an_arrangement_that_no_case_is_for_is_refused() -> None:
    done = conformance("127.0.0.1:1", "--arrangement", "smal")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no case is for the arrangement smal" in done.stderr
    assert "retention" in done.stderr


def test_a_run_that_skips_every_case_proves_nothing(server_address: str) -> None:
    done = conformance(server_address, "--topic", "small")
    assert done.returncode == 1
    assert "no case was run: needs a server in the arrangement `small`" in done.stderr


def test_a_profile_that_is_not_there_is_told_before_the_cases(server_address: str) -> None:
    done = conformance(server_address, "--profile", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no profile 'nope'" in done.stderr
    assert "script.proto" in done.stderr


@pytest.mark.parametrize(
    "plant",
    [
        refuses("StartInference", "OVERRIDE_NOT_ALLOWED"),
        sends("StartInference", lambda request: request.overrides.ClearField("engine_options")),
        sends("StartInference", lambda request: setattr(request.overrides, "engine_options", '{"script": 1}')),
    ],
    ids=["does-not-allow-it", "says-something-else", "fails"],
)
async def test_an_engine_that_takes_no_scripts_is_told_before_the_cases(server_address: str, plant: Plant) -> None:
    async with Proxy(server_address, [plant]) as proxy:
        with pytest.raises(NotReadyError, match=r"script\.proto"):
            await run_all(Target(proxy.address), load_own_runs(), lambda _: None)


def test_the_list_tells_what_each_case_proves() -> None:
    done = conformance("--list", "--json")
    listed = json.loads(done.stdout)["cases"]
    assert {each["case"] for each in listed} == {run.full_name for run in load_own_runs()}
    assert all(each["cites"] for each in listed)
