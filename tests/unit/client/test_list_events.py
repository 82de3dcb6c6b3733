"""Client.list_events: the log as it is, page by page."""

import pytest

from turnwire_client import Client, errors
from turnwire_client.testing import FakeServer


async def test_it_lists_what_there_is(fake: FakeServer, client: Client) -> None:
    session = await client.create_session()
    first = await client.start_inference(session.session_id, "a")
    second = await client.start_inference(session.session_id, "b")
    expected = fake.events_of(session.session_id)
    assert [event async for event in client.list_events(session.session_id)] == expected
    later = [event async for event in client.list_events(session.session_id, after_sequence=3)]
    assert later == expected[3:]
    for handle in (first, second):
        own = [event async for event in client.list_events(session.session_id, inference_id=handle.inference_id)]
        assert own == [event for event in expected if event.inference_id == handle.inference_id]


async def test_a_cursor_of_another_log_is_refused(client: Client) -> None:
    session = await client.create_session()
    with pytest.raises(errors.LogReplacedError):
        _ = [event async for event in client.list_events(session.session_id, log="of-another")]


async def test_what_is_no_sequence_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="a sequence has to be from 0"):
        _ = [event async for event in client.list_events("s", after_sequence=-1)]
