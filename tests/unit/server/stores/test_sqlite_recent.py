"""The inferences that a SqliteSessionStore has at hand: as the last commits left them, and bounded."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sqlite_recent import RECENT_MAX, RecentInferences

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def _inference(inference_id: str, session_id: str = "s", state: InferenceState = InferenceState.RUNNING) -> Inference:
    return Inference(session_id, inference_id, state, NOW, first_sequence=1, last_sequence=3)


def _appended(inference_id: str, last: int, *, session_id: str = "s", is_deleted: bool = False) -> Sequence[Commit]:
    return [Commit("p", session_id, (Chunk(last, last, inference_id, None, b""),), is_deleted=is_deleted)]


@pytest.fixture
def recent() -> RecentInferences:
    return RecentInferences()


def test_what_was_written_is_at_hand(recent: RecentInferences) -> None:
    first = _inference("a")
    recent.take([("p", first)], ())
    assert recent.get("p", "a") is first
    assert (recent.get("other", "a"), recent.get("p", "b")) == (None, None)
    second = replace(first, state=InferenceState.SUCCEEDED)
    recent.take([("p", first), ("p", second)], ())
    assert recent.get("p", "a") is second


def test_what_was_appended_to_it_counts(recent: RecentInferences) -> None:
    recent.take([("p", _inference("a"))], ())
    recent.take((), _appended("a", 7))
    recent.take((), _appended("a", 8))
    assert recent.get("p", "a") == replace(_inference("a"), last_sequence=8)
    assert recent.get("p", "a") == replace(_inference("a"), last_sequence=8)
    written = replace(_inference("a"), last_sequence=9)
    recent.take((), _appended("a", 9))
    recent.take([("p", written)], _appended("a", 9))
    assert recent.get("p", "a") is written


def test_one_that_is_queued_is_read(recent: RecentInferences) -> None:
    recent.take([("p", _inference("a"))], ())
    recent.take((), _appended("a", 4))
    recent.take([("p", _inference("a", state=InferenceState.QUEUED))], ())
    assert recent.get("p", "a") is None
    recent.take([("p", _inference("a"))], ())
    assert recent.get("p", "a") == _inference("a")


def test_what_is_deleted_is_gone(recent: RecentInferences) -> None:
    recent.take([("p", _inference("a")), ("p", _inference("b", "t")), ("q", _inference("c"))], ())
    recent.take([("p", _inference("a"))], _appended("a", 4, is_deleted=True))
    assert recent.get("p", "a") is None
    assert recent.get("p", "b")
    assert recent.get("q", "c"), "another principal's session of the same name"


def test_the_oldest_make_room(recent: RecentInferences) -> None:
    for number in range(RECENT_MAX):
        recent.take([("p", _inference(f"i{number}"))], _appended(f"i{number}", 3))
    recent.take([("p", _inference("i0"))], ())
    recent.take([("p", _inference("last"))], ())
    assert recent.get("p", "i0"), "it was written again"
    assert recent.get("p", "i1") is None
    assert recent.get("p", "last")


def test_nothing_is_kept_of_what_is_not_known(recent: RecentInferences) -> None:
    recent.take([("p", _inference("a"))], _appended("a", 4))
    recent.clear()
    assert recent.get("p", "a") is None
