"""What the contract has no room for is a ValueError, and nothing is sent."""

import json
import math
from datetime import timedelta

import pytest

from turnwire.v1.inference_pb2 import InferenceConfig, Overrides
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
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


async def test_what_a_session_and_a_start_change_of_the_profile(fake: FakeServer, client: Client) -> None:
    warm, cold = InferenceConfig(temperature=1.5), InferenceConfig(temperature=0)
    session = await client.create_session("mine", config=warm)
    assert session.config == warm
    assert (await client.update_session("mine", display_name="Mine")).config == warm
    assert (await client.update_session("mine", config=cold)).config == cold
    schema = {"type": "object", "title": "é"}
    await client.start_inference("mine", "hello", output_schema=schema, record_snapshots=True)
    await client.start_inference("mine", "hello", output_schema='{"type": "array"}')
    await client.start_inference("mine", "hello")
    first, second, third = (request.overrides for request in fake.requests_of(StartInferenceRequest))
    assert (json.loads(first.output_schema), first.record_snapshots) == (schema, True)
    assert (second.output_schema, second.record_snapshots) == ('{"type": "array"}', False)
    assert third == Overrides()


async def test_what_the_fake_has_not_is_refused_by_name(fake: FakeServer, client: Client) -> None:
    fake.hang()
    handle = await client.start_inference(input="hello")
    with pytest.raises(errors.FeatureNotImplementedError) as refused:
        await client.start_inference(handle.session_id, "hello", conflict_policy="enqueue")
    assert refused.value.metadata == {"feature": "conflict_policy"}


@pytest.mark.parametrize("deadline", [math.inf, math.nan, -1, timedelta.max])
async def test_deadlines_of_pauses(fake: FakeServer, client: Client, deadline: float | timedelta) -> None:
    with pytest.raises(ValueError, match="seconds"):
        await client.set_step_mode("s", True, deadline=deadline)
    assert fake.requests == []
