"""What the catalogue of error_reason.proto says of each reason that refuses a request: a test compares the two."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Reason:
    """The status code of a reason, the keys of its metadata, and whether RetryInfo comes with it."""

    code: str
    metadata: tuple[str, ...] = ()
    has_retry_info: bool = False


REASONS: Mapping[str, Reason] = MappingProxyType(
    {
        "MALFORMED_MESSAGE": Reason("INVALID_ARGUMENT", ("message",)),
        "INVALID_FIELD": Reason("INVALID_ARGUMENT"),
        "UNKNOWN_BLOCK_KIND": Reason("INVALID_ARGUMENT", ("block",)),
        "INVALID_PAGE_TOKEN": Reason("INVALID_ARGUMENT"),
        "REQUEST_TOO_LARGE": Reason("RESOURCE_EXHAUSTED", ("request_bytes", "request_bytes_max")),
        "FEATURE_NOT_IMPLEMENTED": Reason("UNIMPLEMENTED", ("feature",)),
        "SESSION_NOT_FOUND": Reason("NOT_FOUND", ("session_id",)),
        "INFERENCE_NOT_FOUND": Reason("NOT_FOUND", ("inference_id",)),
        "TURN_NOT_FOUND": Reason("NOT_FOUND", ("session_id", "index")),
        "PROFILE_NOT_FOUND": Reason("NOT_FOUND", ("profile",)),
        "PAUSE_NOT_FOUND": Reason("NOT_FOUND", ("pause",)),
        "SESSION_ALREADY_EXISTS": Reason("ALREADY_EXISTS", ("session_id",)),
        "IDEMPOTENCY_KEY_REUSED": Reason("ALREADY_EXISTS", ("rpc",)),
        "SESSION_BUSY": Reason("ABORTED", ("session_id", "inference_id")),
        "REVISION_MISMATCH": Reason("ABORTED", ("session_id", "revision")),
        "NO_ACTIVE_INFERENCE": Reason("FAILED_PRECONDITION", ("session_id",)),
        "EMPTY_TURN": Reason("FAILED_PRECONDITION", ("session_id",)),
        "TURN_NOT_OPENED": Reason("FAILED_PRECONDITION", ("inference_id",)),
        "TURN_NOT_CLOSED": Reason("FAILED_PRECONDITION", ("session_id", "index")),
        "INFERENCE_NOT_WAITING": Reason("FAILED_PRECONDITION", ("inference_id", "state")),
        "TOOL_CALL_NOT_PENDING": Reason("FAILED_PRECONDITION", ("inference_id", "tool_calls")),
        "CAPABILITY_MISSING": Reason("FAILED_PRECONDITION", ("profile", "capability")),
        "OVERRIDE_NOT_ALLOWED": Reason("FAILED_PRECONDITION", ("profile", "override")),
        "LOG_REPLACED": Reason("OUT_OF_RANGE", ("session_id", "log")),
        "CURSOR_AHEAD": Reason("OUT_OF_RANGE", ("session_id", "after_sequence", "head_sequence")),
        "EVENTS_COMPACTED": Reason("OUT_OF_RANGE", ("session_id", "after_sequence", "earliest_sequence")),
        "QUEUE_FULL": Reason(
            "RESOURCE_EXHAUSTED", ("session_id", "queue_depth", "queue_depth_max"), has_retry_info=True
        ),
        "RATE_LIMITED": Reason("RESOURCE_EXHAUSTED", ("limit",), has_retry_info=True),
        "QUOTA_EXCEEDED": Reason("RESOURCE_EXHAUSTED", ("quota", "quota_max"), has_retry_info=True),
        "TOO_MANY_WATCHERS": Reason("RESOURCE_EXHAUSTED", ("watchers_max",), has_retry_info=True),
        "DRAINING": Reason("UNAVAILABLE"),
        "STORE_UNAVAILABLE": Reason("UNAVAILABLE"),
        "INTERNAL": Reason("INTERNAL"),
        "CREDENTIALS_INVALID": Reason("UNAUTHENTICATED"),
        "CREDENTIALS_EXPIRED": Reason("UNAUTHENTICATED"),
        "PERMISSION_DENIED": Reason("PERMISSION_DENIED", ("permission",)),
    }
)
"""By name, without ERROR_REASON_."""
