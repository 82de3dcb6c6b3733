"""What FakeServer offers: its one engine, and the profiles it was told to have."""

from turnwire.v1.engine_pb2 import Capabilities, Engine, Profile, ProfileSource
from turnwire.v1.engine_service_pb2 import (
    GetProfileRequest,
    GetProfileResponse,
    ListEnginesRequest,
    ListEnginesResponse,
    ListProfilesRequest,
    ListProfilesResponse,
)
from turnwire_client._fake_session import Refused

FAKE = "fake"

CAPABILITIES = Capabilities(streaming=True, reasoning=True)


class FakeProfiles:
    """The engine `fake`, and its profile of the same name until another one is added."""

    def __init__(self) -> None:
        lineage = [ProfileSource(profile=FAKE, version=1, source="built-in")]
        default = Profile(name=FAKE, version=1, engine=FAKE, capabilities=CAPABILITIES, lineage=lineage, settings="{}")
        self._by_name = {FAKE: default}
        self._default = FAKE

    def add(self, profile: Profile) -> None:
        """Has one more profile, or another one of that name; with `is_default` it is the default from now on."""
        self._by_name[profile.name] = profile
        if profile.is_default:
            self._default = profile.name

    async def list_engines(self, _request: ListEnginesRequest) -> ListEnginesResponse:
        """Answers ListEngines."""
        return ListEnginesResponse(engines=[Engine(name=FAKE, description="as told", capabilities=CAPABILITIES)])

    async def list_profiles(self, _request: ListProfilesRequest) -> ListProfilesResponse:
        """Answers ListProfiles."""
        return ListProfilesResponse(profiles=[self._shown(name) for name in sorted(self._by_name)])

    async def get_profile(self, request: GetProfileRequest) -> GetProfileResponse:
        """Answers GetProfile. Raises Refused PROFILE_NOT_FOUND."""
        name = request.profile or self._default
        if name not in self._by_name:
            raise Refused("PROFILE_NOT_FOUND", profile=name)
        return GetProfileResponse(profile=self._shown(name))

    def _shown(self, name: str) -> Profile:
        shown = Profile()
        shown.CopyFrom(self._by_name[name])
        shown.is_default = name == self._default
        return shown
