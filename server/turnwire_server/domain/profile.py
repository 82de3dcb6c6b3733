"""Profiles: named configurations of engine and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from turnwire_server.domain.errors import ProfileNotFoundError
from turnwire_server.domain.inference import InferenceConfig


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile. `engine_options` are what only its engine understands."""

    name: str
    engine: str
    description: str = ""
    config: InferenceConfig = InferenceConfig()
    system_prompt: str = ""
    engine_options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles of a server, and the name of the one that is used when nobody names one."""

    by_name: Mapping[str, Profile]
    default: str

    def get(self, name: str) -> Profile:
        """Return a profile, the default one for an empty name. Errors: ProfileNotFoundError."""
        profile = self.by_name.get(name or self.default)
        if profile is None:
            raise ProfileNotFoundError(profile=name or self.default)
        return profile
