"""Work that is done again and again: that it fails once must end neither the rounds nor the server."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.inference import Inference
from turnwire_server.events.patience import CALL_SECONDS_MAX, bounded
from turnwire_server.stores.lease import DeclaredDead
from turnwire_server.telemetry.logs import bound_to, logger

T = TypeVar("T")

log = logger()


class Guard:
    """Does pieces of work, each bounded in time, and remembers how often each has failed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[tuple[str, str], int] = {}

    async def call(
        self,
        what: str,
        work: Callable[[], Awaitable[T]],
        about: Inference | None = None,
        seconds: float = CALL_SECONDS_MAX,
    ) -> T | None:
        """Do one piece of work. That it fails is logged, and it has its next round. Errors: DeclaredDead."""
        session_id, inference_id = (about.session_id, about.inference_id) if about else ("", "")
        key = (what, inference_id)
        try:
            done = await bounded(self._clock, work, seconds)
        except DeclaredDead:
            raise
        except Exception as error:
            self._failures[key] = count = self._failures.get(key, 0) + 1
            if count & (count - 1) == 0:  # a store that stays away is told after 1, 2, 4, 8, ... rounds
                cause = error.__cause__ if isinstance(error, StoreUnavailableError) else None
                with bound_to(session_id, inference_id):
                    log.error("failed; it will be tried again", work=what, failures=count, exc_info=cause or error)
            return None
        self._failures.pop(key, None)
        return done
