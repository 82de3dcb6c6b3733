"""What a trouble explains, and what it does not."""

import time

from fault.troubles import DOWN, NETWORK, Failure, Troubles


def test_a_trouble_explains_only_its_own_failures_and_only_calls_that_it_met() -> None:
    troubles = Troubles()
    before = time.monotonic()
    assert not troubles.explain(Failure.BREAK, before)
    trouble = troubles.begin("cut", {Failure.BREAK})
    assert troubles.explain(Failure.BREAK, before)
    assert not troubles.explain(Failure.STORE, before)
    troubles.end(trouble)
    assert troubles.explain(Failure.BREAK, before)
    assert not troubles.explain(Failure.BREAK, time.monotonic() + 1)


def test_seconds_of_troubles_that_overlap_count_once() -> None:
    troubles = Troubles()
    long, short = (troubles.begin(kind, {Failure.SILENCE}) for kind in ("long", "short"))
    now = time.monotonic()
    long.began, long.ended = now - 10, now - 4
    short.began, short.ended = now - 8, now - 6
    assert round(troubles.seconds(now - 20), 1) == 6.0
    assert round(troubles.seconds(now - 7), 1) == 3.0
    assert round(troubles.seconds(now), 1) == 0.0


def test_no_trouble_outlasts_a_new_server() -> None:
    troubles = Troubles()
    trouble = troubles.begin("paused", {Failure.SILENCE})
    troubles.end_all()
    assert trouble.ended <= time.monotonic()


def test_that_a_server_ends_is_no_trouble_of_its_disk() -> None:
    troubles = Troubles()
    since = time.monotonic()
    troubles.begin(DOWN, set(Failure))
    assert not troubles.has_struck(Failure.STORE, since)
    troubles.end(troubles.begin("full", {Failure.STORE}))
    assert troubles.has_struck(Failure.STORE, since)
    assert not troubles.has_struck(Failure.SILENCE, since)
    assert not troubles.has_struck(Failure.STORE, time.monotonic() + 1)


def test_a_network_does_not_hold_up_a_server() -> None:
    troubles = Troubles()
    since = time.monotonic()
    troubles.begin("cut", NETWORK)
    assert not troubles.was_held_up(since)
    troubles.end(troubles.begin("paused", {Failure.SILENCE}))
    assert troubles.was_held_up(since)
    assert not troubles.was_held_up(time.monotonic() + 1)
