"""Reading the log of a session as its fold: the stored fold where the log begins, then the log itself, page by page."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from turnwire_server.domain.errors import EventsCompactedError, SessionNotFoundError
from turnwire_server.domain.event import Event, frame_bounds
from turnwire_server.events.log import DecodeFrames
from turnwire_server.events.log_fold import LogFold
from turnwire_server.stores.base import Base, SessionStore

# How much of the log is read at a time, and how much is decoded before others get their turn: a few milliseconds.
READ_BYTES = 1024 * 1024
SLICE_BYTES = 32 * 1024

# A part of a snapshot aims at this many bytes, and passes them by less than one event.
PART_BYTES_AIM = 1024 * 1024

# How often a snapshot begins anew because the beginning of the log was cut while it was read.
TRIES_MAX = 5

# What the core knows of the wire: an event that has its sequence to its frame.
EncodeFrame = Callable[[Event], bytes]


@dataclass(frozen=True, slots=True)
class FrameCodec:
    """Joined frames to their events, and an event to its frame."""

    decode: DecodeFrames
    encode: EncodeFrame


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a snapshot. One without frames that is not the last only says that the reading goes on."""

    frames: tuple[bytes, ...]
    is_last: bool


async def read_folded(
    store: SessionStore,
    principal: str,
    session_id: str,
    log: str,
    base: Base,
    through: int,
    decode: DecodeFrames,
    inference_id: str = "",
) -> AsyncGenerator[tuple[Event, ...]]:
    """Yield the events that stand for the log `log` up to a sequence, of one inference if named; often none at a time.

    `base` is where the log begins. Others have had their turn before each yield.

    Errors: EventsCompactedError when the log begins elsewhere by now, SessionNotFoundError when it is gone.
    """
    fold, position = LogFold(), base.through_sequence

    def take(data: bytes) -> tuple[Event, ...]:
        events = (event for event in decode(data) if inference_id in ("", event.inference_id))
        return tuple(done for event in events for done in fold.take(event))

    for data in _slices(base.fold):
        await asyncio.sleep(0)
        yield take(data)
    while True:
        page = await store.read_log(principal, session_id, position, READ_BYTES, inference_id)
        if page.log != log:
            raise SessionNotFoundError(session_id=session_id)
        if position + 1 < page.earliest_sequence or position > through:
            raise EventsCompactedError(
                session_id=session_id, after_sequence=position, earliest_sequence=page.earliest_sequence
            )
        for chunk in page.chunks:
            if part := chunk.cut(position, through):
                for data in _slices(part.data):
                    await asyncio.sleep(0)
                    yield take(data)
        position = page.through_sequence
        if position >= min(through, page.head_sequence):
            break
    for events in fold.unfinished():
        await asyncio.sleep(0)
        yield events


async def read_snapshot(
    store: SessionStore,
    principal: str,
    session_id: str,
    log: str,
    through: int,
    codec: FrameCodec,
    inference_id: str = "",
) -> AsyncGenerator[Part]:
    """Yield the snapshot of a log at a sequence, in parts, the last one marked; often one that is empty.

    Where the beginning of the log is cut meanwhile, what was handed out holds: inferences that have ended come in the
    order in which they ended, whatever of them the stored fold has. So it begins anew and leaves out as many events.

    Errors: those of read_folded; EventsCompactedError also when the log begins beyond `through` by now.
    """
    collected, taken_count = _Collected(), 0
    for left in reversed(range(TRIES_MAX)):
        base = await store.read_base(principal, session_id)
        folded = read_folded(store, principal, session_id, log, base, through, codec.decode, inference_id)
        skip = taken_count
        try:
            async with aclosing(folded):
                async for events in folded:
                    for event in events[skip:]:
                        taken_count += 1
                        if collected.add(codec.encode(event)):
                            yield Part(collected.empty(), is_last=False)
                    skip = max(0, skip - len(events))
                    yield Part((), is_last=False)
        except EventsCompactedError:
            if not left or base.through_sequence > through:
                raise
        else:
            yield Part(collected.empty(), is_last=True)
            return


class _Collected:
    """The frames of the next part."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._byte_count = 0

    def add(self, frame: bytes) -> bool:
        """Add a frame; return whether that is enough for a part."""
        self._frames.append(frame)
        self._byte_count += len(frame)
        return self._byte_count >= PART_BYTES_AIM

    def empty(self) -> tuple[bytes, ...]:
        """Return the frames, and begin the next part."""
        frames, self._frames, self._byte_count = tuple(self._frames), [], 0
        return frames


def _slices(data: bytes) -> Iterator[bytes]:
    """Cut joined frames into pieces of about SLICE_BYTES, between two frames."""
    begin = end = 0
    for _, end in frame_bounds(data):
        if end - begin >= SLICE_BYTES:
            yield data[begin:end]
            begin = end
    if begin < end:
        yield data[begin:]
