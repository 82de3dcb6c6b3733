"""What this process asked the store to lease to it, by claims and by starts, until it is known what became of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from turnwire_server.domain.errors import StoreUnavailableError, TurnwireError
from turnwire_server.domain.ids import Mint
from turnwire_server.stores.start import Seat, Started

# The most inferences that one call claims, so that claiming never keeps the store for long.
CLAIM_MAX = 64

# The most that is claimed to be recovered while there is no room for more.
RECOVERIES_MAX = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A claim to send: with these tokens, and for what."""

    tokens: tuple[str, ...]
    only_lost: bool


class Leasing:
    """The tokens that a process, known as `owner`, has in use. Where a start failed, the next claim tells of its seat.

    A claim leaves half of the room to starts that come while it is under way. They get a seat each, and need no claim.
    """

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self.owner = mint()
        self._asked: Asked | None = None
        self._seats: set[str] = set()  # bounded by the room that they were given
        self._unresolved: list[str] = []  # those of them whose call is over, and nobody knows how

    def begin_again(self) -> None:
        """Take another owner's name: what was given to the one before is not ours."""
        self.owner, self._asked = self._mint(), None
        self._seats.difference_update(self._unresolved)
        self._unresolved.clear()

    @property
    def tokens(self) -> set[str]:
        """The tokens that may name a lease of ours that we have not seen yet."""
        return {*self._seats, *(self._asked.tokens if self._asked else ())}

    @property
    def seat_count(self) -> int:
        """How many seats are taken."""
        return len(self._seats)

    @property
    def has_unresolved(self) -> bool:
        """Whether only a claim can tell what became of something."""
        return bool(self._asked or self._unresolved)

    def ask(self, room: int) -> Asked:
        """Return the claim to send: the last one as it was, until it is answered. Recovering needs no room."""
        if self._asked is None:
            count, only_lost = (_share(room), False) if room > 0 else (RECOVERIES_MAX, True)
            name = self._mint()  # of the call: its tokens are as unique as it is
            self._asked = Asked((*self._unresolved, *(f"{name}.{number}" for number in range(count))), only_lost)
        return self._asked

    def ask_again(self) -> Asked | None:
        """Return the claim that resolves what is unresolved, and asks for nothing more; None if nothing is."""
        if self._asked is None and self._unresolved:
            self._asked = Asked(tuple(self._unresolved), only_lost=True)
        return self._asked

    def answered(self) -> None:
        """Say that the claim was answered."""
        if self._asked:
            self._seats.difference_update(self._asked.tokens)
            self._unresolved = [token for token in self._unresolved if token not in self._asked.tokens]
            self._asked = None

    def take_seat(self, room: int, *, is_claim_due: bool) -> Seat | None:
        """Return a seat for one more inference, None if there is no room beside the claim under way and the one due."""
        if self._asked and not self._asked.only_lost:
            room -= len(self._asked.tokens)
        if room <= (_share(room) if is_claim_due else 0):
            return None
        seat = Seat(self.owner, self._mint())
        self._seats.add(seat.token)
        return seat

    async def start(self, seat: Seat, send: Callable[[Seat], Awaitable[Started]]) -> Started:
        """Send a start with a seat. Errors: what `send` raises; then it may not be known what became of the seat."""
        try:
            started = await send(seat)
        except BaseException as error:
            if _is_refusal(error):
                self._seats.discard(seat.token)
            else:
                self._unresolved.append(seat.token)
            raise
        self._seats.discard(seat.token)
        return started


def _share(room: int) -> int:
    """Return how much of the room a claim is for. What waits longer comes first where there is room for one only."""
    return min((room + 1) // 2, CLAIM_MAX)


def _is_refusal(error: BaseException) -> bool:
    """Whether a call that raised this has certainly not happened."""
    if isinstance(error, StoreUnavailableError):
        return error.is_definite
    return isinstance(error, TurnwireError)
