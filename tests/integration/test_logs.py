"""Log lines: structured, with session_id and inference_id wherever there is one, and never the old name."""

import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from support.rpc import connect, script
from support.server import server_on
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2


async def test_lines_name_the_session_and_the_inference(tmp_path: Path) -> None:
    with server_on(tmp_path / "turnwire.db", "--log-level", "debug") as server:
        async with connect(server.address) as stubs:
            session_id = await stubs.create_session()
            crashed = await stubs.start(session_id, script=script({"crash": {"message": "boom"}}))
            await stubs.finish(crashed.inference_id)
            hung = await stubs.start(session_id, script=script({"hang": {}}))
            await stubs.inference.Cancel(pb.CancelRequest(inference_id=hung.inference_id))
            await stubs.finish(hung.inference_id)
    lines = [json.loads(line) for line in server.log]
    by_event = {line["event"]: line for line in lines}
    crash = by_event["engine crashed"]
    assert (crash["session_id"], crash["inference_id"]) == (session_id, crashed.inference_id)
    assert "boom" in json.dumps(crash["exception"])
    finished = [line for line in lines if line["event"] == "inference finished"]
    assert [line["inference_id"] for line in finished] == [crashed.inference_id, hung.inference_id]
    assert {line["session_id"] for line in finished} == {session_id}
    assert [line["state"] for line in finished] == ["FAILED", "CANCELLED"]
    assert "draining" in by_event
    assert not any("run_" + "id" in line for line in server.log)


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_line_has_what_users_say(tmp_path: Path, form: str) -> None:
    canary = "the word that nobody may read"
    with server_on(tmp_path / "turnwire.db", "--log-level", "debug", "--log-format", form) as server:
        async with connect(server.address) as stubs:
            session_id = await stubs.create_session()
            crashed = await stubs.start(session_id, canary, script=script({"crash": {"message": "boom"}}))
            await stubs.finish(crashed.inference_id)
    text = "".join(server.log)
    assert "boom" in text
    assert "Traceback" in text or "exc_type" in text
    assert canary not in text


async def test_refusals_name_what_they_are_about(tmp_path: Path) -> None:
    with server_on(tmp_path / "turnwire.db") as server:
        async with connect(server.address) as stubs:
            session_id = await stubs.create_session()
            busy = await stubs.start(session_id, script=script({"hang": {}}))
            for call in (
                stubs.start(session_id),
                stubs.start("nope"),
                stubs.inference.GetInference(pb.GetInferenceRequest(inference_id="nobody")),
                stubs.session.GetTurn(
                    session_service_pb2.GetTurnRequest(at=session_service_pb2.TurnAt(session_id="nowhere"))
                ),
            ):
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
            await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))
            await stubs.finish(busy.inference_id)
    refused = [line for line in map(json.loads, server.log) if line["event"] == "rpc refused"]
    named = [(line["rpc"], line.get("session_id"), line.get("inference_id")) for line in refused]
    assert set(named) == {
        ("StartInference", session_id, busy.inference_id),
        ("StartInference", "nope", None),
        ("GetInference", None, "nobody"),
        ("GetTurn", "nowhere", None),
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_stops_nobody(form: str) -> None:
    code = f"""
import logging
from turnwire_server.telemetry.logs import configure_logs, logger
configure_logs({form!r}, "info")
for _ in range(1000):
    logger().error("nobody reads this")
    logging.getLogger("of.others").error("nor this")
print("and on it goes")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "and on it goes\n"
