"""Appending the events of one attempt: encoded once, batched by what arrived while the last commit ran.

The sequence itself is given by the store, under the session's lock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from turnwire_server.domain.event import Event
from turnwire_server.events.patience import Patience
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Lease

# What an attempt may have waiting for its commit. At the bound the engine is held back by wait_for_room().
PENDING_EVENTS_MAX = 1024
PENDING_BYTES_MAX = 1024 * 1024

T = TypeVar("T")

# What the core knows of the wire: an event to its bytes, once, and joined frames back to their events.
EncodeEvent = Callable[[Event], bytes]
DecodeFrames = Callable[[bytes], list[Event]]


class AttemptLog:
    """The writing end of the log for one attempt. `position` counts the events that are committed under the lease."""

    def __init__(
        self, store: SessionStore, lease: Lease, position: int, encode: EncodeEvent, patience: Patience
    ) -> None:
        self.position = position
        self._store = store
        self._lease = lease
        self._encode = encode
        self._patience = patience
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._is_closed = False
        self._failure: BaseException | None = None
        self._sending = asyncio.Lock()  # the position is known only between two calls of the store
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: Event) -> None:
        """Take an event. Raises CancelledError once the attempt was given up."""
        if self._is_closed:
            raise asyncio.CancelledError
        body = self._encode(event)
        self._pending.append(body)
        self._pending_bytes += len(body)
        self._wake.set()
        if len(self._pending) >= PENDING_EVENTS_MAX or self._pending_bytes >= PENDING_BYTES_MAX:
            self._room.clear()

    @property
    def has_room(self) -> bool:
        """Whether wait_for_room() would return at once: it is not the store that is waited for."""
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Return once there is room, not once everything is durable. Raises CancelledError once given up."""
        if not self._room.is_set():
            await self._room.wait()
            if self._is_closed:
                raise asyncio.CancelledError

    async def pump(self) -> None:
        """Append what is pending until close(). Raises Fenced, or StoreUnavailableError after patience."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._is_closed:
                return
            await self.commit(self._append)

    async def commit(self, send: Callable[[int, tuple[bytes, ...]], Awaitable[T]], *last: Event) -> T:
        """Write to the store, at the position reached, with what is pending and then `last`; return its answer.

        `send` takes the position and the encoded events, and may be called again until the store has answered. Must not
        be cancelled: the position would not be known any more. Raises what `send` does, and StoreUnavailableError after
        patience; and from then on that again, whatever is to be written: events are missing that come before it.
        """
        async with self._sending:
            if self._failure:
                raise self._failure
            try:
                batch = (*self._take(), *map(self._encode, last))
                answer = await self._patience.call(lambda: send(self.position, batch))
            except BaseException as failure:
                self._failure = failure
                raise
            self.position += len(batch)
            return answer

    def close(self) -> tuple[bytes, ...]:
        """Refuse further events; return those that pump() has not taken, to be committed with the end."""
        self._is_closed = True
        self._wake.set()
        return tuple(self._take())

    def _take(self) -> list[bytes]:
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        self._room.set()
        return batch

    async def _append(self, position: int, batch: tuple[bytes, ...]) -> None:
        # The outcome of a failed commit is unknown. Sending the same events from the same position again is harmless.
        if batch:
            await self._store.append(self._lease, position, batch)
