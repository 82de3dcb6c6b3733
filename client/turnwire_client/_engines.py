"""What a client can ask about engines and profiles."""

from collections.abc import AsyncGenerator

from turnwire.v1.engine_pb2 import Engine, Profile
from turnwire.v1.engine_service_pb2 import GetProfileRequest, ListEnginesRequest, ListProfilesRequest
from turnwire_client._transport import Transport


class EngineCalls:
    """The part of Client that is about engines and profiles."""

    _transport: Transport

    async def list_engines(self) -> AsyncGenerator[Engine, None]:
        """The engines that the server has, by name, page by page."""
        request = ListEnginesRequest()
        while True:
            response = await self._transport.call(self._transport.engines.ListEngines, request)
            for engine in response.engines:
                yield engine
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def list_profiles(self) -> AsyncGenerator[Profile, None]:
        """The profiles that the server offers, by name, page by page."""
        request = ListProfilesRequest()
        while True:
            response = await self._transport.call(self._transport.engines.ListProfiles, request)
            for profile in response.profiles:
                yield profile
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def get_profile(self, name: str = "") -> Profile:
        """A profile: what is in effect, and what it was made of. Without a name, the default one.

        Raises ProfileNotFoundError.
        """
        request = GetProfileRequest(profile=name)
        return (await self._transport.call(self._transport.engines.GetProfile, request)).profile
