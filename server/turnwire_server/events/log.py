"""Appending the events of one attempt: encoded once, batched by what arrived while the last commit ran.

The sequence itself is given by the store, under the session's lock.
"""

import asyncio
from collections.abc import Callable

from turnwire_server.domain.event import Event
from turnwire_server.events.patience import Patience
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Lease

# What an attempt may have waiting for its commit. At the bound the engine is held back by wait_for_room().
PENDING_EVENTS_MAX = 1024
PENDING_BYTES_MAX = 1024 * 1024

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
            if batch := self._take():
                await self._append(batch)

    def close(self) -> tuple[bytes, ...]:
        """Refuse further events; return those that pump() has not taken, to be committed with the end."""
        self._is_closed = True
        self._wake.set()
        return tuple(self._take())

    def _take(self) -> list[bytes]:
        batch, self._pending, self._pending_bytes = self._pending, [], 0
        self._room.set()
        return batch

    async def _append(self, batch: list[bytes]) -> None:
        # The outcome of a failed commit is unknown. Sending the same events from the same position again is harmless.
        await self._patience.call(lambda: self._store.append(self._lease, self.position, batch))
        self.position += len(batch)
