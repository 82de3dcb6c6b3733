"""What a restart leaves: everything that was seen, the partial output, and a session that is usable."""

import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from support.rpc import Stubs, connect, refusal, script, start_request
from support.server import server_on
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log

WORDS = "one two three four five six seven eight nine ten "
ENDLESS = script({"thinking": {"text": "hm "}}, {"text": {"text": WORDS, "repeat": 10_000}}, pace="0.001s")


async def _watch_some(address: str, watch: Watch, deltas: int) -> None:
    """Watch until so many deltas of text have come, then walk away."""
    async with connect(address) as stubs:
        watch.begin(0)
        request = pb.SubscribeEventsRequest(
            session_id=watch.session_id, inference_id=watch.inference_id, from_beginning=pb.FromBeginning()
        )
        async for response in stubs.inference.SubscribeEvents(request):
            watch.take(response)
            if sum(event.HasField("llm_delta") for event in watch.events) >= deltas:
                return


async def _watch_rest(address: str, watch: Watch) -> None:
    """Resume after the last sequence, until the end of the inference."""
    async with connect(address) as stubs:
        watch.begin(watch.position)
        request = pb.SubscribeEventsRequest(
            session_id=watch.session_id,
            inference_id=watch.inference_id,
            after_sequence=watch.position,
            log=watch.log,
            until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
        )
        async for response in stubs.inference.SubscribeEvents(request):
            watch.take(response)
    assert watch.end == pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED


