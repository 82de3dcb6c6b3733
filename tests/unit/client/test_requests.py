"""What the contract has no room for is a ValueError, and nothing is sent."""

import math
from datetime import timedelta

import pytest

from turnwire_client import Client, errors
from turnwire_client._requests import DURATION_SECONDS_MAX, to_duration
from turnwire_client.testing import FakeServer


@pytest.mark.parametrize("timeout", [math.inf, math.nan, 1e30, -1, timedelta(seconds=-1), timedelta.max])
async def test_times(fake: FakeServer, client: Client, timeout: float | timedelta) -> None:
    with pytest.raises(ValueError, match="seconds"):
        await client.start_inference(input="hello", timeout=timeout)
    with pytest.raises(ValueError, match="seconds"):
        await client.create_session(ttl=timeout)
    if not isinstance(timeout, timedelta):
        with pytest.raises(ValueError, match="seconds"):
            await client.inference("i", "s").result(timeout)
    assert fake.requests == []


@pytest.mark.parametrize("number", [-1, 2**32, 10**30])
async def test_indices_and_counts(fake: FakeServer, client: Client, number: int) -> None:
    with pytest.raises(ValueError, match="index has to be from 0"):
        await client.get_turn("s", number)
    with pytest.raises(ValueError, match="index has to be from 0"):
        await client.fork_session("s", index=number)
    with pytest.raises(ValueError, match="parent has to be from 0"):
        await client.start_inference("s", "hello", parent=number)
    with pytest.raises(ValueError, match="attempts_max has to be from 0"):
        await client.start_inference("s", "hello", attempts_max=number)
    assert fake.requests == []


@pytest.mark.parametrize("number", [-1, 2**64, 10**30])
async def test_sequences_and_revisions(fake: FakeServer, client: Client, number: int) -> None:
    with pytest.raises(ValueError, match="a sequence has to be from 0"):
        client.watch("s", start=number)
    with pytest.raises(ValueError, match="a sequence has to be from 0"):
        client.inference("i", "s").events(number)
    with pytest.raises(ValueError, match="revision has to be from 0"):
        await client.update_session("s", display_name="x", revision=number)
    with pytest.raises(ValueError, match="revision has to be from 0"):
        await client.delete_session("s", revision=number)
    assert fake.requests == []


def test_what_fits_is_kept() -> None:
    assert to_duration(2.5).ToTimedelta() == timedelta(seconds=2.5)
    assert to_duration(DURATION_SECONDS_MAX).seconds == DURATION_SECONDS_MAX


async def test_what_is_not_there_yet_is_refused_by_name(client: Client) -> None:
    with pytest.raises(errors.FeatureNotImplementedError) as refused:
        await client.start_inference(input="hello", output_schema="{}")
    assert refused.value.metadata == {"feature": "output_schema"}
