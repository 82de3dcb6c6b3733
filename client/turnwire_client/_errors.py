"""What can go wrong, one class per reason of the catalogue in error_reason.proto.

    TurnwireError
      RequestError                    a gRPC status: it was refused, or it is not known whether it was accepted
        InvalidArgumentError          MalformedMessage-, InvalidField-, UnknownBlockKind-, InvalidPageTokenError
        NotFoundError                 SessionNotFound-, InferenceNotFound-, TurnNotFound-, ProfileNotFound-,
                                      PauseNotFoundError
        AlreadyExistsError            SessionAlreadyExists-, IdempotencyKeyReusedError
        AbortedError                  SessionBusy-, RevisionMismatchError
        FailedPreconditionError       NoActiveInference-, EmptyTurn-, TurnNotOpened-, TurnNotClosed-,
                                      InferenceNotWaiting-, ToolCallNotPending-, CapabilityMissing-,
                                      OverrideNotAllowedError
        OutOfRangeError               LogReplaced-, CursorAhead-, EventsCompactedError
        ResourceExhaustedError        RequestTooLarge-, QueueFull-, RateLimited-, QuotaExceeded-, TooManyWatchersError
        UnavailableError              Draining-, StoreUnavailableError; itself: the server cannot be reached
        UnauthenticatedError          CredentialsInvalid-, CredentialsExpiredError
        UnimplementedError            FeatureNotImplementedError
        PermissionDeniedError
        InternalError
        RequestDeadlineExceededError  no answer within the deadline of the rpc
      InferenceFailedError            the terminal event of an accepted inference says failed
        AttemptLost-, DeadlineExceeded-, OutputTooLarge-, OutputInvalid-, ToolFailed-, MiddlewareFailed-,
        StepAborted-, ToolsUnavailableError
        EngineError                   EngineOptionsInvalid-, EngineUnavailable-, EngineRateLimited-, EngineRejected-,
                                      EngineUnauthenticated-, EngineStreamBroken-, EngineStalled-, EngineFailed-,
                                      ContentRefusedError
      InferenceCancelledError         the terminal event says cancelled
      SessionDeletedError             the session was deleted while its events were watched
      StreamLostError                 a stream of events was cut and could not be resumed in time
      ProtocolError                   the server broke a promise of the contract
        UnknownEventError             an event that this version does not know and must not skip

A reason that this version does not know becomes the class of its code, as the catalogue demands. `ERRORS` maps every
reason to its class. Branch on classes, `reason`, `code` and `metadata`, never on messages.
"""

from collections.abc import Mapping
from types import MappingProxyType

from grpc import StatusCode

from turnwire_client._error_bases import (
    CataloguedError,
    InferenceCancelledError,
    InferenceFailedError,
    ProtocolError,
    RequestError,
    Retry,
    SessionDeletedError,
    StreamLostError,
    TurnwireError,
    UnknownEventError,
    Violation,
)

# One table, in the order of the tree above: code groups first, then their reasons.
# fmt: off
__all__ = [
    "ERRORS", "AbortedError", "AlreadyExistsError", "AttemptLostError", "CapabilityMissingError", "CataloguedError",
    "ContentRefusedError", "CredentialsExpiredError", "CredentialsInvalidError", "CursorAheadError",
    "DeadlineExceededError", "DrainingError", "EmptyTurnError", "EngineError", "EngineFailedError",
    "EngineOptionsInvalidError", "EngineRateLimitedError", "EngineRejectedError", "EngineStalledError",
    "EngineStreamBrokenError", "EngineUnauthenticatedError", "EngineUnavailableError", "EventsCompactedError",
    "FailedPreconditionError", "FeatureNotImplementedError", "IdempotencyKeyReusedError", "InferenceCancelledError",
    "InferenceFailedError", "InferenceNotFoundError", "InferenceNotWaitingError", "InternalError",
    "InvalidArgumentError", "InvalidFieldError", "InvalidPageTokenError", "LogReplacedError",
    "MalformedMessageError", "MiddlewareFailedError", "NoActiveInferenceError", "NotFoundError", "OutOfRangeError",
    "OutputInvalidError", "OutputTooLargeError", "OverrideNotAllowedError", "PauseNotFoundError",
    "PermissionDeniedError", "ProfileNotFoundError", "ProtocolError", "QueueFullError", "QuotaExceededError",
    "RateLimitedError", "RequestDeadlineExceededError", "RequestError", "RequestTooLargeError",
    "ResourceExhaustedError", "Retry", "RevisionMismatchError", "SessionAlreadyExistsError", "SessionBusyError",
    "SessionDeletedError", "SessionNotFoundError", "StepAbortedError", "StoreUnavailableError", "StreamLostError",
    "TooManyWatchersError", "ToolCallNotPendingError", "ToolFailedError", "ToolsUnavailableError",
    "TurnNotClosedError", "TurnNotFoundError", "TurnNotOpenedError", "TurnwireError", "UnauthenticatedError",
    "UnavailableError", "UnimplementedError", "UnknownBlockKindError", "UnknownEventError", "Violation",
]

