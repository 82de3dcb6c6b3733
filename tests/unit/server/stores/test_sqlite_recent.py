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
RUNNING, QUEUED, SUCCEEDED = InferenceState.RUNNING, InferenceState.QUEUED, InferenceState.SUCCEEDED


class Recent(RecentInferences):
    """Takes what is committed at once."""

    def take(self, *written: tuple[str, Inference], commits: Sequence[Commit] = (), was: bool | None = True) -> None:
        self.settle(self.withdraw(written, commits), was)


def _inference(inference_id: str, session_id: str = "s", state: InferenceState = RUNNING, last: int = 3) -> Inference:
    return Inference(session_id, inference_id, state, NOW, first_sequence=1, last_sequence=last)


def _appended(inference_id: str, last: int, session_id: str = "s", *, is_deleted: bool = False) -> Sequence[Commit]:
    return [Commit("p", session_id, (Chunk(last, last, inference_id, None, b""),), is_deleted=is_deleted)]


@pytest.fixture
def recent() -> Recent:
    return Recent()


def test_what_was_written_is_at_hand(recent: Recent) -> None:
    first = _inference("a")
    recent.take(("p", first))
    assert recent.get("p", "a") is first
    assert (recent.get("other", "a"), recent.get("p", "b")) == (None, None)
    second = replace(first, state=SUCCEEDED)
    recent.take(("p", first), ("p", second))
    assert recent.get("p", "a") is second


def test_what_was_appended_to_it_counts(recent: Recent) -> None:
    recent.take(("p", _inference("a")))
    recent.take(commits=_appended("a", 7))
    recent.take(commits=_appended("a", 8))
    assert recent.get("p", "a") == _inference("a", last=8)
    recent.take(("p", _inference("a", last=9)), commits=_appended("a", 9))
    assert recent.get("p", "a") == _inference("a", last=9)


def test_what_was_appended_after_it_was_written_counts(recent: Recent) -> None:
    requested = replace(_inference("a"), cancel_reason="enough")
    recent.take(("p", requested), commits=_appended("a", 5))
    assert recent.get("p", "a") == replace(requested, last_sequence=5)


def test_one_that_is_queued_is_read(recent: Recent) -> None:
    recent.take(("p", _inference("a")))
    recent.take(("p", _inference("a", state=QUEUED)), commits=_appended("a", 4))
    assert recent.get("p", "a") is None
    recent.take(("p", _inference("a")))
    assert recent.get("p", "a") == _inference("a")


def test_what_is_deleted_is_gone(recent: Recent) -> None:
    recent.take(("p", _inference("a")))
    recent.take(("p", _inference("a")), ("p", _inference("b", "t")), commits=_appended("a", 4, is_deleted=True))
    assert recent.get("p", "a") is None
    assert recent.get("p", "b")


def test_what_is_changed_is_not_at_hand_until_it_is_told(recent: Recent) -> None:
    recent.take(("p", _inference("a")), ("p", _inference("b")))
    change = recent.withdraw([("p", _inference("a", state=SUCCEEDED))], _appended("b", 7))
    assert (recent.get("p", "a"), recent.get("p", "b")) == (None, None)
    recent.settle(change, True)
    assert recent.get("p", "a") == _inference("a", state=SUCCEEDED)
    assert recent.get("p", "b") == _inference("b", last=7)


def test_what_the_next_transaction_changes_does_not_come_back_before_it_is_told(recent: Recent) -> None:
    first = recent.withdraw([("p", _inference("a")), ("p", _inference("b"))], ())
    second = recent.withdraw([("p", _inference("a", state=SUCCEEDED))], ())
    recent.settle(first, True)
    assert (recent.get("p", "a"), recent.get("p", "b")) == (None, _inference("b"))
    recent.settle(second, True)
    assert recent.get("p", "a") == _inference("a", state=SUCCEEDED)


def test_what_the_next_transaction_deletes_does_not_come_back(recent: Recent) -> None:
    first = recent.withdraw([("p", _inference("a"))], ())
    second = recent.withdraw([], _appended("a", 4, is_deleted=True))
    recent.settle(first, True)
    assert recent.get("p", "a") is None
    recent.settle(second, True)
    assert recent.get("p", "a") is None


@pytest.mark.parametrize(("happens", "left"), [(False, _inference("a")), (None, None)])
def test_what_did_not_happen_is_as_it_was_if_that_is_known(
    recent: Recent, happens: bool | None, left: Inference | None
) -> None:
    recent.take(("p", _inference("a")))
    recent.take(("p", _inference("a", state=SUCCEEDED)), commits=_appended("a", 4), was=happens)
    assert recent.get("p", "a") == left


def test_the_oldest_make_room(recent: Recent) -> None:
    for number in range(RECENT_MAX):
        recent.take(("p", _inference(f"i{number}")), commits=_appended(f"i{number}", 3))
    recent.take(("p", _inference("i0")))
    recent.take(("p", _inference("last")))
    assert recent.get("p", "i0"), "it was written again"
    assert recent.get("p", "i1") is None
    assert recent.get("p", "last")
