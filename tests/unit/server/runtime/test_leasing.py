"""The tokens of claims and seats: what each has room for, and how it is found out what became of them."""

import asyncio

import pytest

from turnwire_server.domain.errors import QueueFullError, StoreUnavailableError
from turnwire_server.runtime.leasing import CLAIM_MAX, RECOVERIES_MAX, Leasing
from turnwire_server.stores.start import Seat, Started

UNKNOWN = StoreUnavailableError("for a test")


def _idle(room: int = 100) -> Leasing:
    """Return one that was told that nobody waits."""
    numbers = iter(range(100_000))
    leasing = Leasing(lambda: f"m{next(numbers)}")
    leasing.ask(room)
    leasing.answered(0)
    return leasing


def _seat(leasing: Leasing, room: int = 100) -> Seat:
    seat = leasing.take_seat(room, is_claim_due=False)
    assert seat
    return seat


async def _lose(leasing: Leasing, seat: Seat, error: BaseException = UNKNOWN) -> None:
    async def send(_: Seat) -> Started:
        raise error

    with pytest.raises(type(error)):
        await leasing.start(seat, send)


def test_before_the_first_claim_has_told_somebody_may_wait() -> None:
    leasing = Leasing(lambda: "m")
    assert leasing.take_seat(100, is_claim_due=False) is None


def test_a_claim_leaves_half_of_the_room_to_starts() -> None:
    leasing = _idle()
    assert leasing.ask(5).new_count == 3
    seats = [leasing.take_seat(5 - leasing.seat_count, is_claim_due=False) for _ in range(4)]
    assert [seat is not None for seat in seats] == [True, True, False, False]


@pytest.mark.parametrize("room", [0, 1, 2, 3, 10, 500])
def test_a_claim_that_is_due_has_its_room(room: int) -> None:
    leasing, taken = _idle(), 0
    while leasing.take_seat(room - leasing.seat_count, is_claim_due=True):
        taken += 1
    assert (leasing.seat_count, taken >= room - CLAIM_MAX) == (taken, True)
    assert room - taken >= min(1, room)


def test_who_has_waited_comes_first() -> None:
    leasing = _idle()
    asked = leasing.ask(4)
    assert leasing.answered(len(asked.tokens)), "there may be more"
    assert leasing.take_seat(50, is_claim_due=False) is None
    assert leasing.ask(50).new_count == 50
    assert not leasing.answered(49)
    assert _seat(leasing)


def test_where_there_is_no_room_somebody_may_wait() -> None:
    leasing = _idle()
    asked = leasing.ask(0)
    assert (asked.new_count, asked.only_lost) == (RECOVERIES_MAX, True)
    leasing.answered(0)
    assert leasing.take_seat(10, is_claim_due=False) is None
    assert leasing.ask(10).new_count == 10
    leasing.answered(0)
    assert _seat(leasing)


async def test_the_next_claim_tells_what_became_of_a_seat() -> None:
    leasing = _idle()
    seat = _seat(leasing)
    assert not leasing.has_unresolved
    await _lose(leasing, seat)
    assert leasing.has_unresolved
    assert leasing.tokens == {seat.token}
    assert leasing.ask(0).tokens[0] == seat.token
    assert leasing.answered(1), "its room is free"
    assert (leasing.tokens, leasing.seat_count, leasing.has_unresolved) == (set(), 0, False)


async def test_a_claim_under_way_does_not_tell_of_what_came_after_it() -> None:
    leasing = _idle()
    asked = leasing.ask(4)
    seat = _seat(leasing, 4)
    await _lose(leasing, seat, asyncio.CancelledError())
    assert leasing.ask(4) == asked
    assert not leasing.answered(0)
    assert leasing.tokens == {seat.token}
    again = leasing.ask_again()
    assert again
    assert (again.tokens, again.new_count, again.only_lost) == ((seat.token,), 0, True)


async def test_a_claim_tells_of_a_bounded_number() -> None:
    leasing = _idle()
    for _ in range(CLAIM_MAX + 10):
        await _lose(leasing, _seat(leasing))
    assert len(leasing.ask(500).tokens) == 2 * CLAIM_MAX
    assert leasing.take_seat(CLAIM_MAX + 1, is_claim_due=False), "what is asked for again has its room already"
    leasing.answered(0)
    assert leasing.seat_count == 11
    again = leasing.ask_again()
    assert again
    assert len(again.tokens) == 10


@pytest.mark.parametrize(
    "error",
    [
        QueueFullError(session_id="s", queue_depth=1, queue_depth_max=1),
        StoreUnavailableError("for a test", is_definite=True),
    ],
)
async def test_a_refusal_is_no_riddle(error: Exception) -> None:
    leasing = _idle()
    await _lose(leasing, _seat(leasing), error)
    assert (leasing.is_waiting, leasing.ask_again()) == (False, None)


async def test_another_owner_has_no_seats_of_the_one_before() -> None:
    leasing = _idle()
    seat = _seat(leasing)
    await _lose(leasing, seat)
    leasing.begin_again()
    assert leasing.owner != seat.owner
    assert (leasing.tokens, leasing.has_unresolved) == (set(), False)
