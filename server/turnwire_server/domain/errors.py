"""The errors of the contract: one class per reason of error_reason.proto, in the order of the catalogue.

    TurnwireError
      RequestError      fails before acceptance: a gRPC status
        MalformedMessageError, InvalidFieldError, UnknownBlockKindError, InvalidPageTokenError,
        RequestTooLargeError, FeatureNotImplementedError, SessionNotFoundError, InferenceNotFoundError,
        TurnNotFoundError, ProfileNotFoundError, PauseNotFoundError, SessionAlreadyExistsError,
        IdempotencyKeyReusedError, SessionBusyError, RevisionMismatchError, NoActiveInferenceError,
        EmptyTurnError, TurnNotOpenedError, TurnNotClosedError, InferenceNotWaitingError,
        ToolCallNotPendingError, CapabilityMissingError, OverrideNotAllowedError, LogReplacedError,
        CursorAheadError, EventsCompactedError, QueueFullError, RateLimitedError, QuotaExceededError,
        TooManyWatchersError, DrainingError, StoreUnavailableError, InternalError, CredentialsInvalidError,
        CredentialsExpiredError, PermissionDeniedError
      InferenceError    ends an accepted inference: its terminal event
        AttemptLostError, DeadlineExceededError, OutputTooLargeError, OutputInvalidError, ToolFailedError,
        MiddlewareFailedError, StepAbortedError, ToolsUnavailableError
        EngineError     an engine may raise these
          EngineOptionsInvalidError, EngineUnavailableError, EngineRateLimitedError, EngineRejectedError,
          EngineUnauthenticatedError, EngineStreamBrokenError, EngineStalledError, EngineFailedError,
          ContentRefusedError

The reason of `SessionNotFoundError` is `SESSION_NOT_FOUND`, and so on. A test compares classes and catalogue, both
ways.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The gRPC status codes, by the numbers of google.rpc.Code."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an accepted inference failed: the data of the contract's Error, as it is stored and sent."""

    reason: str
    code: Code
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that breaks a rule."""

    field: str
    description: str
    rule: str = ""


class TurnwireError(Exception):
    """An error of the contract. `metadata` has exactly the keys that the catalogue lists for the reason."""

    reason: ClassVar[str] = ""
    code: ClassVar[Code] = Code.INTERNAL
    keys: ClassVar[tuple[str, ...]] = ()
    template: ClassVar[str] = ""
    retry_delay_seconds: ClassVar[float | None] = None

    def __init_subclass__(cls) -> None:
        cls.reason = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.removesuffix("Error")).upper()

    def __init__(self, message: str = "", /, **metadata: object) -> None:
        if metadata.keys() != set(self.keys):
            msg = f"{self.reason} takes the metadata {self.keys}, not {tuple(metadata)}"
            raise TypeError(msg)
        self.metadata = {key: str(metadata[key]) for key in self.keys}
        self.message = message or self.template.format(**self.metadata)
        super().__init__(self.message)


class RequestError(TurnwireError):
    """A request that was refused. Nothing was changed, unless the catalogue calls the reason not definite."""


class InferenceError(TurnwireError):
    """Why an accepted inference ended FAILED."""

    def failure(self) -> Failure:
        """Return the error as it is stored and sent."""
        return Failure(self.reason, self.code, self.message, self.metadata)


class EngineError(InferenceError):
    """Why an engine call failed."""


class MalformedMessageError(RequestError):
    """The bytes of the request are not an encoded message of the rpc's request type."""

    code = Code.INVALID_ARGUMENT
    keys = ("message",)
    template = "the request is not an encoded {message}; send the message type that the rpc takes"


class InvalidFieldError(RequestError):
    """A field breaks a rule of this contract."""

    code = Code.INVALID_ARGUMENT
    template = "the request breaks the rules of its fields"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field[:128]}: {v.description[:256]}" for v in violations[:8]))
        self.violations = violations


