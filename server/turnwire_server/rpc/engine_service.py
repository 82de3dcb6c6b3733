"""EngineService: lists what was put together when the server started; nothing of it changes while it runs."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from turnwire.v1 import engine_pb2
from turnwire.v1 import engine_service_pb2 as pb
from turnwire_server.domain.profile import EngineInfo, Profile, Profiles
from turnwire_server.events.subscription import RESPONSE_BYTES_AIM
from turnwire_server.rpc.call import Caller
from turnwire_server.rpc.paging import page_size, page_token
from turnwire_server.wire import engine
from turnwire_server.wire.page_token import decode_page_token, filters_of

Item = TypeVar("Item", engine_pb2.Engine, engine_pb2.Profile)
Request = pb.ListEnginesRequest | pb.ListProfilesRequest


def no_tools(_profile: str) -> Sequence[str]:
    """Know of no tools."""
    return ()


class EngineService:
    """The rpcs about engines and profiles."""

    def __init__(
        self, profiles: Profiles, engines: Sequence[EngineInfo], known_tools: Callable[[str], Sequence[str]] = no_tools
    ) -> None:
        self._profiles = profiles
        self._engines = sorted(engines, key=lambda each: each.name)
        self._known_tools = known_tools

    async def list_engines(self, request: pb.ListEnginesRequest, _caller: Caller) -> pb.ListEnginesResponse:
        """Serve ListEngines."""
        page, token = _page("ListEngines", request, [engine.to_proto(each) for each in self._engines])
        return pb.ListEnginesResponse(engines=page, next_page_token=token)

    async def list_profiles(self, request: pb.ListProfilesRequest, _caller: Caller) -> pb.ListProfilesResponse:
        """Serve ListProfiles."""
        profiles = [self._to_proto(profile) for _, profile in sorted(self._profiles.by_name.items())]
        page, token = _page("ListProfiles", request, profiles)
        return pb.ListProfilesResponse(profiles=page, next_page_token=token)

    async def get_profile(self, request: pb.GetProfileRequest, _caller: Caller) -> pb.GetProfileResponse:
        """Serve GetProfile."""
        return pb.GetProfileResponse(profile=self._to_proto(self._profiles.get(request.profile)))

    def _to_proto(self, profile: Profile) -> engine_pb2.Profile:
        is_default = profile.name == self._profiles.default
        return engine.profile_to_proto(profile, self._known_tools(profile.name), is_default=is_default)


def _page(rpc: str, request: Request, items: Sequence[Item]) -> tuple[Sequence[Item], str]:
    """Return the items of a page, at least one where there is one, and the token of the next page.

    Errors: InvalidPageTokenError, also for a token of a server that listed other names.
    """
    filters = filters_of(request) + "\n".join(item.name for item in items).encode()
    begin = max(0, decode_page_token(rpc, filters, request.page_token)) if request.page_token else 0
    end, size = begin, 0
    while end < len(items) and end - begin < page_size(request.page_size):
        size += items[end].ByteSize()
        if size > RESPONSE_BYTES_AIM and end > begin:
            break
        end += 1
    return items[begin:end], page_token(rpc, filters, end if end < len(items) else None)
