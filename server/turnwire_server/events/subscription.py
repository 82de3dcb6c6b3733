"""One watcher: from the log of the store to the live events, without a seam.

The hand-over is in `_Watcher.advance`: the topic is watched before the store is first read, so what is committed
after that read is in the topic's ring; and whenever the ring cannot continue exactly at the watcher's position, the
store is read again.

A snapshot is read up to the head at the time of the request, and the events after that follow as they do for a watcher
who begins there: the topic is watched before.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum, IntEnum

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import (
    CursorAheadError,
    EventsCompactedError,
    InferenceNotFoundError,
    LogReplacedError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import Inference
from turnwire_server.events.fanout import Fanout, Topic
from turnwire_server.events.folded_log import FrameCodec, Part, read_snapshot
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.page import LogPage

# A page of events aims at this many bytes. It never passes it by more than one chunk.
RESPONSE_BYTES_AIM = 1024 * 1024

# So does a response of a stream, at less: a watcher that does not read holds one, a copy for itself, and gRPC copies it
# again. Larger ones are not faster.
DELIVERY_BYTES_AIM = 256 * 1024


# What stores can compare; a cursor beyond it is beyond every head.
SEQUENCE_MAX = 2**63 - 1


class StartKind(Enum):
    """Where a subscription begins."""

    FROM_BEGINNING = "from_beginning"
    AFTER_SEQUENCE = "after_sequence"
    SNAPSHOT = "snapshot"
    LIVE = "live"


class Until(IntEnum):
    """When a subscription ends. Numbers are those of the contract."""

    FOLLOW = 1
    INFERENCE_END = 2
    CAUGHT_UP = 3


class End(IntEnum):
    """Why a subscription ended. Numbers are those of the contract."""

    INFERENCE_FINISHED = 1
    CAUGHT_UP = 2
    SESSION_DELETED = 3
    DRAINING = 4
    CREDENTIALS_EXPIRED = 5


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to watch. An empty `inference_id` means all events, an empty `log` that the cursor's log is not checked."""

    principal: str
    session_id: str
    start: StartKind
    after_sequence: int = 0
    inference_id: str = ""
    until: Until = Until.FOLLOW
    log: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a subscription was opened on."""

    log: str
    earliest_sequence: int
    head_sequence: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A part of the stream: the events in (after_sequence, through_sequence] that the filter lets through.

    `snapshot` is a part of what stands for all events up to there.
    """

    frames: tuple[bytes, ...]
    after_sequence: int
    through_sequence: int
    opened: Opened | None = None
    snapshot: Part | None = None
    end: End | None = None

    @property
    def size(self) -> int:
        """The bytes of its events; what is around them in a response is next to nothing."""
        frames = self.snapshot.frames if self.snapshot else self.frames
        return sum(map(len, frames))


def check_cursor(session_id: str, log: str, after: int, page: LogPage) -> None:
    """Refuse a cursor that the log cannot continue exactly.

    Errors: LogReplacedError, CursorAheadError, EventsCompactedError.
    """
    if log and log != page.log:
        raise LogReplacedError(session_id=session_id, log=page.log)
    if after > page.head_sequence:
        raise CursorAheadError(session_id=session_id, after_sequence=after, head_sequence=page.head_sequence)
    if after + 1 < page.earliest_sequence:
        raise EventsCompactedError(
            session_id=session_id, after_sequence=after, earliest_sequence=page.earliest_sequence
        )


async def read_inference_of(store: SessionStore, principal: str, session_id: str, inference_id: str) -> Inference:
    """Return an inference of a session. Errors: InferenceNotFoundError, also for one of another session."""
    inference = await store.get_inference(principal, inference_id)
    if inference.session_id != session_id:
        raise InferenceNotFoundError(inference_id=inference_id)
    return inference