class UnknownBlockKindError(RequestError):
    """A block of the request has no kind that this server knows."""

    code = Code.INVALID_ARGUMENT
    keys = ("block",)
    template = "input block {block} has no kind that this server knows; set exactly one kind of this contract"


class InvalidPageTokenError(RequestError):
    """The page token was not made by this server for this rpc with these filters."""

    code = Code.INVALID_ARGUMENT
    template = "the page token does not belong to this listing; start again without one"


class RequestTooLargeError(RequestError):
    """The request has more bytes than the contract allows."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("request_bytes", "request_bytes_max")
    template = "the request has {request_bytes} bytes, more than the {request_bytes_max} that are allowed"


class FeatureNotImplementedError(RequestError):
    """This server does not have the rpc or the feature."""

    code = Code.UNIMPLEMENTED
    keys = ("feature",)
    template = "this server does not have {feature}"


class SessionNotFoundError(RequestError):
    """There is no such session."""

    code = Code.NOT_FOUND
    keys = ("session_id",)
    template = "there is no session {session_id}"


class InferenceNotFoundError(RequestError):
    """There is no such inference, or it is not one of the session that was named."""

    code = Code.NOT_FOUND
    keys = ("inference_id",)
    template = "there is no inference {inference_id}"


class TurnNotFoundError(RequestError):
    """The session has no turn of that index."""

    code = Code.NOT_FOUND
    keys = ("session_id", "index")
    template = "session {session_id} has no turn {index}"


class ProfileNotFoundError(RequestError):
    """The server has no profile of that name."""

    code = Code.NOT_FOUND
    keys = ("profile",)
    template = "there is no profile {profile}"


class PauseNotFoundError(RequestError):
    """There is no such pause; it was released or it reached its deadline."""

    code = Code.NOT_FOUND
    keys = ("pause",)
    template = "there is no pause {pause}"


class SessionAlreadyExistsError(RequestError):
    """A session of that session_id exists."""

    code = Code.ALREADY_EXISTS
    keys = ("session_id",)
    template = "session {session_id} exists; use it, or choose another session_id"


class IdempotencyKeyReusedError(RequestError):
    """The idempotency key was used before with another request content."""

    code = Code.ALREADY_EXISTS
    keys = ("rpc",)
    template = "the idempotency key was used for {rpc} before, with other content; mint a key per intent"


class SessionBusyError(RequestError):
    """The session has an inference that has not ended; `inference_id` names the first in line."""

    code = Code.ABORTED
    keys = ("session_id", "inference_id")
    template = (
        "session {session_id} is busy with inference {inference_id}; wait for it, cancel it, or choose "
        "another conflict policy"
    )


class RevisionMismatchError(RequestError):
    """The session is not at the revision that the request expects."""

    code = Code.ABORTED
    keys = ("session_id", "revision")
    template = "session {session_id} is at revision {revision}; read it again"


class NoActiveInferenceError(RequestError):
    """The session has no inference to cancel."""

    code = Code.FAILED_PRECONDITION
    keys = ("session_id",)
    template = "session {session_id} has no inference to cancel"


class EmptyTurnError(RequestError):
    """The turn would have no blocks: there is no input and no parent to continue from."""

    code = Code.FAILED_PRECONDITION
    keys = ("session_id",)
    template = "session {session_id} has nothing to continue from; send at least one input block"


class TurnNotOpenedError(RequestError):
    """The inference has no turn: it is QUEUED and never ran, or it ended before it ran."""

    code = Code.FAILED_PRECONDITION
    keys = ("inference_id",)
    template = "inference {inference_id} has no turn: it has not run"


class TurnNotClosedError(RequestError):
    """The turn that was named as parent or as fork point is still OPEN."""

    code = Code.FAILED_PRECONDITION
    keys = ("session_id", "index")
    template = "turn {index} of session {session_id} is still open; wait for its inference"


class InferenceNotWaitingError(RequestError):
    """The inference does not wait for tool results."""

    code = Code.FAILED_PRECONDITION
    keys = ("inference_id", "state")
    template = "inference {inference_id} is {state}; it does not wait for tool results"


class ToolCallNotPendingError(RequestError):
    """Some of the tool calls are unknown or settled."""

    code = Code.FAILED_PRECONDITION
    keys = ("inference_id", "tool_calls")
    template = "inference {inference_id} does not wait for {tool_calls}"


class CapabilityMissingError(RequestError):
    """The profile's engine cannot do what the request needs."""

    code = Code.FAILED_PRECONDITION
    keys = ("profile", "capability")
    template = "profile {profile} cannot do {capability}"


