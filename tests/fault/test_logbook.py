"""What the test knows of a log: each of its assertions has a log here that only it refuses."""

import pytest

from fault import logbook
from fault.histories import SECOND, History, book, silent_assertions, story


def test_a_log_that_grows_passes() -> None:
    log = story() + story(SECOND, after=7)
    known = book(log[:10])
    assert list(known.unfinished) == [SECOND]
    assert known.active == SECOND
    assert known.take(log) == {SECOND: log[7:]}, "FIRST has ended before, and its events are checked again"
    assert not known.unfinished
    assert not known.active
    known.check_head(14)


def _changed_byte() -> None:
    known, log = book(story()), story()
    log[3].llm_delta.delta = "hellO"
    known.take(log)


def _two_active() -> None:
    log = story() + story(SECOND, after=7)
    early = [log[7], log[8]]
    early[0].sequence, early[1].sequence = 3, 4
    book([*log[:2], *early])


def _late_event() -> None:
    late = story(after=4)[3]
    assert late.sequence == 8
    book([*story(), late])


HISTORIES: dict[str, History] = {
    "lost event": ("Gapless: 8 follows 6", lambda: book(story()[:6]).take(story(SECOND, after=7))),
    "changed byte": ("HistoryImmutable: other bytes at 4", _changed_byte),
    "event after the end": ("Terminal: inference-1 goes on after its end", _late_event),
    "two active": ("SingleActive: inference-2 starts at 4 while inference-1", _two_active),
    "shorter log": ("Durable: the head is 6, and was 7", lambda: book(story()).check_head(6)),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_is_broken_is_refused(name: str) -> None:
    message, check = HISTORIES[name]
    with pytest.raises(AssertionError) as refused:
        check()
    assert str(refused.value).startswith(message)


def test_every_assertion_has_a_history() -> None:
    """An assertion that no history makes fail would be one that nobody knows to work."""
    assert silent_assertions(logbook, HISTORIES.values()) == []
