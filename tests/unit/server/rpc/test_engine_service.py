"""EngineService without a server: tools as far as they are known, and pages."""

import pytest

from turnwire.v1 import engine_service_pb2 as pb
from turnwire_server.domain.errors import InvalidPageTokenError, ProfileNotFoundError
from turnwire_server.domain.profile import EngineInfo, Profile, Profiles
from turnwire_server.rpc.call import Caller
from turnwire_server.rpc.engine_service import EngineService
from turnwire_server.wire.page_token import encode_page_token, filters_of

CALLER = Caller("local", None)


def service(*names: str, known_tools: dict[str, list[str]] | None = None) -> EngineService:
    """A service with these profiles, of which the first one is the default, and two engines."""
    profiles = Profiles({name: Profile(name, "scripted") for name in names}, names[0])
    engines = [EngineInfo("scripted", "plays a script"), EngineInfo("another", "does more")]
    if known_tools is None:
        return EngineService(profiles, engines)
    return EngineService(profiles, engines, lambda name: known_tools.get(name, []))


async def test_the_tools_of_a_profile_are_those_that_are_known_now() -> None:
    known = {"a": ["add"]}
    asked = service("a", "b", known_tools=known)
    found = (await asked.list_profiles(pb.ListProfilesRequest(), CALLER)).profiles
    assert [list(profile.tools) for profile in found] == [["add"], []]
    known["b"] = ["subtract"]
    assert (await asked.get_profile(pb.GetProfileRequest(profile="b"), CALLER)).profile.tools == ["subtract"]


async def test_no_tools_are_known_when_nobody_says_so() -> None:
    assert (await service("a").get_profile(pb.GetProfileRequest(), CALLER)).profile.tools == []


async def test_an_empty_name_is_the_default_profile() -> None:
    asked = service("b", "a")
    assert (await asked.get_profile(pb.GetProfileRequest(), CALLER)).profile.name == "b"
    with pytest.raises(ProfileNotFoundError):
        await asked.get_profile(pb.GetProfileRequest(profile="c"), CALLER)


async def test_every_page_size_gives_all_in_order() -> None:
    names = [f"p{number}" for number in range(7)]
    asked = service(*reversed(names))
    for size in range(1, 9):
        found, token = [], ""
        for _ in range(-(-len(names) // size)):
            page = await asked.list_profiles(pb.ListProfilesRequest(page_size=size, page_token=token), CALLER)
            found += [profile.name for profile in page.profiles]
            token = page.next_page_token
        assert found == names
        assert not token
    engines = (await asked.list_engines(pb.ListEnginesRequest(), CALLER)).engines
    assert [engine.name for engine in engines] == ["another", "scripted"]


async def test_a_token_is_of_one_listing_of_the_same_profiles() -> None:
    request = pb.ListProfilesRequest(page_size=1)
    token = (await service("a", "b").list_profiles(request, CALLER)).next_page_token
    again = pb.ListProfilesRequest(page_size=1, page_token=token)
    assert [each.name for each in (await service("a", "b").list_profiles(again, CALLER)).profiles] == ["b"]
    with pytest.raises(InvalidPageTokenError):
        await service("a", "b", "c").list_profiles(again, CALLER)
    with pytest.raises(InvalidPageTokenError):
        await service("a", "b").list_engines(pb.ListEnginesRequest(page_token=token), CALLER)


@pytest.mark.parametrize(("cursor", "names"), [(-5, ["a", "b"]), (7, [])])
async def test_whoever_forges_a_token_gets_no_more_than_a_page(cursor: int, names: list[str]) -> None:
    request = pb.ListProfilesRequest()
    request.page_token = encode_page_token("ListProfiles", filters_of(request) + b"a\nb", cursor)
    assert [each.name for each in (await service("a", "b").list_profiles(request, CALLER)).profiles] == names