async def subscribe(
    store: SessionStore,
    fanout: Fanout,
    request: Subscription,
    clock: Clock,
    codec: FrameCodec,
    heartbeat_seconds: float,
) -> AsyncGenerator[Delivery]:
    """Yield deliveries: the first at once with `opened`, the last with `end`, an empty one after `heartbeat_seconds`.

    Errors: SessionNotFoundError, InferenceNotFoundError and those of check_cursor, all before the first delivery;
    EventsCompactedError when retention overtakes it, StoreUnavailableError.
    """
    with fanout.watch(request.principal, request.session_id) as topic:
        watcher = await _open(store, fanout, topic, request)
        opened: Opened | None = watcher.opened
        sent = watcher.position
        due = clock.monotonic() + heartbeat_seconds
        if request.start is StartKind.SNAPSHOT:
            yield Delivery((), sent, sent, opened)
            async with aclosing(_snapshot(store, topic, request, watcher.opened, codec)) as parts:
                async for part in parts:
                    if part.snapshot or part.end or clock.monotonic() >= due:
                        yield part
                        due = clock.monotonic() + heartbeat_seconds
                    if part.end:
                        return
            opened = None
        while True:
            seen, before = topic.advanced.count, watcher.position
            left = due - clock.monotonic()
            # With each heartbeat the store is asked, whatever the topic knows: a hint may have been lost.
            chunks, end = await watcher.advance(ask_store=left <= 0)
            if chunks or end or opened or left <= 0:
                frames = tuple(chunk.data for chunk in chunks)
                yield Delivery(frames, sent, watcher.position, opened, end=end)
                if end:
                    return
                opened, sent = None, watcher.position
                due = clock.monotonic() + heartbeat_seconds
            elif watcher.position == before:
                await clock.wait_for(topic.advanced.wait_beyond(seen), left)


async def _snapshot(
    store: SessionStore, topic: Topic, request: Subscription, opened: Opened, codec: FrameCodec
) -> AsyncGenerator[Delivery]:
    """Yield the snapshot at the head that was opened on, and an empty delivery now and then while it is read."""
    head = opened.head_sequence
    parts = read_snapshot(store, request.principal, request.session_id, opened.log, head, codec, request.inference_id)
    try:
        async with aclosing(parts):
            async for part in parts:
                if topic.is_closed:  # what is left of it may take long, and the client has to begin anew anyway
                    end = End.SESSION_DELETED if topic.is_deleted else End.DRAINING
                    yield Delivery((), head, head, end=end)
                    return
                is_empty = not part.frames and not part.is_last
                yield Delivery((), head, head, snapshot=None if is_empty else part)
    except SessionNotFoundError:
        yield Delivery((), head, head, end=End.SESSION_DELETED)


async def _open(store: SessionStore, fanout: Fanout, topic: Topic, request: Subscription) -> "_Watcher":
    """Check what is asked for against the log, and find where to begin and where to end."""
    page = await store.read_log(request.principal, request.session_id, min(request.after_sequence, SEQUENCE_MAX), 0)
    first = 0
    end_at = None
    if request.inference_id:
        inference = await read_inference_of(store, request.principal, request.session_id, request.inference_id)
        first = inference.first_sequence
        if inference.state.is_terminal:
            end_at = inference.last_sequence
            is_gone = request.start is StartKind.FROM_BEGINNING and end_at < page.earliest_sequence
            if request.until is Until.INFERENCE_END and is_gone:  # a cursor before its end is refused below
                raise EventsCompactedError(
                    session_id=request.session_id, after_sequence=0, earliest_sequence=page.earliest_sequence
                )
    position = page.head_sequence
    if request.start is StartKind.AFTER_SEQUENCE:
        check_cursor(request.session_id, request.log, request.after_sequence, page)
        position = request.after_sequence
    elif request.start is StartKind.FROM_BEGINNING:
        position = page.earliest_sequence - 1
    if request.log and request.log != page.log:
        raise LogReplacedError(session_id=request.session_id, log=page.log)
    opened = Opened(page.log, page.earliest_sequence, page.head_sequence)
    return _Watcher(store, fanout.reads, topic, request, opened, position, max(position, first - 1), end_at)


