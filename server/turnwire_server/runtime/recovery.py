"""What happens to inferences whose process is gone.

The reaper has revoked the lost lease and left the inference to us. So far it is not tried again: it ends with what
its events tell that it had produced.
"""

from turnwire_server.domain.errors import AttemptLostError
from turnwire_server.domain.event import Cancelled, EngineCallFinished, Failed, Outcome
from turnwire_server.domain.inference import Usage
from turnwire_server.events.log import DecodeFrames
from turnwire_server.events.snapshot import Fold
from turnwire_server.stores.base import Claim, Ending, Fenced, SessionStore
from turnwire_server.telemetry.logs import bound_to, logger

# How much of the log is folded at a time.
READ_BYTES = 1024 * 1024

log = logger()


async def recover(store: SessionStore, claim: Claim, decode: DecodeFrames) -> None:
    """End an inference whose attempt was lost: CANCELLED if that was requested, else FAILED with ATTEMPT_LOST."""
    inference = claim.inference
    with bound_to(inference.session_id, inference.inference_id):
        fold, usage = await _fold(store, claim, decode)
        outcome: Outcome = Failed(AttemptLostError(attempt=inference.attempt).failure())
        if inference.cancel_requested_time is not None:
            outcome = Cancelled()
        try:
            await store.finish(claim.lease, claim.position, Ending(outcome, usage, blocks=fold.blocks()))
        except Fenced:
            log.warning("recovered by another owner meanwhile")
        else:
            log.warning("attempt lost; inference ended with its partial output", outcome=type(outcome).__name__)


async def _fold(store: SessionStore, claim: Claim, decode: DecodeFrames) -> tuple[Fold, Usage]:
    inference = claim.inference
    fold, usage = Fold(), Usage()
    after = inference.first_sequence - 1
    while True:
        page = await store.read_log(
            claim.lease.principal, inference.session_id, after, READ_BYTES, inference.inference_id
        )
        for chunk in page.chunks:
            for event in decode(chunk.data):
                fold.apply(event)
                if isinstance(event.payload, EngineCallFinished):
                    usage += event.payload.usage
        if page.through_sequence >= page.head_sequence or page.through_sequence == after:
            return fold, usage
        after = page.through_sequence
