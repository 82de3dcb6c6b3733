"""Inferences and their configuration, to and from protobuf."""

from turnwire.v1 import inference_pb2 as pb
from turnwire_server.domain.errors import InvalidFieldError, Violation
from turnwire_server.domain.inference import (
    ConflictPolicy,
    FinishClass,
    Inference,
    InferenceConfig,
    InferenceState,
    Overrides,
    WaitUntil,
)
from turnwire_server.domain.tool import Tool
from turnwire_server.wire import error, json_text, timestamp, tool, usage


def to_proto(inference: Inference) -> pb.Inference:
    """Return an Inference."""
    return pb.Inference(
        session_id=inference.session_id,
        inference_id=inference.inference_id,
        state=pb.InferenceState.ValueType(inference.state),
        attempt=inference.attempt,
        queue_position=inference.queue_position,
        create_time=timestamp.to_proto(inference.create_time),
        start_time=timestamp.optional_to_proto(inference.start_time),
        end_time=timestamp.optional_to_proto(inference.end_time),
        cancel_requested_time=timestamp.optional_to_proto(inference.cancel_requested_time),
        deadline_time=timestamp.optional_to_proto(inference.deadline_time),
        finish_class=pb.FinishClass.ValueType(inference.finish_class),
        usage=usage.to_proto(inference.usage),
        model=inference.model,
        profile=inference.profile,
        config=config_to_proto(inference.config),
        first_sequence=inference.first_sequence,
        last_sequence=inference.last_sequence,
        error=error.to_proto(inference.error) if inference.error else None,
        turn_index=inference.turn_index,
        cancel_reason=inference.cancel_reason,
        attempts_max=inference.attempts_max,
    )


def from_proto(message: pb.Inference) -> Inference:
    """Return an inference."""
    return Inference(
        session_id=message.session_id,
        inference_id=message.inference_id,
        state=InferenceState(message.state),
        create_time=timestamp.from_proto(message.create_time),
        profile=message.profile,
        config=config_from_proto(message.config),
        attempts_max=message.attempts_max,
        attempt=message.attempt,
        queue_position=message.queue_position if message.HasField("queue_position") else None,
        start_time=timestamp.from_proto(message.start_time) if message.HasField("start_time") else None,
        end_time=timestamp.from_proto(message.end_time) if message.HasField("end_time") else None,
        cancel_requested_time=(
            timestamp.from_proto(message.cancel_requested_time) if message.HasField("cancel_requested_time") else None
        ),
        cancel_reason=message.cancel_reason,
        deadline_time=timestamp.from_proto(message.deadline_time) if message.HasField("deadline_time") else None,
        finish_class=FinishClass(message.finish_class),
        usage=usage.from_proto(message.usage),
        model=message.model,
        first_sequence=message.first_sequence,
        last_sequence=message.last_sequence,
        error=error.from_proto(message.error) if message.HasField("error") else None,
        turn_index=message.turn_index if message.HasField("turn_index") else None,
    )


def config_to_proto(config: InferenceConfig) -> pb.InferenceConfig:
    """Return an InferenceConfig."""
    return pb.InferenceConfig(
        model=config.model,
        temperature=config.temperature,
        top_p=config.top_p,
        max_output_tokens=config.max_output_tokens,
        stop_sequences=config.stop_sequences,
        seed=config.seed,
        reasoning_effort=config.reasoning_effort,
        iterations_max=config.iterations_max,
        tool_choice=config.tool_choice,
        parallel_tool_calls=config.parallel_tool_calls,
    )


def config_from_proto(message: pb.InferenceConfig) -> InferenceConfig:
    """Return the configuration."""
    return InferenceConfig(
        model=message.model,
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        max_output_tokens=message.max_output_tokens if message.HasField("max_output_tokens") else None,
        stop_sequences=tuple(message.stop_sequences),
        seed=message.seed if message.HasField("seed") else None,
        reasoning_effort=message.reasoning_effort,
        iterations_max=message.iterations_max if message.HasField("iterations_max") else None,
        tool_choice=message.tool_choice,
        parallel_tool_calls=message.parallel_tool_calls if message.HasField("parallel_tool_calls") else None,
    )


def overrides_to_proto(overrides: Overrides) -> pb.Overrides:
    """Return an Overrides."""
    return pb.Overrides(
        config=config_to_proto(overrides.config),
        tools=map(tool.to_proto, overrides.tools),
        output_schema=overrides.output_schema,
        engine_options=overrides.engine_options,
        record_snapshots=overrides.record_snapshots,
    )


def overrides_from_proto(message: pb.Overrides, path: str = "overrides") -> Overrides:
    """Return what a request changes of its profile.

    Errors: InvalidFieldError for what the rules in the contract's options cannot say.
    """
    tools = tuple(map(tool.from_proto, message.tools))
    violations = [
        *json_text.schema_violations(f"{path}.output_schema", message.output_schema),
        *json_text.object_violations(f"{path}.engine_options", message.engine_options),
        *_tool_violations(path, tools),
    ]
    if violations:
        raise InvalidFieldError(*violations)
    return Overrides(
        config_from_proto(message.config),
        tools,
        message.output_schema,
        message.engine_options,
        message.record_snapshots,
    )


def _tool_violations(path: str, tools: tuple[Tool, ...]) -> list[Violation]:
    violations: list[Violation] = []
    names: set[str] = set()
    for position, each in enumerate(tools):
        violations += json_text.schema_violations(f"{path}.tools[{position}].input_schema", each.input_schema)
        if each.name in names:
            violations.append(Violation(f"{path}.tools[{position}].name", "must be unique", "tools.unique"))
        names.add(each.name)
    return violations


def conflict_policy_from_proto(policy: pb.ConflictPolicy.ValueType) -> ConflictPolicy:
    """Return a conflict policy; UNSPECIFIED means REJECT."""
    return ConflictPolicy(policy or ConflictPolicy.REJECT)


def wait_until_from_proto(until: pb.WaitUntil.ValueType) -> WaitUntil:
    """Return when a wait ends; UNSPECIFIED means CLIENT_ACTION."""
    return WaitUntil(until or WaitUntil.CLIENT_ACTION)
