from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.wire.timestamp import from_proto, optional_to_proto, to_proto


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip_and_as_protobuf_does_it(moment: datetime) -> None:
    official = Timestamp()
    official.FromDatetime(moment)
    assert to_proto(moment) == official
    assert from_proto(official) == moment


def test_zones_do_not_matter() -> None:
    moment = datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert to_proto(moment.astimezone(timezone(timedelta(hours=5)))) == to_proto(moment)


def test_nanoseconds_are_cut() -> None:
    assert from_proto(Timestamp(seconds=1, nanos=1999)).microsecond == 1


def test_naive_moments_are_refused() -> None:
    with pytest.raises(TypeError):
        to_proto(datetime(2026, 11, 20))  # noqa: DTZ001


def test_nothing_stays_nothing() -> None:
    assert optional_to_proto(None) is None
