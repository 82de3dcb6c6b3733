from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from support.samples import sample
from turnwire.v1 import inference_pb2 as pb
from turnwire.v1 import tool_pb2
from turnwire_server.domain.errors import InvalidFieldError
from turnwire_server.domain.inference import (
    ConflictPolicy,
    Inference,
    InferenceConfig,
    InferenceState,
    Overrides,
    Usage,
    WaitUntil,
)
from turnwire_server.wire import usage
from turnwire_server.wire.inference import (
    config_from_proto,
    config_to_proto,
    conflict_policy_from_proto,
    from_proto,
    overrides_from_proto,
    overrides_to_proto,
    to_proto,
    wait_until_from_proto,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NEW = Inference("s", "i", InferenceState.QUEUED, NOW)


def violations(message: pb.Overrides) -> list[str]:
    with pytest.raises(InvalidFieldError) as refused:
        overrides_from_proto(message)
    return [violation.field for violation in refused.value.violations]


def test_inference_round_trips() -> None:
    message = sample(pb.Inference)
    assert to_proto(from_proto(message)) == message


def test_what_is_absent_stays_absent() -> None:
    message = to_proto(NEW)
    assert from_proto(message) == NEW
    present = {field.name for field, _ in message.ListFields()}
    assert present == {"session_id", "inference_id", "state", "create_time", "usage", "config", "attempts_max"}


def test_zeros_that_mean_something_stay() -> None:
    made = replace(NEW, turn_index=0, queue_position=0)
    assert from_proto(to_proto(made)) == made


def test_config_round_trips() -> None:
    message = sample(pb.InferenceConfig)
    assert config_to_proto(config_from_proto(message)) == message
    assert config_from_proto(pb.InferenceConfig()) == InferenceConfig()


@pytest.mark.parametrize("name", [field.name for field in fields(InferenceConfig) if field.default is None])
def test_config_keeps_zeros(name: str) -> None:
    zero = InferenceConfig(**{name: False if name == "parallel_tool_calls" else 0})
    assert config_from_proto(config_to_proto(zero)) == zero != InferenceConfig()


def test_overrides_round_trip() -> None:
    message = sample(pb.Overrides)
    message.output_schema, message.engine_options = '{"type": "string"}', '{"script": {}}'
    message.tools[0].input_schema = message.tools[1].input_schema = "true"
    message.tools[1].name = "another"
    assert overrides_to_proto(overrides_from_proto(message)) == message
    assert overrides_from_proto(pb.Overrides()) == Overrides()


def test_overrides_that_are_no_json() -> None:
    message = pb.Overrides(
        output_schema="[]",
        engine_options="true",
        tools=[tool_pb2.Tool(name="a", input_schema="{"), tool_pb2.Tool(name="b")],
    )
    assert violations(message) == [
        "overrides.output_schema",
        "overrides.engine_options",
        "overrides.tools[0].input_schema",
    ]


def test_tools_of_the_same_name() -> None:
    assert violations(pb.Overrides(tools=[tool_pb2.Tool(name=name) for name in "aba"])) == ["overrides.tools[2].name"]


def test_usage_round_trips() -> None:
    assert usage.from_proto(usage.to_proto(Usage(1, 2, 3, 4))) == Usage(1, 2, 3, 4)


def test_unspecified_is_the_default() -> None:
    assert conflict_policy_from_proto(pb.CONFLICT_POLICY_UNSPECIFIED) is ConflictPolicy.REJECT
    assert conflict_policy_from_proto(pb.CONFLICT_POLICY_ENQUEUE) is ConflictPolicy.ENQUEUE
    assert wait_until_from_proto(pb.WAIT_UNTIL_UNSPECIFIED) is WaitUntil.CLIENT_ACTION
    assert wait_until_from_proto(pb.WAIT_UNTIL_END) is WaitUntil.END