class OverrideNotAllowedError(RequestError):
    """The profile does not allow a request, or a session, to change this of it."""

    code = Code.FAILED_PRECONDITION
    keys = ("profile", "override")
    template = "profile {profile} does not allow a change of {override}; leave it out, or use another profile"


class LogReplacedError(RequestError):
    """The cursor belongs to another log: the session was deleted and created again, or the store was restored."""

    code = Code.OUT_OF_RANGE
    keys = ("session_id", "log")
    template = "session {session_id} has another log than the cursor; its log is {log}: start from the beginning"


class CursorAheadError(RequestError):
    """The cursor is beyond the head of the log."""

    code = Code.OUT_OF_RANGE
    keys = ("session_id", "after_sequence", "head_sequence")
    template = "sequence {after_sequence} is beyond the head {head_sequence} of session {session_id}"


class EventsCompactedError(RequestError):
    """Retention has removed events after the cursor."""

    code = Code.OUT_OF_RANGE
    keys = ("session_id", "after_sequence", "earliest_sequence")
    template = (
        "events after {after_sequence} of session {session_id} were removed; the first that is left is "
        "{earliest_sequence}"
    )


class QueueFullError(RequestError):
    """The session's line is full."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("session_id", "queue_depth", "queue_depth_max")
    template = "session {session_id} has {queue_depth} inferences in line; {queue_depth_max} are allowed"
    retry_delay_seconds = 1.0


class RateLimitedError(RequestError):
    """The principal sends requests too fast."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("limit",)
    template = "more requests than {limit} allows"
    retry_delay_seconds = 1.0


class QuotaExceededError(RequestError):
    """A quota of the principal is used up."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("quota", "quota_max")
    template = "the quota {quota} of {quota_max} is used up"
    retry_delay_seconds = 1.0


class TooManyWatchersError(RequestError):
    """The server holds as many watchers as it is configured to."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("watchers_max",)
    template = "the server holds {watchers_max} watchers already"
    retry_delay_seconds = 1.0


class DrainingError(RequestError):
    """The server is shutting down."""

    code = Code.UNAVAILABLE
    template = "the server is shutting down; repeat the request"


class StoreUnavailableError(RequestError):
    """The store did not answer, for a `cause`. Unless that `is_definite`, the request may have happened."""

    code = Code.UNAVAILABLE
    template = "the store did not answer; repeat the request with the same idempotency key"

    def __init__(self, cause: str = "", /, *, is_definite: bool = False, **metadata: object) -> None:
        super().__init__(self.template.replace("answer;", f"answer ({cause});") if cause else "", **metadata)
        self.is_definite = is_definite


class InternalError(RequestError):
    """A defect of the server."""

    code = Code.INTERNAL
    template = "a defect of the server; its log has the details"


class CredentialsInvalidError(RequestError):
    """The credentials are missing, malformed or not valid."""

    code = Code.UNAUTHENTICATED
    template = "the credentials are missing, malformed or not valid"


class CredentialsExpiredError(RequestError):
    """The credentials were valid and have expired."""

    code = Code.UNAUTHENTICATED
    template = "the credentials have expired"


