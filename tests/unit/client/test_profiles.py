"""Engines and profiles, asked of the fake."""

import pytest

from turnwire.v1.engine_pb2 import Profile
from turnwire.v1.engine_service_pb2 import GetProfileRequest
from turnwire_client import Client, errors
from turnwire_client.testing import FakeServer


async def test_the_fake_has_an_engine_and_a_profile_of_its_own() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        assert [engine.name async for engine in client.list_engines()] == ["fake"]
        (profile,) = [profile async for profile in client.list_profiles()]
        assert (profile.name, profile.engine, profile.is_default) == ("fake", "fake", True)
        assert profile == await client.get_profile()
        started = await client.start_inference(input="Hello")
        assert (await started.result()).inference.profile == profile.name


async def test_the_fake_has_the_profiles_that_it_was_given() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.add_profile(Profile(name="b", engine="fake", is_default=True))
        fake.add_profile(Profile(name="a", engine="fake", description="one"))
        fake.add_profile(Profile(name="a", engine="fake", description="two"))
        found = [(each.name, each.description, each.is_default) async for each in client.list_profiles()]
        assert found == [("a", "two", False), ("b", "", True), ("fake", "", False)]
        assert (await client.get_profile()).name == "b"
        assert (await client.get_profile("a")).description == "two"
        assert [request.profile for request in fake.requests_of(GetProfileRequest)] == ["", "a"]


async def test_a_profile_that_is_not_there_is_an_error_with_its_name() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        with pytest.raises(errors.ProfileNotFoundError) as refused:
            await client.get_profile("nope")
        assert refused.value.metadata == {"profile": "nope"}
