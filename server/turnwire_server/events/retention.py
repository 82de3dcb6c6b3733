"""Cutting off the beginning of a log that nobody has to read event by event any more, and storing its fold instead."""

from contextlib import aclosing
from datetime import datetime

from turnwire_server.domain.errors import EventsCompactedError, SessionNotFoundError, StoreUnavailableError
from turnwire_server.events.folded_log import EncodeFrame, FrameCodec, read_folded
from turnwire_server.events.log import DecodeFrames
from turnwire_server.stores.base import Base, Retired, SessionStore

# A log is cut once there are as many events to go as this share of those that went before, or once all of it may go.
# For each cut the whole fold is written again: with a share of 1/8 the cuts of a log that grows write less than nine
# times its last fold, however long it gets; and all of it may go at most once in the time for which events are kept.
GONE_PER_EVENT_MAX = 8

# How many logs are cut in one round.
RETIRED_MAX = 10

# How many logs are known of which too little may go. Beyond that all of them are looked at again, some in each round.
PASSED_OVER_MAX = 10_000


class Retention:
    """Finds the logs that have something to go, and cuts them. Those that are left as they are hold up no others."""

    def __init__(self, store: SessionStore, codec: FrameCodec) -> None:
        self._store = store
        self._codec = codec
        self._passed_over: set[Retired] = set()

    async def find(self, ended_before: datetime) -> tuple[Retired, ...]:
        """Return logs that have events to go, but for those that were left as they are and have no more to go since."""
        if len(self._passed_over) > PASSED_OVER_MAX:
            self._passed_over.clear()
        found = await self._store.find_retired(ended_before, RETIRED_MAX + len(self._passed_over))
        self._passed_over.intersection_update(found)
        return tuple(retired for retired in found if retired not in self._passed_over)[:RETIRED_MAX]

    async def retire(self, retired: Retired) -> bool:
        """Cut one of them; return whether it was cut. One that cannot be read is told once, and left as it is.

        Errors: StoreUnavailableError; whatever keeps the log from being read.
        """
        self._passed_over.add(retired)
        try:
            was_cut = await retire(self._store, retired, self._codec.decode, self._codec.encode)
        except StoreUnavailableError:
            self._passed_over.discard(retired)
            raise
        if was_cut:
            self._passed_over.discard(retired)
        return was_cut


async def retire(store: SessionStore, retired: Retired, decode: DecodeFrames, encode_frame: EncodeFrame) -> bool:
    """Cut a log after `retired.through_sequence` and store the fold of what goes; return whether it was cut.

    It is not while too little could go, nor when it turns out that another process has cut the log meanwhile, that the
    session is gone, or that an inference has not ended.

    Errors: StoreUnavailableError.
    """
    principal, session_id, through = retired.principal, retired.session_id, retired.through_sequence
    try:
        page = await store.read_log(principal, session_id, through, 0)
        if not _is_enough(through, page.earliest_sequence - 1, page.head_sequence):
            return False
        base = await store.read_base(principal, session_id)
        frames: list[bytes] = []
        async with aclosing(read_folded(store, principal, session_id, page.log, base, through, decode)) as folded:
            async for events in folded:
                frames.extend(encode_frame(event) for event in events)
        session = await store.get_session(principal, session_id)
    except (SessionNotFoundError, EventsCompactedError):
        return False
    if session.log != page.log:  # deleted, and created again under the same name
        return False
    try:
        # Whoever else cuts it folds to the same; where that was further on, the store leaves it so.
        await store.compact(principal, session_id, Base(through, b"".join(frames)))
    except (SessionNotFoundError, ValueError):
        return False
    return True


def _is_enough(through: int, gone: int, head: int) -> bool:
    """Whether a log whose first `gone` events went before is to be cut after a sequence."""
    count = through - gone
    return count > 0 and (through == head or count * GONE_PER_EVENT_MAX >= gone)
