"""Lengths of time, to and from protobuf."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration


def to_proto(length: timedelta) -> Duration:
    """Return a timedelta as a Duration; both parts have the same sign, as the message demands."""
    whole = length // timedelta(microseconds=1)
    seconds, microseconds = divmod(abs(whole), 1_000_000)
    sign = -1 if whole < 0 else 1
    return Duration(seconds=sign * seconds, nanos=sign * microseconds * 1000)


def from_proto(message: Duration) -> timedelta:
    """Return a Duration as a timedelta, rounded up to microseconds, so that a positive one stays positive.

    One beyond what a timedelta can hold becomes the longest or the shortest that there is.
    """
    try:
        return timedelta(seconds=message.seconds, microseconds=-(-message.nanos // 1000))
    except OverflowError:
        return timedelta.max if message.seconds > 0 else timedelta.min
