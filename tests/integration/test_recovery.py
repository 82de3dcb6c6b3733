"""What becomes of an inference whose process is gone: another attempt, at the last step, if one is allowed."""

import os
import signal
import sqlite3
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.rpc import Stubs, connect, script, start_request
from support.server import ServerProcess, server_on
from turnwire.v1 import event_pb2, inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log
from turnwire_server.bootstrap import running_server
from turnwire_server.config.settings import Settings
from turnwire_server.domain.ids import mint_id
from turnwire_server.domain.inference import Usage
from turnwire_server.domain.turn import Block, LlmText
from turnwire_server.runtime.checkpoint import Checkpoint, encode_checkpoint
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.lease import Step
from turnwire_server.stores.sqlite import SqliteSessionStore

SLOW = script({"text": {"text": "one two three four five six seven eight nine ten ", "repeat": 40}}, pace="0.005s")
SAID = "one two three four five six seven eight nine ten " * 40


async def _watch(stubs: Stubs, watch: Watch, deltas: int | None = None) -> None:
    """Watch to the end of the inference, or until so many deltas of text have come."""
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
        if deltas is not None and sum(event.HasField("llm_delta") for event in watch.events) >= deltas:
            return


async def _log(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    watch = Watch(session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
    return watch.events


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_an_inference_is_continued_after_a_restart(
    tmp_path: Path, servers: ExitStack, ending: signal.Signals
) -> None:
    path = tmp_path / "turnwire.db"
    server = servers.enter_context(server_on(path, "--drain-grace-seconds", "0"))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        request = start_request(session_id, "go", script=SLOW, idempotency_key="k")
        # A drain is no loss: it needs no second attempt.
        request.attempts_max = 2 if ending == signal.SIGKILL else 1
        started = (await stubs.inference.StartInference(request)).inference
        watch = Watch(session_id, started.inference_id)
        await _watch(stubs, watch, deltas=50)
    server.signal(ending)
    server.wait()
    async with connect(servers.enter_context(server_on(path)).address) as stubs:
        await _watch(stubs, watch)
        check_inference(watch.events)
        check_agreement(await _log(stubs, session_id), [watch])
        [lost] = [event for event in watch.events if event.HasField("inference_attempt_lost")]
        begun = [event.attempt for event in watch.events if event.HasField("inference_started")]
        assert lost.inference_attempt_lost.handed_back == (ending == signal.SIGTERM)
        assert begun == ([0, 1] if ending == signal.SIGKILL else [0, 0])
        ended = await stubs.finish(started.inference_id)
        assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
        assert [block.llm_text.text for block in ended.turn.blocks[1:]] == [SAID]


async def test_an_inference_is_continued_at_its_last_step(tmp_path: Path, servers: ExitStack) -> None:
    path = tmp_path / "turnwire.db"
    both = script({"text": {"text": "first"}})
    both.calls.add().steps.add().text.text = "second"
    server = servers.enter_context(server_on(path, "--drain-grace-seconds", "0", "--inferences-running-max", "1"))
    async with connect(server.address) as stubs:
        blocker = await stubs.start(await stubs.create_session(), script=script({"hang": {}}))
        session_id = await stubs.create_session()
        started = await stubs.start(session_id, "go", script=both)
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=blocker.inference_id))
        server.kill()
    # A process that got as far as its first step, and was stopped in good order.
    store = await SqliteSessionStore.open(path, lambda _commits: None, SystemClock().now, mint_id)
    await store.register("before")
    claims = await store.claim("before", [mint_id() for _ in range(10)])
    [claim] = [claim for claim in claims if claim.inference.inference_id == started.inference_id]
    checkpoint = encode_checkpoint(Checkpoint(iteration=1))
    step = Step(1, (Block("b1", LlmText("first")),), Usage(input_tokens=3), "a-model", checkpoint=checkpoint)
    await store.commit_step(claim.lease, claim.position, step)
    await store.hand_back(claim.lease, claim.position, is_loss=False)
    await store.close()
    async with connect(servers.enter_context(server_on(path)).address) as stubs:
        ended = await stubs.finish(started.inference_id)
        assert [block.llm_text.text for block in ended.turn.blocks[1:]] == ["first", "second"]
        assert ended.inference.usage.input_tokens >= 3
        calls = [
            e.engine_call_started.iteration for e in await _log(stubs, session_id) if e.HasField("engine_call_started")
        ]
        assert calls == [2]


def _stop_between_transactions(server: ServerProcess, path: Path) -> None:
    """Stop a server while it holds no lock on the file, as most moments are."""
    for _ in range(100):
        server.signal(signal.SIGSTOP)
        with sqlite3.connect(path, timeout=0.1, isolation_level=None) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                server.signal(signal.SIGCONT)
                continue
            probe.execute("ROLLBACK")
        probe.close()
        return
    raise AssertionError("the server never was between two transactions")


async def test_a_zombie_writes_nothing_and_says_so(tmp_path: Path, servers: ExitStack) -> None:
    """A server is stopped and taken for dead; somebody removes its lock file, and another one takes over."""
    path = tmp_path / "turnwire.db"
    zombie = servers.enter_context(server_on(path, "--heartbeat-seconds", "60"))
    async with connect(zombie.address) as stubs:
        session_id = await stubs.create_session()
        request = start_request(session_id, "go", script=SLOW)
        request.attempts_max = 2
        started = (await stubs.inference.StartInference(request)).inference
        seen = Watch(session_id, started.inference_id)
        await _watch(stubs, seen, deltas=20)
        told = Watch(session_id, started.inference_id)
        told.begin(0)
        stream = stubs.inference.SubscribeEvents(
            pb.SubscribeEventsRequest(
                session_id=session_id,
                inference_id=started.inference_id,
                from_beginning=pb.FromBeginning(),
                until=pb.SUBSCRIBE_UNTIL_INFERENCE_END,
            )
        )
        responses = aiter(stream)
        told.take(await anext(responses))
        _stop_between_transactions(zombie, path)
        os.unlink(f"{path}.lock")
        settings = Settings(listen="127.0.0.1:0", store=str(path))
        async with running_server(settings) as successor, connect(successor.address) as theirs:
            follow = Watch(session_id, started.inference_id)
            await _watch(theirs, follow, deltas=len([e for e in seen.events if e.HasField("llm_delta")]) + 40)
            zombie.signal(signal.SIGCONT)
            async for response in responses:  # long before the heartbeat of the stream
                told.take(response)
                if any(event.HasField("inference_attempt_lost") for event in response.events):
                    break
            stream.cancel()
            ended = await stubs.finish(started.inference_id)
            assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
            assert ended.inference.attempt == 1
            assert [block.llm_text.text for block in ended.turn.blocks[1:]] == [SAID]
            log = await _log(theirs, session_id)
            check_log(log)
            check_agreement(log, [seen, told, follow])
            lost = next(event.sequence for event in log if event.HasField("inference_attempt_lost"))
            assert {event.attempt for event in log if event.sequence > lost} == {1}, "nothing of the zombie's"
    assert any("attempt given up" in line for line in zombie.log), "the zombie's attempt has ended"
    assert zombie.stop() == 0
