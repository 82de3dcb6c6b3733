from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.wire.duration import from_proto, to_proto


@given(st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000)))
def test_round_trip_and_as_protobuf_does_it(length: timedelta) -> None:
    official = Duration()
    official.FromTimedelta(length)
    assert to_proto(length) == official
    assert from_proto(official) == length


@pytest.mark.parametrize(("nanos", "microseconds"), [(1, 1), (1000, 1), (1001, 2), (-1, 0), (-1000, -1)])
def test_nanoseconds_are_rounded_up(nanos: int, microseconds: int) -> None:
    assert from_proto(Duration(nanos=nanos)) == timedelta(microseconds=microseconds)


def test_what_a_timedelta_cannot_hold() -> None:
    assert from_proto(Duration(seconds=315_576_000_000)) == timedelta(seconds=315_576_000_000)
    assert from_proto(Duration(seconds=2**62)) == timedelta.max
    assert from_proto(Duration(seconds=-(2**62))) == timedelta.min