class _Watcher:
    """The position of one subscription in the log, and where it ends."""

    def __init__(  # one argument per thing it needs, all from _open
        self,
        store: SessionStore,
        reads: asyncio.Semaphore,
        topic: Topic,
        request: Subscription,
        opened: Opened,
        position: int,
        skip_to: int,
        end_at: int | None,
    ) -> None:
        self.position = position
        self.opened = opened
        self._store = store
        self._reads = reads
        self._topic = topic
        self._request = request
        self._skip_to = skip_to
        self._terminal_at = end_at
        self._refresh_count = topic.refresh_count

    async def advance(self, *, ask_store: bool) -> tuple[list[Chunk], End | None]:
        """Move the position as far as one response goes; return the chunks to send, and why the subscription ends."""
        if end := self._end():
            return [], end
        limit = self._limit()
        try:
            candidates, through = await self._read(max(self.position, self._skip_to), ask_store=ask_store)
        except SessionNotFoundError:
            return [], End.SESSION_DELETED
        except StoreUnavailableError:
            if self.position < max(self.opened.head_sequence, self._topic.head_sequence):
                raise
            return [], None  # nothing is known to have come; the next heartbeat asks again
        taken: list[Chunk] = []
        for candidate in candidates:
            chunk = candidate.cut(self.position, limit) if limit is not None else candidate
            if chunk is None:  # it is beyond the limit, and so is all that follows
                self.position = max(self.position, limit or 0)
                break
            self.position = chunk.last_sequence
            if not self._request.inference_id or chunk.inference_id == self._request.inference_id:
                taken.append(chunk)
                if self._request.inference_id and chunk.state is not None and chunk.state.is_terminal:
                    self._terminal_at = chunk.last_sequence
                    break
        else:
            self.position = max(self.position, through if limit is None else min(through, limit))
        return taken, self._end()

    async def _read(self, position: int, *, ask_store: bool) -> tuple[Sequence[Chunk], int]:
        """Return what follows a position, and up to where: from the ring if it continues there, else the store."""
        refresh_count = self._topic.refresh_count
        is_asked = ask_store or refresh_count != self._refresh_count
        if position >= max(self.opened.head_sequence, self._topic.head_sequence) and not is_asked:
            return (), position
        if position < self._topic.head_sequence and (ring := self._topic.chunks_after(position)) is not None:
            chunks = _at_most(ring, DELIVERY_BYTES_AIM)
            return chunks, chunks[-1].last_sequence
        request = self._request
        async with self._reads:
            page = await self._store.read_log(
                request.principal, request.session_id, position, DELIVERY_BYTES_AIM, request.inference_id
            )
        if page.log != self.opened.log:  # deleted, and created again under the same name
            raise SessionNotFoundError(session_id=request.session_id)
        check_cursor(request.session_id, "", position, page)
        self._refresh_count = refresh_count
        return page.chunks, page.through_sequence

    def _limit(self) -> int | None:
        """The sequence that this subscription does not pass; None while there is no such."""
        if self._request.until is Until.CAUGHT_UP:
            return self.opened.head_sequence
        return self._terminal_at if self._request.until is Until.INFERENCE_END else None

    def _end(self) -> End | None:
        limit = self._limit()
        if limit is not None and self.position >= limit:
            return End.CAUGHT_UP if self._request.until is Until.CAUGHT_UP else End.INFERENCE_FINISHED
        if self._topic.is_deleted and self.position >= self._topic.head_sequence:
            return End.SESSION_DELETED
        if self._topic.is_closed and self.position >= self._topic.head_sequence:
            return End.DRAINING
        return None


def _at_most(chunks: list[Chunk], bytes_max: int) -> list[Chunk]:
    """Return the first chunks up to a number of bytes, at least one if there is one."""
    size = 0
    for index, chunk in enumerate(chunks):
        size += len(chunk.data)
        if size > bytes_max and index:
            return chunks[:index]
    return chunks
