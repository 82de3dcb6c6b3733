"""Log lines: structured, with session_id and inference_id wherever there is one, and never the old name."""

import json
from pathlib import Path

from support.rpc import connect, script
from support.server import server_on
from turnwire.v1 import inference_service_pb2 as pb


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