_S, _R = StatusCode, Retry


class InvalidArgumentError(RequestError, code=_S.INVALID_ARGUMENT, definite=True):
    """The request breaks a rule."""
class MalformedMessageError(InvalidArgumentError, reason="MALFORMED_MESSAGE", metadata="message"):
    """The bytes of the request are not a message of its type."""
class InvalidFieldError(InvalidArgumentError, reason="INVALID_FIELD"):
    """A field breaks a rule; see `violations`."""
class UnknownBlockKindError(InvalidArgumentError, reason="UNKNOWN_BLOCK_KIND", metadata="block"):
    """A block has no kind that the server knows."""
class InvalidPageTokenError(InvalidArgumentError, reason="INVALID_PAGE_TOKEN"):
    """The page token belongs to another listing."""
class NotFoundError(RequestError, code=_S.NOT_FOUND, definite=True):
    """What was named is not there, or is not the caller's."""
class SessionNotFoundError(NotFoundError, reason="SESSION_NOT_FOUND", metadata="session_id"):
    """There is no such session."""
class InferenceNotFoundError(NotFoundError, reason="INFERENCE_NOT_FOUND", metadata="inference_id"):
    """There is no such inference, or it is not one of the session that was named."""
class TurnNotFoundError(NotFoundError, reason="TURN_NOT_FOUND", metadata="session_id index"):
    """The session has no turn of that index."""
class ProfileNotFoundError(NotFoundError, reason="PROFILE_NOT_FOUND", metadata="profile"):
    """The server has no such profile."""
class PauseNotFoundError(NotFoundError, reason="PAUSE_NOT_FOUND", metadata="pause"):
    """There is no such pause."""
class AlreadyExistsError(RequestError, code=_S.ALREADY_EXISTS, definite=True):
    """What was to be created is there."""
class SessionAlreadyExistsError(AlreadyExistsError, reason="SESSION_ALREADY_EXISTS", metadata="session_id"):
    """The session_id is taken."""
class IdempotencyKeyReusedError(AlreadyExistsError, reason="IDEMPOTENCY_KEY_REUSED", metadata="rpc"):
    """The idempotency key was used before with other content."""
class AbortedError(RequestError, code=_S.ABORTED, definite=True):
    """The request conflicts with what happens now."""
class SessionBusyError(AbortedError, reason="SESSION_BUSY", retry=_R.LATER, metadata="session_id inference_id"):
    """The session has an inference that has not ended; `metadata["inference_id"]` names it."""
class RevisionMismatchError(AbortedError, reason="REVISION_MISMATCH", metadata="session_id revision"):
    """The session is at another revision than was expected."""
class FailedPreconditionError(RequestError, code=_S.FAILED_PRECONDITION, definite=True):
    """The state does not allow it."""
class NoActiveInferenceError(FailedPreconditionError, reason="NO_ACTIVE_INFERENCE", metadata="session_id"):
    """The session has no inference to cancel."""
class EmptyTurnError(FailedPreconditionError, reason="EMPTY_TURN", metadata="session_id"):
    """There is no input and no turn to continue from."""
class TurnNotOpenedError(FailedPreconditionError, reason="TURN_NOT_OPENED", retry=_R.LATER, metadata="inference_id"):
    """The inference has no turn, or not yet."""
class TurnNotClosedError(
    FailedPreconditionError, reason="TURN_NOT_CLOSED", retry=_R.LATER, metadata="session_id index"
):
    """The turn to build on is still OPEN."""
