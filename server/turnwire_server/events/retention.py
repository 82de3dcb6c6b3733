"""Cutting off the beginning of a log that nobody has to read event by event any more, and storing its fold instead."""

from contextlib import aclosing

from turnwire_server.domain.errors import EventsCompactedError, SessionNotFoundError
from turnwire_server.events.folded_log import EncodeFrame, read_folded
from turnwire_server.events.log import DecodeFrames
from turnwire_server.stores.base import Base, Retired, SessionStore

# A log is cut once there are as many events to go as this share of those that went before, or once all of it may go.
# For each cut the whole fold is written again: with a share of 1/8 the cuts of a log that grows write less than nine
# times its last fold, however long it gets; and all of it may go at most once in the time for which events are kept.
GONE_PER_EVENT_MAX = 8

# How many events go at a time, or that share if it is more: two seconds of work. So the longest log gets its turn,
# piece by piece, in the time that one cut may take, and others get theirs in between.
CUT_EVENTS_MAX = 100_000


async def retire(
    store: SessionStore,
    retired: Retired,
    decode: DecodeFrames,
    encode_frame: EncodeFrame,
    events_max: int = CUT_EVENTS_MAX,
) -> bool:
    """Cut a log after `retired.through_sequence`, or after a first piece; return whether it was cut.

    The fold of what goes is stored. It is not cut while too little could go, nor when it turns out that another process
    has cut the log meanwhile, that the session is gone, or that an inference has not ended.

    Errors: StoreUnavailableError.
    """
    principal, session_id = retired.principal, retired.session_id
    try:
        page = await store.read_log(principal, session_id, retired.through_sequence, 0)
        gone = page.earliest_sequence - 1
        through = min(retired.through_sequence, gone + max(events_max, gone // GONE_PER_EVENT_MAX + 1))
        if not _is_enough(through, gone, page.head_sequence):
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
