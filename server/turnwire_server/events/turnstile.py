"""The turnstile between the watchers and the wire: a turn of the event loop sends so much and no more.

Sending is work for the event loop: gRPC copies a response when it is handed over, whether the watcher reads or not. A
commit may wake thousands of watchers at once. If all of them sent at once, everything else would stand still for
seconds, the inference that they watch included; so those who come when a turn has sent its part wait for a later one,
and what else is to be done has its place in between.
"""

import asyncio
from collections import OrderedDict

# What a turn of the event loop sends, a little over a millisecond of work: responses pass until it is used up, and what
# the last of them takes beyond it is missing in the turns that follow.
TURN_BYTES = 512 * 1024

# What a response counts besides its bytes: the smallest takes as long as this many more bytes in a larger one.
RESPONSE_BYTES = 16 * 1024


class Turnstile:
    """Lets streams pass, so many bytes in a turn of the event loop, first come first served.

    Nobody holds it, so nobody can hold it up: who has passed is done with it, and the next turn comes by itself.
    """

    def __init__(self, turn_bytes: int = TURN_BYTES) -> None:
        self._turn_bytes = turn_bytes
        self._bytes_left = turn_bytes
        self._is_scheduled = False
        # Those who wait, with what each counts, in the order in which they came: at most one for each stream.
        self._waiting: OrderedDict[asyncio.Future[None], int] = OrderedDict()

    @property
    def waiting_count(self) -> int:
        """How many streams wait."""
        return len(self._waiting)

    async def wait_to_pass(self, size: int) -> None:
        """Return when a response of `size` bytes may be sent: at once if nobody waits and the turn is not used up."""
        cost = size + RESPONSE_BYTES
        if not self._waiting and self._bytes_left > 0:
            self._take(cost)
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = cost
        try:
            await future
        finally:  # whoever is cancelled leaves the line; what it was let in with is not given to others
            self._waiting.pop(future, None)

    def _take(self, cost: int) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._bytes_left -= cost

    def _begin_turn(self) -> None:
        self._bytes_left = min(self._turn_bytes, self._bytes_left + self._turn_bytes)
        self._is_scheduled = self._bytes_left < self._turn_bytes
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        while self._waiting and self._bytes_left > 0:
            future, cost = self._waiting.popitem(last=False)
            if not future.done():  # else it was cancelled, and is about to leave
                self._take(cost)
                future.set_result(None)
