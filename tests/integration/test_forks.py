"""Forks and sessions that expire, on a real server: through deletions and restarts."""

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from support.rpc import Stubs, connect, refusal, script
from support.server import server_on
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_pb2, turn_pb2
from turnwire.v1 import session_service_pb2 as spb
from turnwire_conformance.promises import Watch

# The parent of each turn of the session that is forked; None: the newest turn.
PARENTS = (None, None, 0, 1, 0, None)


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as stubs:
        yield stubs


async def _run(stubs: Stubs, session_id: str, text: str, parent: int | None = None) -> turn_pb2.Turn:
    fields = {} if parent is None else {"parent": parent}
    started = await stubs.start(session_id, text, **fields)
    return (await stubs.finish(started.inference_id)).turn


async def _turns(stubs: Stubs, session_id: str) -> Sequence[turn_pb2.Turn]:
    request = spb.ListTurnsRequest(session_id=session_id, view=turn_pb2.TURN_VIEW_FULL)
    return (await stubs.session.ListTurns(request)).turns


async def _fork(stubs: Stubs, session_id: str, index: int | None) -> session_pb2.Session:
    request = spb.ForkSessionRequest(session_id=session_id, index=index)
    return (await stubs.session.ForkSession(request)).session


def _texts(turn: turn_pb2.Turn) -> list[str]:
    return [block.user.text or block.llm_text.text for block in turn.blocks]


async def _check_fork(stubs: Stubs, fork: str, origin: Sequence[turn_pb2.Turn]) -> None:
    """Check that a fork begins with these turns, each as one of its own."""
    shared = (await _turns(stubs, fork))[: len(origin)]
    assert [_texts(turn) for turn in shared] == [_texts(turn) for turn in origin]
    for ours, theirs in zip(shared, origin, strict=True):
        assert ours.session_id == fork
        same = ("index", "id", "inference_id", "parent", "state", "block_count", "data", "create_time", "close_time")
        assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]


async def test_forks_at_every_turn_outlive_their_origin_and_a_restart(tmp_path: Path, servers: ExitStack) -> None:
    server = servers.enter_context(server_on(tmp_path / "turnwire.db"))
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        for number, parent in enumerate(PARENTS):
            await _run(stubs, session_id, f"say {number}", parent)
        origin = await _turns(stubs, session_id)
        forks = [(await _fork(stubs, session_id, index)).session_id for index in range(len(PARENTS))]
        await stubs.session.DeleteSession(spb.DeleteSessionRequest(session_id=session_id))
        for index, fork in enumerate(forks):
            await _check_fork(stubs, fork, origin[: index + 1])
        await _run(stubs, forks[0], "before the restart")
    server.kill()
    with server_on(tmp_path / "turnwire.db") as server:
        async with connect(server.address) as stubs:
            for index, fork in enumerate(forks):
                found = (await stubs.session.GetSession(spb.GetSessionRequest(session_id=fork))).session
                assert (found.origin.session_id, found.origin.index) == (session_id, index)
                await _check_fork(stubs, fork, origin[: index + 1])
                turn = await _run(stubs, fork, "go on", index)
                assert (turn.parent, turn.session_id) == (index, fork)
                assert _texts(turn) == [*_texts(origin[index]), "go on", "go on"]
            nested = await _fork(stubs, forks[3], None)
            assert (nested.origin.session_id, nested.turn_count) == (forks[3], 5)
            again = await _run(stubs, nested.session_id, "", 2)  # what the engine is given comes from the shared turn
            assert _texts(again) == [*_texts(origin[2]), "say 2"]


async def test_what_a_fork_does_not_have(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    turn = await _run(stubs, session_id, "hello")
    fork = await _fork(stubs, session_id, None)
    listed = await stubs.inference.ListInferences(pb.ListInferencesRequest(session_id=fork.session_id))
    assert not listed.inferences
    assert fork.head_sequence == 0
    watch = Watch(fork.session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(
        session_id=fork.session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
    assert not watch.events
    found = await stubs.session.GetTurn(spb.GetTurnRequest(inference_id=turn.inference_id))
    assert found.turn.session_id == session_id


async def _refused(stubs: Stubs, request: spb.ForkSessionRequest) -> tuple[str, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs.session.ForkSession(request)
    return refusal(caught.value)


async def test_what_is_refused(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    here = {"session_id": session_id}
    request = spb.ForkSessionRequest(session_id=session_id)
    assert await _refused(stubs, request) == ("NOT_FOUND", "TURN_NOT_FOUND", {**here, "index": "0"})
    await _run(stubs, session_id, "hello")
    hanging = await stubs.start(session_id, "wait", script=script({"text": {"text": "x"}}, {"hang": {}}))
    request.index = 1
    while True:  # until it has its turn
        refused = await _refused(stubs, request)
        if refused[1] != "TURN_NOT_FOUND":
            break
    assert refused == ("FAILED_PRECONDITION", "TURN_NOT_CLOSED", {**here, "index": "1"})
    request.index = 0
    request.session.profile = "of nobody"
    assert (await _refused(stubs, request))[1] == "PROFILE_NOT_FOUND"
    request.session.profile = ""
    request.session.session_id = session_id
    assert (await _refused(stubs, request))[1] == "SESSION_ALREADY_EXISTS"
    request.session.session_id = ""
    request.idempotency_key = f"fork {session_id}".replace(" ", "-")
    made = await stubs.session.ForkSession(request)
    again = await stubs.session.ForkSession(request)
    assert (made.created, again.created, again.session) == (True, False, made.session)
    request.index = 1
    assert (await _refused(stubs, request))[1] == "IDEMPOTENCY_KEY_REUSED"
    nobody = spb.ForkSessionRequest(session_id="of-nobody")
    assert await _refused(stubs, nobody) == ("NOT_FOUND", "SESSION_NOT_FOUND", {"session_id": "of-nobody"})
    await stubs.inference.Cancel(pb.CancelRequest(inference_id=hanging.inference_id))


async def test_a_session_expires_and_those_who_watch_are_told(stubs: Stubs) -> None:
    new = session_pb2.NewSession(ttl=Duration(seconds=1))
    session = (await stubs.session.CreateSession(spb.CreateSessionRequest(session=new))).session
    lives = session.expire_time.ToDatetime() - session.create_time.ToDatetime()
    assert lives.total_seconds() == 1
    turn = await _run(stubs, session.session_id, "hello")
    fork = await _fork(stubs, session.session_id, None)
    request = pb.SubscribeEventsRequest(session_id=session.session_id, from_beginning=pb.FromBeginning())
    last = None
    async for response in stubs.inference.SubscribeEvents(request):
        last = response
    assert last is not None
    assert last.end.reason == pb.SUBSCRIPTION_END_REASON_SESSION_DELETED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stubs.session.GetSession(spb.GetSessionRequest(session_id=session.session_id))
    assert refusal(caught.value)[1] == "SESSION_NOT_FOUND"
    assert [_texts(each) for each in await _turns(stubs, fork.session_id)] == [_texts(turn)]
