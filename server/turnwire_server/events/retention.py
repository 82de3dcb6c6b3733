"""Cutting off the beginning of a log that nobody has to read event by event any more, and storing its fold instead."""

from contextlib import aclosing

from turnwire_server.domain.errors import EventsCompactedError, SessionNotFoundError
from turnwire_server.events.folded_log import EncodeFrame, read_folded
from turnwire_server.events.log import DecodeFrames
from turnwire_server.stores.base import Base, Retired, SessionStore

# A log is cut once there are as many events to go as this share of those that went before. For each cut the whole fold
# is written again, so with a share of 1/8 all cuts of a log write less than nine times its last fold, however long it
# gets; and no more than a ninth of what was ever in it stays past its time.
GONE_PER_EVENT_MAX = 8


async def retire(store: SessionStore, retired: Retired, decode: DecodeFrames, encode_frame: EncodeFrame) -> bool:
    """Cut a log after `retired.through_sequence` and store the fold of what goes; return whether it was cut.

    It is not while too little could go, nor when it turns out that another process has cut the log meanwhile, that the
    session is gone, or that an inference has not ended.

    Errors: StoreUnavailableError.
    """
    principal, session_id, through = retired.principal, retired.session_id, retired.through_sequence
    try:
        page = await store.read_log(principal, session_id, through, 0)
        gone = page.earliest_sequence - 1
        if through <= gone or (through - gone) * GONE_PER_EVENT_MAX < gone:
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
