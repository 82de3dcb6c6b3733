"""The ancestors' second name for a session's identity appears nowhere: contract, code, SQL, generated code, logs."""

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

ROOMS = ("proto", "server", "client", "tools", "gen", "docs", "examples")
TEXTS = {".proto", ".py", ".pyi", ".sql", ".json", ".yaml", ".toml", ".ts", ".go", ".md", ".html", ".js"}

# The importer reads a column of that name from the ancestors' files.
LEGACY = ROOT / "server" / "turnwire_server" / "stores" / "legacy"


def texts(room: str) -> list[Path]:
    files = sorted(path for path in (ROOT / room).rglob("*") if path.suffix in TEXTS and path.is_file())
    return [path for path in files if LEGACY not in path.parents and "node_modules" not in path.parts]


@pytest.mark.parametrize("room", ROOMS)
def test_room_does_not_use_the_word(room: str) -> None:
    assert forbidden_uses(texts(room)) == []


def test_the_rooms_are_read() -> None:
    suffixes = {path.suffix for room in ROOMS for path in texts(room)}
    assert {".proto", ".py", ".pyi", ".sql"} <= suffixes


def test_logs_do_not_use_the_word(server_process: ServerProcess) -> None:
    with grpc.insecure_channel(server_process.address) as channel:
        inferences = InferenceServiceStub(channel)
        block = Block(user=UserBlock(text="hello"))
        request = StartInferenceRequest(new_session=NewSession(session_id="whose-log-is-read"), input=[block])
        started = inferences.StartInference(request, timeout=10).inference
        inferences.Wait(WaitRequest(inference_id=started.inference_id), timeout=30)
    log = "".join(server_process.log)
    assert "whose-log-is-read" in log
    assert forbidden_words(log) == []


def test_gate_fails(tmp_path: Path) -> None:
    seeded = tmp_path / "seeded.sql"
    seeded.write_text("SELECT session_id,\n  run_id FROM runs;\nlet lastRunId = row.runId; -- RUN_ID, run-id, runid\n")
    assert [use.rpartition(f"{seeded}:")[2] for use in forbidden_uses([seeded])] == [
        "2: run_id",
        "3: RunId",
        "3: runId",
        "3: RUN_ID",
        "3: run-id",
        "3: runid",
    ]


def test_gate_lets_other_words_pass() -> None:
    assert forbidden_words("running, trunk_idx, run_idle, prunid, a run; id, inference_id, RunIdentity") == []


def test_gate_reads_logs() -> None:
    assert forbidden_words('{"event": "started", "run_id": "x"}') == ["run_id"]
