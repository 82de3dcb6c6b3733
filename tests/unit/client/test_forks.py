"""Forking by the client, on the fake server."""

from datetime import timedelta

import pytest

from turnwire.v1.session_service_pb2 import ForkSessionRequest
from turnwire_client import Client, errors
from turnwire_client.testing import FakeServer


async def _texts(client: Client, session_id: str) -> list[str]:
    turn = await client.get_turn(session_id)
    return [block.user.text or block.llm_text.text for block in turn.blocks]


async def test_what_is_sent(fake: FakeServer, client: Client) -> None:
    origin = await client.start_inference(input="hello")
    await client.fork_session(
        origin.session_id,
        index=0,
        new_session_id="f",
        display_name="fork",
        labels={"a": "b"},
        metadata={"app.x@v1": "1"},
        profile="p",
        ttl=timedelta(seconds=9),
        idempotency_key="k",
    )
    [request] = fake.requests_of(ForkSessionRequest)
    assert (request.session_id, request.index, request.idempotency_key) == (origin.session_id, 0, "k")
    assert request.HasField("index")
    new = request.session
    assert (new.session_id, new.display_name, new.profile, new.ttl.seconds) == ("f", "fork", "p", 9)
    assert (dict(new.labels), dict(new.metadata)) == ({"a": "b"}, {"app.x@v1": "1"})


async def test_a_fork_goes_on_by_itself(fake: FakeServer, client: Client) -> None:
    origin = await client.start_inference(input="one")
    await client.start_inference(origin.session_id, "two")
    fork = await client.fork_session(origin.session_id, index=0)
    assert (fork.origin.session_id, fork.origin.index, fork.turn_count) == (origin.session_id, 0, 1)
    assert [turn.session_id async for turn in client.list_turns(fork.session_id)] == [fork.session_id]
    await client.start_inference(fork.session_id, "three")
    assert await _texts(client, fork.session_id) == ["one", "one", "three", "three"]
    assert await _texts(client, origin.session_id) == ["one", "one", "two", "two"]
    await client.delete_session(origin.session_id)
    assert await _texts(client, fork.session_id) == ["one", "one", "three", "three"]
    assert not fake.requests_of(ForkSessionRequest)[0].session.session_id


async def test_only_closed_turns_are_shared(fake: FakeServer, client: Client) -> None:
    origin = await client.start_inference(input="one")
    fake.hang()
    await client.start_inference(origin.session_id, "two")
    assert (await client.fork_session(origin.session_id)).turn_count == 1
    with pytest.raises(errors.TurnNotClosedError) as caught:
        await client.fork_session(origin.session_id, index=1)
    assert caught.value.metadata == {"session_id": origin.session_id, "index": "1"}
    with pytest.raises(errors.TurnNotFoundError):
        await client.fork_session(origin.session_id, index=2)
    empty = await client.create_session()
    with pytest.raises(errors.TurnNotFoundError):
        await client.fork_session(empty.session_id)


async def test_a_lost_reply_makes_no_second_fork(fake: FakeServer, client: Client) -> None:
    origin = await client.start_inference(input="one")
    fake.lose_reply("ForkSession", times=2)
    fork = await client.fork_session(origin.session_id)
    requests = fake.requests_of(ForkSessionRequest)
    assert (len(requests), len({request.idempotency_key for request in requests})) == (3, 1)
    assert {each.session_id async for each in client.list_sessions()} == {origin.session_id, fork.session_id}
    with pytest.raises(errors.IdempotencyKeyReusedError):
        await client.fork_session(origin.session_id, index=0, idempotency_key=requests[0].idempotency_key)
