"""What happens to inferences whose process is gone.

The reaper has revoked the lost lease and left the inference to us. So far it is not tried again: it ends with what
its events tell that it had produced.
"""

from turnwire_server.domain.errors import AttemptLostError, SessionNotFoundError, StoreUnavailableError
from turnwire_server.domain.event import Cancelled, Failed, Outcome
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
        fold = Fold()
        try:
            await _read(store, claim, decode, fold)
        except SessionNotFoundError:
            return  # deleted meanwhile, the inference with it
        except StoreUnavailableError:
            raise
        except Exception:  # a log that this server cannot read must not keep the inference running for ever
            log.exception("the log of a lost attempt cannot be read; what was read of it is kept")
        outcome: Outcome = Failed(AttemptLostError(attempt=inference.attempt).failure())
        if inference.cancel_requested_time is not None:
            outcome = Cancelled()
        ending = Ending(outcome, fold.usage, fold.model, fold.blocks())
        try:
            await store.finish(claim.lease, claim.position, ending)
        except Fenced:
            log.warning("recovered by another owner meanwhile")
        else:
            log.warning("attempt lost; inference ended with its partial output", outcome=type(outcome).__name__)


async def _read(store: SessionStore, claim: Claim, decode: DecodeFrames, fold: Fold) -> None:
    inference = claim.inference
    after = inference.first_sequence - 1
    while True:
        page = await store.read_log(
            claim.lease.principal, inference.session_id, after, READ_BYTES, inference.inference_id
        )
        for chunk in page.chunks:
            for event in decode(chunk.data):
                fold.apply(event)
        if page.through_sequence >= page.head_sequence or page.through_sequence == after:
            return
        after = page.through_sequence
