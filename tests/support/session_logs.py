"""A session in a real store whose log has what matters to a fold; a store that is disturbed while it is folded."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from contract.store_harness import Harness
from turnwire_server.domain.event import (
    Event,
    LlmDelta,
    LlmFinal,
    LlmStart,
    Payload,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolStart,
)
from turnwire_server.domain.tool import ToolCall
from turnwire_server.events.folded_log import READ_BYTES, FrameCodec
from turnwire_server.events.log_fold import LogFold
from turnwire_server.stores.base import OnCommit
from turnwire_server.stores.lease import Claim
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.page import LogPage
from turnwire_server.wire.event import decode_frames, encode_event, encode_frame

CODEC = FrameCodec(decode_frames, encode_frame)

_TEXT = (
    LlmStart(),
    LlmDelta("Lörem ", 0),
    LlmDelta("ipsum ", 7),
    LlmDelta("dolor", 13),
    LlmFinal("Lörem ipsum dolor", 18),
)
_CALL = (ToolStart("t"), ToolDelta('{"a": ', 0), ToolDelta("1}", 6), ToolCallCompleted(ToolCall("c", "t", '{"a": 1}')))


class DisturbedStore(MemorySessionStore):
    """Has one chunk at a time for who folds, and something done before each read: `disturb` gets its number."""

    def __init__(self, on_commit: OnCommit, now: Callable[[], datetime], mint: Callable[[], str]) -> None:
        super().__init__(on_commit, now, mint)
        self.read_count = 0
        self.disturb: Callable[[int], Awaitable[object]] | None = None

    async def read_log(
        self, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str = ""
    ) -> LogPage:
        """See SessionStore."""
        if limit_bytes == READ_BYTES and (disturb := self.disturb):
            self.disturb = None  # what it does may read as well
            self.read_count += 1
            await disturb(self.read_count)
            self.disturb = disturb
        limit_bytes = 1 if limit_bytes == READ_BYTES else limit_bytes
        return await super().read_log(principal, session_id, after, limit_bytes, inference_id)


async def open_disturbed(on_commit: OnCommit, now: Callable[[], datetime], mint: Callable[[], str]) -> DisturbedStore:
    """Open a DisturbedStore."""
    return DisturbedStore(on_commit, now, mint)


def fold(events: Sequence[Event]) -> list[Event]:
    """Return what stands for events."""
    folded = LogFold()
    handed_out = [each for event in events for each in folded.take(event)]
    return [*handed_out, *(each for story in folded.unfinished() for each in story)]


async def tell(harness: Harness, claim: Claim, position: int, *payloads: Payload, entity: str = "b") -> int:
    """Append what an attempt tells, in a commit for each event; return the position after it."""
    inference = claim.inference
    for offset, payload in enumerate(payloads):
        event = Event(inference.session_id, inference.inference_id, harness.now, payload, entity, inference.attempt)
        await harness.store.append(claim.lease, position + offset, [encode_event(event)])
    return position + len(payloads)


async def write_log(harness: Harness, session_id: str = "s") -> list[Event]:
    """Write a session whose inferences cross each other; the last one has not ended. Return its log.

    The first one is handed back in the middle of a text, and ends after one that was cancelled in the line.
    """
    await harness.session(session_id)
    claim = await harness.running(session_id, attempts_max=3)
    position = await tell(harness, claim, 0, *_TEXT[:3])
    await harness.start(session_id)
    cancelled = await harness.start(session_id)
    await harness.store.hand_back(claim.lease, position, is_loss=True)
    await harness.cancel(cancelled)
    claim = await harness.claim()
    position = await tell(harness, claim, claim.position, *_TEXT, entity="again")
    await harness.finish(claim, await tell(harness, claim, position, *_CALL, ToolDone(), entity="c"))
    for _ in range(3):  # the one that waited in the line, and two more
        claim = await harness.claim()
        await harness.start(session_id)
        await harness.finish(claim, await tell(harness, claim, claim.position, *_TEXT))
    claim = await harness.claim()
    await tell(harness, claim, claim.position, *_TEXT[:4])
    return await harness.events(session_id)
