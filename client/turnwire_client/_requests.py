"""Requests of the contract, built from what a caller has at hand."""

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from turnwire.v1.inference_pb2 import ConflictPolicy, InferenceConfig, Overrides
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.tool_pb2 import Tool
from turnwire.v1.turn_pb2 import Block, UserBlock

# What happens when the session is busy; see ConflictPolicy.
Conflict: TypeAlias = Literal["reject", "enqueue", "interrupt", "rollback"]

CONFLICTS: dict[Conflict, ConflictPolicy.ValueType] = {
    "reject": ConflictPolicy.CONFLICT_POLICY_REJECT,
    "enqueue": ConflictPolicy.CONFLICT_POLICY_ENQUEUE,
    "interrupt": ConflictPolicy.CONFLICT_POLICY_INTERRUPT,
    "rollback": ConflictPolicy.CONFLICT_POLICY_ROLLBACK,
}


def start_request(
    session: str | NewSession | None,
    input: str | Iterable[Block],  # noqa: A002 - the contract's name
    *,
    profile: str,
    config: InferenceConfig | None,
    tools: Iterable[Tool],
    output_schema: str,
    engine_options: str | Mapping[str, object],
    conflict_policy: Conflict,
    parent: int | None,
    timeout: float | timedelta | None,
    attempts_max: int | None,
    metadata: Mapping[str, str] | None,
    data: Mapping[str, str] | None,
    idempotency_key: str,
) -> StartInferenceRequest:
    """What Client.start_inference sends."""
    request = StartInferenceRequest(
        input=to_blocks(input),
        parent=parent,
        profile=profile,
        conflict_policy=CONFLICTS[conflict_policy],
        idempotency_key=idempotency_key,
        timeout=None if timeout is None else to_duration(timeout),
        attempts_max=attempts_max,
        metadata=metadata or {},
        data=data or {},
    )
    if isinstance(session, str):
        request.session_id = session
    else:
        request.new_session.CopyFrom(session or NewSession())
    options = engine_options if isinstance(engine_options, str) else json.dumps(dict(engine_options))
    overrides = Overrides(config=config, tools=tools, output_schema=output_schema, engine_options=options)
    if overrides.ByteSize():
        request.overrides.CopyFrom(overrides)
    return request


def to_blocks(input: str | Iterable[Block]) -> Iterable[Block]:  # noqa: A002 - the contract's name
    """What the user says as one block, and blocks as they are."""
    if isinstance(input, str):
        return [Block(user=UserBlock(text=input))]
    return input


def to_duration(value: float | timedelta) -> Duration:
    """Seconds, or a timedelta, as the contract's Duration."""
    duration = Duration()
    duration.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    return duration
