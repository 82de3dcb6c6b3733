"""The ancestors' second name for a session's identity appears nowhere: contract, code, SQL, generated code, logs."""

import subprocess
from pathlib import Path

import grpc
import pytest

from support.proto_docs import ROOT
from support.server import ServerProcess
from support.words import forbidden_uses, forbidden_words
from turnwire.v1.inference_service_pb2 import StartInferenceRequest, WaitRequest
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.turn_pb2 import Block, UserBlock

ROOMS = ("proto", "server", "client", "tools", "gen", "examples", "requirements", "tests", "docs", ".ci")
TEXTS = {
    ".proto",
    ".py",
    ".pyi",
    ".sql",
    ".json",
    ".yaml",
    ".toml",
    ".lock",
    ".ts",
    ".go",
    ".md",
    ".html",
    ".js",
    ".sh",
}
NAMES = {"Makefile", "run"}  # texts whose names end in nothing
AT_THE_ROOT = ("*.md", "Makefile", "*.toml", "*.yaml")

# Where the word has to stand: what the gates find it with, and what they find.
GATE = tuple(
    ROOT / "tests" / name
    for name in ("contract/test_words.py", "contract/test_identity.py", "fixtures/contract/proto/identity.proto")
)


def texts(root: Path, room: str) -> list[Path]:
    """The texts of a room."""
    return sorted(
        path
        for path in (root / room).rglob("*")
        if (path.suffix in TEXTS or path.name in NAMES) and path.is_file() and "node_modules" not in path.parts
    )


def without_gate(files: list[Path]) -> list[Path]:
    return [path for path in files if path not in GATE]


@pytest.mark.parametrize("room", ROOMS)
def test_room_does_not_use_the_word(room: str) -> None:
    files = without_gate(texts(ROOT, room))
    assert files, f"{room} has no texts: is it gone?"
    assert forbidden_uses(files) == []


@pytest.mark.parametrize("pattern", AT_THE_ROOT)
def test_files_at_the_root_do_not_use_the_word(pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files, f"no {pattern}: is it gone?"
    assert forbidden_uses(files) == []


@pytest.mark.parametrize("gate", GATE, ids=lambda gate: gate.name)
def test_what_is_left_out_has_to_be(gate: Path) -> None:
    assert forbidden_uses([gate])


def test_the_rooms_are_read() -> None:
    suffixes = {path.suffix for room in ROOMS for path in texts(ROOT, room)}
    assert {".proto", ".py", ".pyi", ".sql", ".lock"} <= suffixes


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone: git cannot say which folders are ours")
def test_every_folder_is_a_room() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert {file.partition("/")[0] for file in files if "/" in file} == set(ROOMS)


def test_logs_do_not_use_the_word(server_process: ServerProcess) -> None:
    with grpc.insecure_channel(server_process.address) as channel:
        inferences = InferenceServiceStub(channel)
        block = Block(user=UserBlock(text="hello"))
        request = StartInferenceRequest(new_session=NewSession(session_id="whose-log-is-read"), input=[block])
        started = inferences.StartInference(request, timeout=10).inference
        inferences.Wait(WaitRequest(inference_id=started.inference_id), timeout=30)
    log = server_process.read_log_until("whose-log-is-read")  # the line of its end comes after the reply
    assert forbidden_words(log) == []


def test_gate_fails(tmp_path: Path) -> None:
    seeded = tmp_path / "seeded.sql"
    seeded.write_text(
        "SELECT session_id,\n  run_id FROM runs;\nlet lastRunId = row.runId; -- RUN_ID, run-id, runid, run_ids\n"
    )
    assert [use.rpartition(f"{seeded}:")[2] for use in forbidden_uses([seeded])] == [
        "2: run_id",
        "3: RunId",
        "3: runId",
        "3: RUN_ID",
        "3: run-id",
        "3: runid",
        "3: run_ids",
    ]


def test_gate_reads_all_texts(tmp_path: Path) -> None:
    for name in ("room/Makefile", "room/deep/code.py", "room/node_modules/dependency.js", "room/picture.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("run_id\n")
    assert [use.removeprefix(str(tmp_path)) for use in forbidden_uses(texts(tmp_path, "room"))] == [
        "/room/Makefile:1: run_id",
        "/room/deep/code.py:1: run_id",
    ]


def test_gate_lets_other_words_pass() -> None:
    assert forbidden_words("running, trunk_idx, run_idle, prunid, a run; id, inference_id, RunIdentity") == []


def test_gate_reads_logs() -> None:
    assert forbidden_words('{"event": "started", "run_id": "x"}') == ["run_id"]
