"""Engines and profiles, to protobuf."""

from collections.abc import Sequence

from turnwire.v1 import engine_pb2 as pb
from turnwire_server.domain.profile import Capabilities, EngineInfo, Profile
from turnwire_server.wire.inference import config_to_proto


def to_proto(engine: EngineInfo) -> pb.Engine:
    """Return an Engine."""
    return pb.Engine(
        name=engine.name,
        description=engine.description,
        capabilities=capabilities_to_proto(engine.capabilities),
    )


def profile_to_proto(profile: Profile, tools: Sequence[str], *, is_default: bool) -> pb.Profile:
    """Return a Profile; `tools` are the names of its tools, as far as they are known."""
    return pb.Profile(
        name=profile.name,
        version=profile.version,
        description=profile.description,
        engine=profile.engine,
        config=config_to_proto(profile.config),
        capabilities=capabilities_to_proto(profile.capabilities),
        middleware=[use.name for use in profile.middleware],
        tools=tools,
        is_default=is_default,
        lineage=[
            pb.ProfileSource(profile=each.profile, version=each.version, source=each.source) for each in profile.lineage
        ],
        settings=profile.settings_text,
        overrides=sorted(profile.overrides),
    )


def capabilities_to_proto(capabilities: Capabilities) -> pb.Capabilities:
    """Return a Capabilities."""
    return pb.Capabilities(
        streaming=capabilities.streaming,
        tools=capabilities.tools,
        structured_output=capabilities.structured_output,
        images=capabilities.images,
        reasoning=capabilities.reasoning,
    )
