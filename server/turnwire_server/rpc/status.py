"""Errors of the domain as gRPC statuses.

The table itself is the classes of domain/errors.py: each has the reason, the code and the metadata keys that the
catalogue lists for it. Here they get their form: google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo where
there is more to say.
"""

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from turnwire_server.domain.errors import InvalidFieldError, TurnwireError

DOMAIN = "turnwire"

# Details travel in the trailing metadata, of which clients receive up to 8 KiB: in all of it, these leave less than
# half.
VIOLATIONS_MAX = 8
TEXT_BYTES_MAX = 128


def to_status(error: TurnwireError) -> status_pb2.Status:
    """Return the status of a request that failed with `error`."""
    status = status_pb2.Status(code=int(error.code), message=_cut(error.message, 2 * TEXT_BYTES_MAX))
    metadata = {key: _cut(value, 2 * TEXT_BYTES_MAX) for key, value in error.metadata.items()}
    status.details.append(_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)))
    if isinstance(error, InvalidFieldError):
        status.details.append(_pack(_bad_request(error)))
    if error.retry_delay_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_delay_seconds * 1e9))
        status.details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _bad_request(error: InvalidFieldError) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(violation.field, TEXT_BYTES_MAX),
                description=_cut(violation.description, TEXT_BYTES_MAX),
                reason=violation.rule,
            )
            for violation in error.violations[:VIOLATIONS_MAX]
        ]
    )


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _cut(text: str, bytes_max: int) -> str:
    return text.encode()[:bytes_max].decode(errors="ignore")
