"""Engines and profiles, to protobuf."""

from turnwire.v1 import engine_pb2 as pb
from turnwire.v1.inference_pb2 import InferenceConfig as WireConfig
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import Capabilities, EngineInfo, MiddlewareUse, Profile, ProfileSource
from turnwire_server.wire.engine import capabilities_to_proto, profile_to_proto, to_proto


def test_an_engine() -> None:
    info = EngineInfo("scripted", "plays a script", Capabilities(images=False, reasoning=False))
    assert to_proto(info) == pb.Engine(
        name="scripted",
        description="plays a script",
        capabilities=pb.Capabilities(streaming=True, tools=True, structured_output=True),
    )


def test_each_capability_is_its_own() -> None:
    for name in Capabilities.__slots__:
        only = Capabilities(**{each: each == name for each in Capabilities.__slots__})
        assert [field.name for field, _ in capabilities_to_proto(only).ListFields()] == [name]


def test_a_profile_has_every_field_of_the_contract() -> None:
    profile = Profile(
        "leaf",
        "scripted",
        "for tests",
        InferenceConfig("m", temperature=0.0),
        {"secret": "not shown"},
        version=2**64 - 1,
        middleware=(MiddlewareUse("log_calls"), MiddlewareUse("system_prompt", {"text": "x"})),
        overrides=frozenset({"tools", "model"}),
        capabilities=Capabilities(tools=False),
        lineage=(ProfileSource("base", 1, "a.yaml"), ProfileSource("leaf", 2, "b.yaml")),
        settings_text='{"engine": "scripted"}',
    )
    message = profile_to_proto(profile, ["add", "subtract"], is_default=True)
    assert message == pb.Profile(
        name="leaf",
        version=2**64 - 1,
        description="for tests",
        engine="scripted",
        config=WireConfig(model="m", temperature=0.0),
        capabilities=capabilities_to_proto(Capabilities(tools=False)),
        middleware=["log_calls", "system_prompt"],
        tools=["add", "subtract"],
        is_default=True,
        lineage=[
            pb.ProfileSource(profile="base", version=1, source="a.yaml"),
            pb.ProfileSource(profile="leaf", version=2, source="b.yaml"),
        ],
        settings='{"engine": "scripted"}',
        overrides=["model", "tools"],
    )
    assert len(message.ListFields()) == len(pb.Profile.DESCRIPTOR.fields)