class PermissionDeniedError(RequestError):
    """The principal may not call this rpc."""

    code = Code.PERMISSION_DENIED
    keys = ("permission",)
    template = "the permission {permission} is missing"


class AttemptLostError(InferenceError):
    """The server process that ran the inference is gone and no further attempt was allowed."""

    code = Code.ABORTED
    keys = ("attempt",)
    template = "attempt {attempt} was lost: its process is gone or could not go on; partial output is kept"


class DeadlineExceededError(InferenceError):
    """The inference's timeout passed."""

    code = Code.DEADLINE_EXCEEDED
    keys = ("timeout",)
    template = "the timeout of {timeout} passed"


class EngineOptionsInvalidError(EngineError):
    """The engine does not understand its options."""

    code = Code.INVALID_ARGUMENT
    keys = ("engine",)
    template = "engine {engine} does not understand its options"


class EngineUnavailableError(EngineError):
    """The engine's provider could not be reached, or answered with a server error."""

    code = Code.UNAVAILABLE
    keys = ("engine", "http_status")
    template = "the provider of engine {engine} cannot be reached or failed (HTTP status {http_status})"


class EngineRateLimitedError(EngineError):
    """The engine's provider refused the call because of its rate limit."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("engine", "http_status")
    template = "the provider of engine {engine} limits the rate (HTTP status {http_status})"


class EngineRejectedError(EngineError):
    """The engine's provider refused the call as invalid."""

    code = Code.FAILED_PRECONDITION
    keys = ("engine", "http_status")
    template = "the provider of engine {engine} refused the call (HTTP status {http_status})"


class EngineUnauthenticatedError(EngineError):
    """The engine's provider did not accept the server's credentials."""

    code = Code.FAILED_PRECONDITION
    keys = ("engine", "http_status")
    template = "the provider of engine {engine} did not accept the credentials (HTTP status {http_status})"


class EngineStreamBrokenError(EngineError):
    """The provider's stream broke off before the output was complete."""

    code = Code.UNAVAILABLE
    keys = ("engine",)
    template = "the stream of engine {engine} broke off"


class EngineStalledError(EngineError):
    """The engine produced nothing for longer than the profile allows."""

    code = Code.DEADLINE_EXCEEDED
    keys = ("engine", "idle_seconds_max")
    template = "engine {engine} produced nothing for {idle_seconds_max} s"


class EngineFailedError(EngineError):
    """The engine crashed."""

    code = Code.INTERNAL
    keys = ("engine",)
    template = "engine {engine} crashed"


class ContentRefusedError(EngineError):
    """The model or its provider refused to produce the output."""

    code = Code.FAILED_PRECONDITION
    keys = ("engine",)
    template = "the model of engine {engine} refused to answer"


class OutputTooLargeError(InferenceError):
    """The output passed the most bytes that a block may have."""

    code = Code.RESOURCE_EXHAUSTED
    keys = ("output_bytes_max",)
    template = "the output passed {output_bytes_max} bytes"


class OutputInvalidError(InferenceError):
    """The final text does not satisfy the output schema."""

    code = Code.FAILED_PRECONDITION
    keys = ("violation",)
    template = "the output does not satisfy the schema: {violation}"


class ToolFailedError(InferenceError):
    """A tool failed and the profile says that this ends the inference."""

    code = Code.ABORTED
    keys = ("tool",)
    template = "tool {tool} failed"


class MiddlewareFailedError(InferenceError):
    """A middleware crashed."""

    code = Code.INTERNAL
    keys = ("middleware",)
    template = "middleware {middleware} crashed"


class StepAbortedError(InferenceError):
    """A pause was released with `abort`, or its deadline policy said so."""

    code = Code.ABORTED
    keys = ("pause",)
    template = "pause {pause} was released with abort"


class ToolsUnavailableError(InferenceError):
    """Tools that the profile promises could not be had."""

    code = Code.UNAVAILABLE
    keys = ("source",)
    template = "the tools of {source} cannot be had"
