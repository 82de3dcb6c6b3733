"""Stores with faults: calls whose outcome is ambiguous, and the negative controls, each of which leaves out one rule.

They wrap a real store, and pass on what they do not change.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, cast

from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.session import NewSession, Session
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Claim, Ending, Lease, Step
from turnwire_server.stores.start import Decide, Idempotency, Seat, StartCommand, Started

# The calls that are made under a lease, from a position.
_UNDER_LEASE = frozenset({"append", "record_effects", "commit_step", "hand_back", "finish"})

AnyCall = Callable[..., Awaitable[Any]]


class Fault(Enum):
    """What becomes of one call. To its caller all but NONE look alike.

    UNHEARD is done, LOST is never done, and LATE is done some time: perhaps after it was sent again, or given up.
    """

    NONE = 0
    UNHEARD = 1
    LOST = 2
    LATE = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to."""

    answer: Any = None
    error: Exception | None = None


class _Wrapper:
    """Passes on what is not changed."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> AnyCall:
        return cast(AnyCall, getattr(self._store, name))


class AmbiguousStore(_Wrapper):
    """A store whose calls may raise before they are done, or after, as `choose` says for each by its name.

    `hear` is told what the calls really came to that were done. A LATE one is left to whoever chose that.
    """

    def __init__(
        self, store: SessionStore, choose: Callable[[str], Fault], hear: Callable[[Outcome], object] = lambda _: None
    ) -> None:
        super().__init__(store)
        self._choose = choose
        self._hear = hear

    def __getattr__(self, name: str) -> AnyCall:
        call = super().__getattr__(name)

        async def send(*args: object, **named: object) -> object:
            fault = self._choose(name)
            if fault in (Fault.LOST, Fault.LATE):
                raise StoreUnavailableError
            outcome = await hear_out(call(*args, **named))
            self._hear(outcome)
            if fault is Fault.UNHEARD:
                raise StoreUnavailableError from outcome.error
            if outcome.error:
                raise outcome.error
            return outcome.answer

        return send


async def hear_out(call: Awaitable[object]) -> Outcome:
    """Return what a call comes to. A mistake of the tests is no outcome."""
    try:
        return Outcome(await call)
    except (TypeError, AttributeError, NameError):
        raise
    except Exception as error:  # noqa: BLE001 - a refusal is an outcome as well
        return Outcome(error=error)


class NoLeaseCheck(_Wrapper):
    """Negative control: whoever calls is taken for the one who has the lease."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self._valid: dict[tuple[str, str], str] = {}

    async def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """Note which leases are valid now."""
        claims = await self._store.claim(owner, tokens, only_lost=only_lost)
        for claim in claims:
            self._valid[_target(claim.lease)] = claim.lease.token
        return claims

    def __getattr__(self, name: str) -> AnyCall:
        call = super().__getattr__(name)
        if name not in _UNDER_LEASE:
            return call

        async def send(lease: Lease, position: int, *args: object, **named: object) -> object:
            valid = replace(lease, token=self._valid.get(_target(lease), lease.token))
            return await call(valid, position, *args, **named)

        return send


class NoPosition(_Wrapper):
    """Negative control: every call is taken to be from where its inference is now."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self._positions: dict[tuple[str, str], int] = {}

    async def claim(self, owner: str, tokens: Sequence[str], *, only_lost: bool = False) -> tuple[Claim, ...]:
        """Note where the inferences are."""
        claims = await self._store.claim(owner, tokens, only_lost=only_lost)
        for claim in claims:
            self._positions[_target(claim.lease)] = claim.position
        return claims

    def __getattr__(self, name: str) -> AnyCall:
        call = super().__getattr__(name)
        if name not in _UNDER_LEASE:
            return call

        async def send(lease: Lease, position: int, *args: object, **named: object) -> object:
            now = self._positions.get(_target(lease), position)
            answer = await call(lease, now, *args, **named)
            self._positions[_target(lease)] = now + _count_events(args)
            return answer

        return send


class NoKeyGate(_Wrapper):
    """Negative control: no call that creates is known again, neither by its key nor by what its caller minted."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self._sent: list[str] = []

    async def create_session(
        self,
        principal: str,
        new: NewSession,
        token: str,
        idempotency: Idempotency | None,
        check: Callable[[], object] | None = None,
    ) -> tuple[Session, bool]:
        """Create as if it were for the first time."""
        return await self._store.create_session(principal, new, self._unknown(token), None, check)

    async def start(self, command: StartCommand, decide: Decide, seat: Seat | None = None) -> Started:
        """Start as if it were for the first time."""
        inference_id = self._unknown(command.inference_id)
        return await self._store.start(replace(command, inference_id=inference_id, idempotency=None), decide, seat)

    def _unknown(self, token: str) -> str:
        times = self._sent.count(token)
        self._sent.append(token)
        return f"{token}-again-{times}" if times else token


def _target(lease: Lease) -> tuple[str, str]:
    return lease.principal, lease.inference_id


def _count_events(args: Sequence[object]) -> int:
    """Return how many events were appended by a call, whose last argument they are, or are in."""
    last = args[-1] if args else ()
    events = last.events if isinstance(last, Step | Ending) else cast(Sequence[object], last)
    return sum(isinstance(event, bytes) for event in events)