async def test_kill_in_the_middle_of_a_stream_loses_nothing(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db"))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        started = await stubs.start(session_id, "go", script=ENDLESS, idempotency_key="first")
    watch = Watch(session_id, started.inference_id)
    await _watch_some(server.address, watch, deltas=100)
    server.kill()
    seen = list(watch.events)

    with server_on(tmp_path / "turnwire.db") as server:
        await _watch_rest(server.address, watch)
        check_inference(watch.events)
        assert watch.events[: len(seen)] == seen, "what was seen is there, once, in the same place"
        assert watch.events[-1].inference_finished.failed.error.metadata["attempt"] == "0"
        async with connect(server.address) as stubs:
            ended = await stubs.finish(started.inference_id)
            assert ended.inference.state == inference_pb2.INFERENCE_STATE_FAILED
            assert ended.inference.error.reason == 100
            _check_partial_output(ended.turn, watch)
            repeated = await stubs.inference.StartInference(
                start_request(session_id, "go", script=ENDLESS, idempotency_key="first")
            )
            assert not repeated.created
            assert repeated.inference == ended.inference
            following = await stubs.start(session_id, "and now?")
            assert (await stubs.finish(following.inference_id)).inference.turn_index == 1
            everything = Watch(session_id)
            everything.begin(0)
            request = pb.SubscribeEventsRequest(
                session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
            )
            async for response in stubs.inference.SubscribeEvents(request):
                everything.take(response)
            assert len(check_log(everything.events)) == 2
            check_agreement(everything.events, [watch])


def _check_partial_output(turn: turn_pb2.Turn, watch: Watch) -> None:
    assert turn.state == turn_pb2.TURN_STATE_CLOSED
    user, thinking, text = turn.blocks
    assert user.user.text == "go"
    assert thinking.reasoning.text == "hm "
    assert thinking.status == turn_pb2.BLOCK_STATUS_COMPLETE
    assert text.status == turn_pb2.BLOCK_STATUS_INCOMPLETE
    assert text.llm_text.text == "".join(event.llm_delta.delta for event in watch.events)


async def test_a_queued_inference_is_run_after_a_restart(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db", "--inferences-running-max", "1"))
    async with connect(server.address) as stubs:
        blocker = await stubs.start(await stubs.create_session(), script=script({"hang": {}}))
        session_id = await stubs.create_session()
        queued = await stubs.start(session_id, "later")
        assert queued.state == inference_pb2.INFERENCE_STATE_QUEUED
        assert queued.queue_position == 1
        await _until_running(stubs, blocker)
    server.kill()
    with server_on(tmp_path / "turnwire.db", "--inferences-running-max", "1") as server:
        async with connect(server.address) as stubs:
            ended = await stubs.finish(queued.inference_id)
            assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
            assert [block.WhichOneof("kind") for block in ended.turn.blocks] == ["user", "llm_text"]
            lost = await stubs.finish(blocker.inference_id)
            assert lost.inference.state == inference_pb2.INFERENCE_STATE_FAILED


async def _until_running(stubs: Stubs, inference: inference_pb2.Inference) -> None:
    request = pb.SubscribeEventsRequest(
        session_id=inference.session_id, inference_id=inference.inference_id, from_beginning=pb.FromBeginning()
    )
    async for response in stubs.inference.SubscribeEvents(request):
        if any(event.HasField("engine_call_started") for event in response.events):
            return


async def test_a_cancel_that_was_requested_before_the_kill_is_kept(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db"))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        started = await stubs.start(session_id, script=script({"hang": {"ignoreCancel": True}}))
        await _until_running(stubs, started)
        reply = await stubs.inference.Cancel(pb.CancelRequest(inference_id=started.inference_id, reason="enough"))
        assert reply.inference.HasField("cancel_requested_time")
    server.kill()
    with server_on(tmp_path / "turnwire.db") as server:
        async with connect(server.address) as stubs:
            ended = (await stubs.finish(started.inference_id)).inference
            assert ended.state == inference_pb2.INFERENCE_STATE_CANCELLED
            assert ended.cancel_reason == "enough"


async def test_a_store_is_held_by_one_server(tmp_path: Path) -> None:
    with server_on(tmp_path / "turnwire.db"):
        second = server_on(tmp_path / "turnwire.db")
        with pytest.raises(RuntimeError, match=r"turnwire\.db"):
            second.start()


async def _start_for_ever(stubs: Stubs, session_id: str) -> None:
    while True:  # a signal is on its way
        await stubs.finish((await stubs.start(session_id, "too late?")).inference_id)


async def test_a_drain_lets_what_runs_end_and_refuses_the_rest(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db"))
    async with connect(server.address) as stubs:
        session_id, other = await stubs.create_session(), await stubs.create_session()
        started = await stubs.start(session_id, script=script({"pause": "0.5s"}, {"text": {"text": "done"}}))
        await _until_running(stubs, started)
        watch = Watch(session_id)
        watch.begin(0)
        request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
        stream = aiter(stubs.inference.SubscribeEvents(request))
        watch.take(await anext(stream))
        server.signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _start_for_ever(stubs, other)
        assert refusal(refused.value)[:2] == ("UNAVAILABLE", "DRAINING")
        async for response in stream:
            watch.take(response)
        assert watch.end == pb.SUBSCRIPTION_END_REASON_DRAINING
        assert watch.events[-1].inference_finished.HasField("succeeded")
    assert server.wait() == 0


async def test_a_second_signal_does_not_wait(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db"))
    steps = script({"text": {"text": "so far"}}, {"pause": "3s"}, {"text": {"text": " so good"}})
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        started = await stubs.start(session_id, script=steps)
        await _watch_some(server.address, Watch(session_id, started.inference_id), deltas=1)
        server.signal(signal.SIGINT)
        server.signal(signal.SIGTERM)
    assert server.wait() == 0
    with server_on(tmp_path / "turnwire.db") as server:
        async with connect(server.address) as stubs:
            ended = await stubs.finish(started.inference_id)
            assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
            assert [block.llm_text.text for block in ended.turn.blocks[1:]] == ["so far", " so good"]


async def test_a_restored_file_has_other_logs_than_clients_know(tmp_path: Path, servers: ExitStack) -> None:
    path, copy = tmp_path / "turnwire.db", tmp_path / "turnwire.db.copy"
    with server_on(path) as server:
        async with connect(server.address) as stubs:
            session_id = await stubs.create_session()
            await stubs.finish((await stubs.start(session_id)).inference_id)
    copy.write_bytes(path.read_bytes())
    watch = Watch(session_id)
    with server_on(path) as server:
        async with connect(server.address) as stubs:
            await stubs.finish((await stubs.start(session_id, "this will be lost")).inference_id)
        await _watch_some(server.address, watch, deltas=2)
    path.write_bytes(copy.read_bytes())
    server = servers.enter_context(server_on(path, "--restored", "true"))
    resume = pb.SubscribeEventsRequest(session_id=session_id, after_sequence=watch.position, log=watch.log)
    async with connect(server.address) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.inference.SubscribeEvents(resume).read()
    assert refusal(refused.value)[:2] == ("OUT_OF_RANGE", "LOG_REPLACED")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--listen", "127.0.0.1"), "listen"),
        (("--listen", "999.0.0.1:0"), "cannot listen on 999.0.0.1:0"),
        (("--store", "nowhere/turnwire.db"), "nowhere/turnwire.db"),
        (("--profiles", "nowhere.yaml"), "nowhere.yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_server_that_cannot_start_says_why_in_a_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "turnwire_server", "--store", str(tmp_path / "turnwire.db"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_second_server_on_an_address_says_that_it_is_taken(tmp_path: Path) -> None:
    with server_on(tmp_path / "one.db") as first:
        second = ["--store", str(tmp_path / "two.db"), "--listen", first.address]
        command = [sys.executable, "-m", "turnwire_server", *second]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"cannot listen on {first.address}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_it_listens_ends_the_start(tmp_path: Path, number: signal.Signals) -> None:
    """The lock file of the store is made before the server listens: a signal right then meets it in the middle."""
    path = tmp_path / "turnwire.db"
    command = [sys.executable, "-m", "turnwire_server", "--store", str(path), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not path.with_name("turnwire.db.lock").exists():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
