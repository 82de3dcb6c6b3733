import time
import uuid
from datetime import UTC, datetime, timedelta

from turnwire_server.domain.ids import mint_id


def test_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(mint_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_carries_the_time() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid.UUID(mint_id()).int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_carries_the_time_of_the_clock_that_is_handed_in() -> None:
    moment = datetime(2001, 2, 3, 4, 5, 6, 789_999, UTC)
    assert uuid.UUID(mint_id(lambda: moment)).int >> 80 == int(moment.timestamp()) * 1000 + 789
    assert uuid.UUID(mint_id(lambda: moment - timedelta(days=1))).int >> 80 == 981_173_106_789 - 86_400_000


def test_ids_of_different_milliseconds_sort_by_time() -> None:
    made = [mint_id() for _ in range(2000)]
    milliseconds = [uuid.UUID(each).int >> 80 for each in made]
    assert milliseconds == sorted(milliseconds)
    assert len(set(made)) == len(made)


def test_fits_the_contract() -> None:
    assert len(mint_id()) == 36
    assert set(mint_id()) <= set("0123456789abcdef-")