class InferenceNotWaitingError(FailedPreconditionError, reason="INFERENCE_NOT_WAITING", metadata="inference_id state"):
    """The inference does not wait for tool results."""
class ToolCallNotPendingError(
    FailedPreconditionError, reason="TOOL_CALL_NOT_PENDING", metadata="inference_id tool_calls"
):
    """Some of the tool calls are unknown or settled."""
class CapabilityMissingError(FailedPreconditionError, reason="CAPABILITY_MISSING", metadata="profile capability"):
    """The profile's engine cannot do what the request needs."""
class OverrideNotAllowedError(FailedPreconditionError, reason="OVERRIDE_NOT_ALLOWED", metadata="profile override"):
    """The profile does not allow a request, or a session, to change this of it."""
class OutOfRangeError(RequestError, code=_S.OUT_OF_RANGE, definite=True):
    """The cursor does not fit the log."""
class LogReplacedError(OutOfRangeError, reason="LOG_REPLACED", metadata="session_id log"):
    """The cursor belongs to another log; start from the beginning."""
class CursorAheadError(OutOfRangeError, reason="CURSOR_AHEAD", metadata="session_id after_sequence head_sequence"):
    """The cursor is beyond the head of the log."""
class EventsCompactedError(
    OutOfRangeError, reason="EVENTS_COMPACTED", metadata="session_id after_sequence earliest_sequence"
):
    """Retention has removed events after the cursor; start from a snapshot."""
class ResourceExhaustedError(RequestError, code=_S.RESOURCE_EXHAUSTED, definite=True):
    """A limit is reached."""
class RequestTooLargeError(
    ResourceExhaustedError, reason="REQUEST_TOO_LARGE", metadata="request_bytes request_bytes_max"
):
    """The request has more bytes than the contract allows."""
class QueueFullError(
    ResourceExhaustedError, reason="QUEUE_FULL", retry=_R.AFTER_RETRY_INFO,
    metadata="session_id queue_depth queue_depth_max",
):
    """The session's line is full."""
class RateLimitedError(ResourceExhaustedError, reason="RATE_LIMITED", retry=_R.AFTER_RETRY_INFO, metadata="limit"):
    """Requests come too fast."""
class QuotaExceededError(
    ResourceExhaustedError, reason="QUOTA_EXCEEDED", retry=_R.AFTER_RETRY_INFO, metadata="quota quota_max"
):
    """A quota is used up."""
class TooManyWatchersError(
    ResourceExhaustedError, reason="TOO_MANY_WATCHERS", retry=_R.AFTER_RETRY_INFO, metadata="watchers_max"
):
    """The server holds as many watchers as it may."""
class UnavailableError(RequestError, code=_S.UNAVAILABLE, retry=_R.NOW):
    """The server cannot be reached or does not serve; the request may have taken effect unless `definite`."""
class DrainingError(UnavailableError, reason="DRAINING", retry=_R.NOW, definite=True):
    """The server is shutting down; nothing was accepted."""
class StoreUnavailableError(UnavailableError, reason="STORE_UNAVAILABLE", retry=_R.NOW):
    """The store did not answer."""
class UnauthenticatedError(RequestError, code=_S.UNAUTHENTICATED, definite=True):
    """The credentials are not accepted."""
class CredentialsInvalidError(UnauthenticatedError, reason="CREDENTIALS_INVALID"):
    """The credentials are missing, malformed or not valid."""
class CredentialsExpiredError(UnauthenticatedError, reason="CREDENTIALS_EXPIRED"):
    """The credentials have expired."""
class UnimplementedError(RequestError, code=_S.UNIMPLEMENTED, definite=True):
    """The server does not have the rpc."""
class FeatureNotImplementedError(UnimplementedError, reason="FEATURE_NOT_IMPLEMENTED", metadata="feature"):
    """The server does not have the rpc or the feature."""
class PermissionDeniedError(
    RequestError, reason="PERMISSION_DENIED", code=_S.PERMISSION_DENIED, definite=True, metadata="permission"
):
    """The principal may not call this rpc."""
class InternalError(RequestError, reason="INTERNAL", code=_S.INTERNAL):
    """A defect of the server."""
class RequestDeadlineExceededError(RequestError, code=_S.DEADLINE_EXCEEDED, retry=_R.NOW):
    """No answer came within the deadline of the rpc; the request may have taken effect."""
