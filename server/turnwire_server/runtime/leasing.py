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
    """A claim to send: with these tokens, of which so many are new, and for what."""

    tokens: tuple[str, ...]
    new_count: int
    only_lost: bool


class Leasing:
    """The tokens that a process, known as `owner`, has in use. Where a start failed, the next claim tells of its seat.

    While nobody has waited for room, as far as the last claim told, starts get seats; a claim then leaves half of the
    room to those that come while it is under way.
    """

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self.owner = mint()
        self._asked: Asked | None = None
        self._seats: set[str] = set()  # bounded by the room that they were given
        self._unresolved: list[str] = []  # those of them whose call is over, and nobody knows how
        self._may_some_wait = True

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
    def is_waiting(self) -> bool:
        """Whether there are any."""
        return bool(self._seats or self._asked)

    @property
    def seat_count(self) -> int:
        """How many seats are taken."""
        return len(self._seats)

    @property
    def has_unresolved(self) -> bool:
        """Whether only a claim can tell what became of a seat."""
        return bool(self._unresolved)

    def ask(self, room: int) -> Asked:
        """Return the claim to send: the last one as it was, until it is answered. Recovering needs no room."""
        if self._asked is None:
            if room <= 0:
                self._may_some_wait = True
            share = room if self._may_some_wait else (room + 1) // 2
            count = min(share, CLAIM_MAX) if room > 0 else RECOVERIES_MAX
            name = self._mint()  # of the call: its tokens are as unique as it is
            new = (f"{name}.{number}" for number in range(count))
            self._asked = Asked((*self._unresolved[:CLAIM_MAX], *new), count, only_lost=room <= 0)
        return self._asked

    def ask_again(self) -> Asked | None:
        """Return the claim that resolves what is unresolved, and asks for nothing more; None if nothing is."""
        if self._asked is None and self._unresolved:
            self._asked = Asked(tuple(self._unresolved[:CLAIM_MAX]), 0, only_lost=True)
        return self._asked

    def answered(self, claim_count: int) -> bool:
        """Say that the claim was answered with so many; return whether another one may find more at once."""
        asked, self._asked = self._asked, None
        if asked is None:
            return False
        resolved = self._seats.intersection(asked.tokens)
        self._seats -= resolved
        self._unresolved = [token for token in self._unresolved if token not in resolved]
        is_full = claim_count == len(asked.tokens)
        self._may_some_wait = is_full or asked.only_lost
        return is_full or bool(resolved)

    def take_seat(self, room: int, *, is_claim_due: bool) -> Seat | None:
        """Return a seat for one more inference, None if there is no room beside the claim under way and the one due."""
        if self._asked and not self._asked.only_lost:
            room -= self._asked.new_count
        if is_claim_due:
            room -= min((room + 1) // 2, CLAIM_MAX)
        if room <= 0 or self._may_some_wait:
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


def _is_refusal(error: BaseException) -> bool:
    """Whether a call that raised this has certainly not happened."""
    if isinstance(error, StoreUnavailableError):
        return error.is_definite
    return isinstance(error, TurnwireError)
