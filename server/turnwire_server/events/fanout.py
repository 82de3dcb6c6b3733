"""Live fan-out: what was committed last, for everyone who watches a session.

A commit appends references to its chunks to one ring per watched session and wakes the watchers once. A watcher takes
what it has not sent yet; one that fell behind the ring reads the store instead. So a slow watcher costs no memory,
and slows nobody (promise: Bounded).
"""

import asyncio
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from turnwire_server.domain.event import Chunk
from turnwire_server.stores.base import Commit

Key = tuple[str, str]  # principal, session_id

# A ring keeps at least the newest chunk and at most this many bytes; what falls out is read from the store.
RING_BYTES_MAX = 1024 * 1024

# How many watchers read the store at a time, so that thousands who fell behind leave threads of it to everyone else.
# The others wait; how many those can be is bounded by the streams that there may be.
READS_MAX = 2


class Signal:
    """Wakes everyone who waits, once per notification; counts notifications so that none is missed in between."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # a set in the order in which they came

    def notify(self) -> None:
        """Wake everyone who waits now."""
        self.count += 1
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait_beyond(self, count: int) -> None:
        """Return once the number of notifications is above `count`."""
        while self.count <= count:
            future = asyncio.get_running_loop().create_future()
            self._waiting[future] = None
            try:
                await future
            finally:
                self._waiting.pop(future, None)


class Topic:
    """One session as its watchers see it. `head_sequence` is the newest sequence seen here, 0 while none was."""

    def __init__(self) -> None:
        self.watcher_count = 0
        self.head_sequence = 0
        self.is_closed = False
        self.is_deleted = False
        self.refresh_count = 0
        self.advanced = Signal()
        self.transitioned = Signal()
        self._ring: deque[Chunk] = deque()
        self._ring_bytes = 0

    def publish(self, chunks: Sequence[Chunk]) -> None:
        """Append committed chunks and wake the watchers."""
        for chunk in chunks:
            if chunk.last_sequence <= self.head_sequence:
                continue  # told twice
            if chunk.first_sequence != self.head_sequence + 1:
                self._ring.clear()  # something was not told: the ring must not bridge the gap, the store has it
                self._ring_bytes = 0
            self._ring.append(chunk)
            self._ring_bytes += len(chunk.data)
            self.head_sequence = chunk.last_sequence
        while self._ring_bytes > RING_BYTES_MAX and len(self._ring) > 1:
            self._ring_bytes -= len(self._ring.popleft().data)
        self.advanced.notify()
        if any(chunk.state is not None for chunk in chunks):
            self.transitioned.notify()

    def refresh(self) -> None:
        """Have everyone who waits look at the store: something may have been committed by another process."""
        self.refresh_count += 1
        self.advanced.notify()
        self.transitioned.notify()

    def close(self, *, is_deleted: bool = False) -> None:
        """Tell everyone who waits that nothing more will come: the session was deleted, or the server drains."""
        self.is_closed = True
        self.is_deleted = is_deleted
        self.advanced.notify()
        self.transitioned.notify()

    def chunks_after(self, sequence: int) -> list[Chunk] | None:
        """Return the chunks after a sequence; None when the ring begins later, or the sequence is inside a chunk."""
        if sequence >= self.head_sequence:
            return []
        newer: list[Chunk] = []
        for chunk in reversed(self._ring):
            if chunk.first_sequence > sequence:
                newer.append(chunk)
            if chunk.first_sequence == sequence + 1:
                newer.reverse()
                return newer
            if chunk.first_sequence <= sequence:
                break
        return None


class Fanout:
    """The topics of all sessions that are watched."""

    def __init__(self) -> None:
        self._topics: dict[Key, Topic] = {}
        self.is_closed = False
        self.reads = asyncio.Semaphore(READS_MAX)

    def publish(self, commits: Sequence[Commit]) -> None:
        """Take what one commit appended; the store's `on_commit`."""
        for commit in commits:
            key = (commit.principal, commit.session_id)
            if topic := self._topics.get(key):
                topic.publish(commit.chunks)
                if commit.is_deleted:
                    del self._topics[key]
                    topic.close(is_deleted=True)

    def refresh(self, principal: str, session_id: str, head_sequence: int | None = None) -> None:
        """Have the watchers of a session look at the store, unless they have seen what is told to be its head."""
        topic = self._topics.get((principal, session_id))
        if topic and (head_sequence is None or head_sequence > topic.head_sequence):
            topic.refresh()

    @contextmanager
    def watch(self, principal: str, session_id: str) -> Generator[Topic]:
        """Watch a session. What is committed from now on reaches the topic: read the store after entering."""
        key = (principal, session_id)
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic()
            topic.is_closed = self.is_closed
        topic.watcher_count += 1
        try:
            yield topic
        finally:
            topic.watcher_count -= 1
            if not topic.watcher_count and self._topics.get(key) is topic:
                del self._topics[key]

    def close(self) -> None:
        """Tell every watcher, also those to come, that the server drains."""
        self.is_closed = True
        for topic in self._topics.values():
            topic.close()

    @property
    def watcher_count(self) -> int:
        """How many watchers there are."""
        return sum(topic.watcher_count for topic in self._topics.values())
