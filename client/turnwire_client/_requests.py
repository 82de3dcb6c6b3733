"""Requests of the contract, built from what a caller has at hand. A number that does not fit is refused here."""

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from turnwire.v1.inference_pb2 import ConflictPolicy, InferenceConfig, Overrides
from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.tool_pb2 import Tool
from turnwire.v1.turn_pb2 import Block, UserBlock

# What the fields of the contract can hold. google.protobuf.Duration: about 10,000 years.
UINT32_MAX: Final = 2**32 - 1
UINT64_MAX: Final = 2**64 - 1
DURATION_SECONDS_MAX: Final = 315_576_000_000

# A time: seconds, or a timedelta.
Seconds: TypeAlias = float | timedelta

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
    output_schema: str | Mapping[str, object],
    engine_options: str | Mapping[str, object],
    record_snapshots: bool,
    conflict_policy: Conflict,
    parent: int | None,
    timeout: Seconds | None,
    attempts_max: int | None,
    metadata: Mapping[str, str] | None,
    data: Mapping[str, str] | None,
    idempotency_key: str,
) -> StartInferenceRequest:
    """What Client.start_inference sends.

    Raises ValueError for a number that the contract has no room for.
    """
    request = StartInferenceRequest(
        input=to_blocks(input),
        parent=None if parent is None else in_range("parent", parent, UINT32_MAX),
        profile=profile,
        conflict_policy=CONFLICTS[conflict_policy],
        idempotency_key=idempotency_key,
        timeout=None if timeout is None else to_duration(timeout),
        attempts_max=None if attempts_max is None else in_range("attempts_max", attempts_max, UINT32_MAX),
        metadata=metadata or {},
        data=data or {},
    )
    if isinstance(session, str):
        request.session_id = session
    else:
        request.new_session.CopyFrom(session or NewSession())
    overrides = Overrides(
        config=config,
        tools=tools,
        output_schema=to_json_text(output_schema),
        engine_options=to_json_text(engine_options),
        record_snapshots=record_snapshots,
    )
    if overrides.ByteSize():
        request.overrides.CopyFrom(overrides)
    return request


def to_json_text(value: str | Mapping[str, object]) -> str:
    """JSON text as it is, and an object as JSON text."""
    return value if isinstance(value, str) else json.dumps(dict(value))


def to_blocks(input: str | Iterable[Block]) -> Iterable[Block]:  # noqa: A002 - the contract's name
    """What the user says as one block, and blocks as they are."""
    if isinstance(input, str):
        return [Block(user=UserBlock(text=input))]
    return input


def to_duration(value: Seconds) -> Duration:
    """Seconds, or a timedelta, as the contract's Duration.

    Raises ValueError unless it is finite, not negative and at most what a Duration holds.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= DURATION_SECONDS_MAX:
        raise ValueError(f"a time has to be from 0 to {DURATION_SECONDS_MAX} seconds, not {seconds}")
    duration = Duration()
    duration.FromTimedelta(value if isinstance(value, timedelta) else timedelta(seconds=value))
    return duration


def in_range(name: str, value: int, maximum: int) -> int:
    """The value. Raises ValueError unless it is from 0 to the maximum."""
    if not 0 <= value <= maximum:
        raise ValueError(f"{name} has to be from 0 to {maximum}, not {value}")
    return value


def mint_key() -> str:
    """A new idempotency key."""
    return str(uuid.uuid4())