class AttemptLostError(
    InferenceFailedError, reason="ATTEMPT_LOST", code=_S.ABORTED, retry=_R.NEW_INFERENCE, metadata="attempt"
):
    """The server process that ran the inference is gone."""
class DeadlineExceededError(
    InferenceFailedError, reason="DEADLINE_EXCEEDED", code=_S.DEADLINE_EXCEEDED, definite=True, retry=_R.NEW_INFERENCE,
    metadata="timeout",
):
    """The inference's timeout passed."""
class OutputTooLargeError(
    InferenceFailedError, reason="OUTPUT_TOO_LARGE", code=_S.RESOURCE_EXHAUSTED, definite=True,
    metadata="output_bytes_max",
):
    """The output passed the most bytes that a block may have."""
class OutputInvalidError(
    InferenceFailedError, reason="OUTPUT_INVALID", code=_S.FAILED_PRECONDITION, definite=True, retry=_R.NEW_INFERENCE,
    metadata="violation",
):
    """The final text does not satisfy the output schema."""
class ToolFailedError(InferenceFailedError, reason="TOOL_FAILED", code=_S.ABORTED, metadata="tool"):
    """A tool failed, and the profile says that this ends the inference."""
class MiddlewareFailedError(InferenceFailedError, reason="MIDDLEWARE_FAILED", code=_S.INTERNAL, metadata="middleware"):
    """A middleware crashed."""
class StepAbortedError(InferenceFailedError, reason="STEP_ABORTED", code=_S.ABORTED, definite=True, metadata="pause"):
    """A pause was released with `abort`, or its deadline policy said so."""
class ToolsUnavailableError(
    InferenceFailedError, reason="TOOLS_UNAVAILABLE", code=_S.UNAVAILABLE, definite=True,
    retry=_R.NEW_INFERENCE, metadata="source"
):
    """Tools that the profile promises could not be had."""
class EngineError(InferenceFailedError):
    """The engine or its provider failed."""
class EngineOptionsInvalidError(
    EngineError, reason="ENGINE_OPTIONS_INVALID", code=_S.INVALID_ARGUMENT, definite=True, metadata="engine"
):
    """The engine does not understand its options."""
class EngineUnavailableError(
    EngineError, reason="ENGINE_UNAVAILABLE", code=_S.UNAVAILABLE, retry=_R.NEW_INFERENCE, metadata="engine http_status"
):
    """The provider could not be reached, or answered with a server error."""
class EngineRateLimitedError(
    EngineError, reason="ENGINE_RATE_LIMITED", code=_S.RESOURCE_EXHAUSTED, definite=True, retry=_R.NEW_INFERENCE,
    metadata="engine http_status",
):
    """The provider's rate limit refused the call."""
class EngineRejectedError(
    EngineError, reason="ENGINE_REJECTED", code=_S.FAILED_PRECONDITION, definite=True, metadata="engine http_status"
):
    """The provider refused the call as invalid."""
class EngineUnauthenticatedError(
    EngineError, reason="ENGINE_UNAUTHENTICATED", code=_S.FAILED_PRECONDITION, definite=True,
    metadata="engine http_status",
):
    """The provider did not accept the server's credentials."""
class EngineStreamBrokenError(
    EngineError, reason="ENGINE_STREAM_BROKEN", code=_S.UNAVAILABLE, retry=_R.NEW_INFERENCE, metadata="engine"
):
    """The provider's stream broke off."""
class EngineStalledError(
    EngineError, reason="ENGINE_STALLED", code=_S.DEADLINE_EXCEEDED, retry=_R.NEW_INFERENCE,
    metadata="engine idle_seconds_max",
):
    """The engine produced nothing for too long."""
class EngineFailedError(EngineError, reason="ENGINE_FAILED", code=_S.INTERNAL, metadata="engine"):
    """The engine crashed."""
class ContentRefusedError(
    EngineError, reason="CONTENT_REFUSED", code=_S.FAILED_PRECONDITION, definite=True, metadata="engine"
):
    """The model or its provider refused to produce the output."""
# fmt: on


def _tree(root: type[CataloguedError]) -> list[type[CataloguedError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


# Every reason of the catalogue, without `ERROR_REASON_`, and its class.
ERRORS: Mapping[str, type[CataloguedError]] = MappingProxyType(
    {error.reason: error for error in _tree(CataloguedError) if error.reason}
)
