"""From what the contract says about an error to the exception that says it, for both planes of error_reason.proto."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from turnwire.v1.error_reason_pb2 import Error, ErrorReason
from turnwire_client import _errors as errors
from turnwire_client._errors import ERRORS, CataloguedError, InferenceFailedError, RequestError, Violation

if TYPE_CHECKING:
    from turnwire_client._handle import Result

DOMAIN: Final = "turnwire"
DETAILS_KEY: Final = "grpc-status-details-bin"
REASON_PREFIX: Final = "ERROR_REASON_"

CODES: Final[Mapping[int, StatusCode]] = {code.value[0]: code for code in StatusCode}

# What a status becomes whose reason is not known. Codes that are not here become RequestError itself.
GROUPS: Final[Mapping[StatusCode, type[RequestError]]] = {
    group.code: group
    for group in (
        errors.InvalidArgumentError,
        errors.NotFoundError,
        errors.AlreadyExistsError,
        errors.AbortedError,
        errors.FailedPreconditionError,
        errors.OutOfRangeError,
        errors.ResourceExhaustedError,
        errors.UnavailableError,
        errors.UnauthenticatedError,
        errors.UnimplementedError,
        errors.PermissionDeniedError,
        errors.InternalError,
        errors.RequestDeadlineExceededError,
    )
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> RequestError:
    """The exception for a gRPC status; its reason is empty when the status did not come from a turnwire server."""
    info, retry, bad_request = ErrorInfo(), RetryInfo(), BadRequest()
    for detail in _details(error):
        _ = detail.Unpack(info) or detail.Unpack(retry) or detail.Unpack(bad_request)
    reason = info.reason if info.domain == DOMAIN else ""
    code = error.code()
    known = ERRORS.get(reason)
    kind = known if known is not None and issubclass(known, RequestError) else GROUPS.get(code, RequestError)
    found = kind(
        error.details() or code.name,
        info.metadata,
        retry_delay=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        violations=tuple(Violation(item.field, item.description) for item in bad_request.field_violations),
    )
    found.reason, found.code = reason, code
    return found


def from_error(error: Error, result: "Result") -> InferenceFailedError:
    """The exception for the Error of an inference that FAILED."""
    reason = reason_name(error.reason)
    known = ERRORS.get(reason)
    kind = known if known is not None and issubclass(known, InferenceFailedError) else InferenceFailedError
    found = kind(error, result)
    found.reason, found.code = reason, CODES.get(error.code, StatusCode.UNKNOWN)
    return found


def reason_name(reason: int) -> str:
    """The catalogue's name of a reason; its number, when this version does not know it."""
    if reason in ErrorReason.values():
        return ErrorReason.Name(ErrorReason.ValueType(reason)).removeprefix(REASON_PREFIX)
    return str(reason)


def is_transient(error: CataloguedError) -> bool:
    """Whether the same request, sent again, may well succeed.

    That is so when the server says so, and when a status carries no reason and hence was made on the way: a connection
    that was refused or cut is UNAVAILABLE, a stream that a proxy reset is CANCELLED, INTERNAL or UNKNOWN.
    """
    if error.reason:
        return error.retry is errors.Retry.NOW
    return error.code in ON_THE_WAY


ON_THE_WAY: Final = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        StatusCode.INTERNAL,
        StatusCode.UNKNOWN,
    }
)


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    status = Status()
    for key, value in error.trailing_metadata():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                return []
    return list(status.details)
