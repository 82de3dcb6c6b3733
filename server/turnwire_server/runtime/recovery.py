"""What happens to inferences whose attempt is gone, with its process or by a defect.

Whoever claims a lost inference recovers it first: it goes back to the line, to be continued at its last step, if
another attempt is allowed; else it ends with what its events tell that it had produced. A tool that may have been
executed then has the outcome that nobody knows what it did.
"""

from dataclasses import replace

from turnwire_server.domain.errors import (
    AttemptLostError,
    EngineFailedError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from turnwire_server.domain.event import Cancelled, Event, Failed, Outcome, ToolDone, ToolResult
from turnwire_server.domain.lifecycle import deadline_outcome, event_of
from turnwire_server.domain.tool import ToolUse
from turnwire_server.events.log import DecodeFrames
from turnwire_server.events.snapshot import Fold
from turnwire_server.runtime.checkpoint import decode_checkpoint, decode_outcome
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.tool_batch import INTERRUPTED
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Claim, Ending, Fenced
from turnwire_server.telemetry.logs import bound_to, logger

# How much of the log is folded at a time.
READ_BYTES = 1024 * 1024

log = logger()


def decide_recovery(claim: Claim, *, is_overdue: bool) -> Outcome | None:
    """Return how a lost inference ends, None if it is to be continued. Pure."""
    inference = claim.inference
    if inference.cancel_requested_time is not None:
        return Cancelled()
    if is_overdue:
        return deadline_outcome(inference)
    if not _has_unknown(claim) and inference.attempt + 1 < inference.attempts_max:
        return None
    return Failed(AttemptLostError(attempt=inference.attempt).failure())


def _has_unknown(claim: Claim) -> bool:
    """Whether it is not known what a tool did that must not be executed twice, or where to go on."""
    try:
        repeatable = {call.id for call in decode_checkpoint(claim.checkpoint).calls if call.is_idempotent}
    except ValueError:
        log.exception("the checkpoint of a lost attempt cannot be read")
        return True
    return any(effect.outcome is None and effect.call not in repeatable for effect in claim.effects)


async def refuse(ports: Ports, claim: Claim) -> None:
    """End an inference whose profile or engine this process does not have."""
    message = f"profile {claim.inference.profile} with engine {claim.engine} is not configured any more"
    failure = EngineFailedError(message, engine=claim.engine).failure()
    try:
        await ports.store.finish(claim.lease, claim.position, Ending(Failed(failure)))
    except Fenced:
        log.warning("the inference is not ours any more", inference_id=claim.inference.inference_id)


async def recover(ports: Ports, claim: Claim, decode: DecodeFrames) -> None:
    """Continue or end an inference whose attempt was lost."""
    store, deadline = ports.store, claim.inference.deadline_time
    is_overdue = deadline is not None and deadline <= ports.clock.now()
    with bound_to(claim.inference.session_id, claim.inference.inference_id):
        outcome = decide_recovery(claim, is_overdue=is_overdue)
        try:
            if outcome is None:
                await store.hand_back(claim.lease, claim.position, is_loss=True)
                log.warning("attempt lost; the inference is continued", attempt=claim.inference.attempt)
                return
            fold = await _fold(store, claim, decode)
            told = _interrupted(ports, claim, fold)
            ending = Ending(outcome, fold.usage, fold.model, fold.blocks(), told)
            await store.finish(claim.lease, claim.position, ending)
        except (Fenced, SessionNotFoundError):
            log.warning("recovered by another owner meanwhile, or its session was deleted")
        else:
            log.warning("attempt lost; inference ended with its partial output", outcome=type(outcome).__name__)


def _interrupted(ports: Ports, claim: Claim, fold: Fold) -> tuple[bytes, ...]:
    """Fold and return the events that tell of the tools of which nobody knows what they did."""
    answered = {block.kind.tool_call for block in fold.blocks() if isinstance(block.kind, ToolUse)}
    told: list[bytes] = []
    for effect in claim.effects:
        if effect.outcome is None and effect.call not in answered:
            for payload in (ToolResult(ToolUse(effect.call, INTERRUPTED)), ToolDone()):
                event = event_of(claim.inference, payload, ports.clock.now(), effect.call)
                fold.apply(event)
                told.append(ports.encode(event))
    return tuple(told)


async def _fold(store: SessionStore, claim: Claim, decode: DecodeFrames) -> Fold:
    """Return what the attempt told since the last step."""
    fold = Fold()
    try:
        await _read(store, claim, decode, fold)
    except (SessionNotFoundError, StoreUnavailableError):
        raise
    except Exception:  # a log that this server cannot read must not keep the inference running for ever
        log.exception("the log of a lost attempt cannot be read; what was read of it is kept")
    return fold


async def _read(store: SessionStore, claim: Claim, decode: DecodeFrames, fold: Fold) -> None:
    inference, after = claim.inference, claim.holds_through
    while True:
        page = await store.read_log(
            claim.lease.principal, inference.session_id, after, READ_BYTES, inference.inference_id
        )
        for chunk in page.chunks:
            for event in decode(chunk.data):
                fold.apply(_complete(claim, event))
        if page.through_sequence >= page.head_sequence or page.through_sequence == after:
            return
        after = page.through_sequence


def _complete(claim: Claim, event: Event) -> Event:
    """Return an event with the outcome of a tool that was left out of it, for its size."""
    if not isinstance(event.payload, ToolResult) or not event.payload.result_omitted:
        return event
    known = {effect.call: effect.outcome for effect in claim.effects}
    outcome = known.get(event.entity)
    if outcome is None:
        return event
    return replace(event, payload=ToolResult(ToolUse(event.entity, decode_outcome(outcome))))
