"""Moments, to and from protobuf."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_proto(moment: datetime) -> Timestamp:
    """Return an aware datetime as a Timestamp."""
    message = Timestamp()
    fill(message, moment)
    return message


def fill(message: Timestamp, moment: datetime) -> None:
    """Set a Timestamp to an aware datetime."""
    since = moment - _EPOCH
    message.seconds = since.days * 86400 + since.seconds
    message.nanos = since.microseconds * 1000


def from_proto(message: Timestamp) -> datetime:
    """Return a Timestamp as a datetime in UTC, cut to microseconds."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def optional_to_proto(moment: datetime | None) -> Timestamp | None:
    """Return a Timestamp, or None for None."""
    return None if moment is None else to_proto(moment)
