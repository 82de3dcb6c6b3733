"""Failures of accepted inferences, to and from protobuf."""

from turnwire.v1 import error_reason_pb2 as pb
from turnwire_server.domain.errors import Code, Failure

_PREFIX = "ERROR_REASON_"


def to_proto(failure: Failure) -> pb.Error:
    """Return a failure as an Error; its reason must be in the catalogue."""
    return pb.Error(
        reason=pb.ErrorReason.Value(_PREFIX + failure.reason),
        code=int(failure.code),
        message=failure.message,
        metadata=failure.metadata,
    )


def from_proto(message: pb.Error) -> Failure:
    """Return an Error as a failure."""
    reason = pb.ErrorReason.Name(message.reason).removeprefix(_PREFIX)
    return Failure(reason, Code(message.code), message.message, dict(message.metadata))
