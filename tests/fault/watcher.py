"""The watchers of a session: each resumes after the last sequence that it has seen, from server to server."""

import time

import grpc

from fault.checks import check_absence, check_stream_end
from fault.link import Life, Link, RefusedError, ServerGoneError
from fault.witness import Witness
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch

# How long a watcher waits before it tries again to reach a server that is there.
RETRY_SECONDS = 0.1

# How long ago a trouble may have been over that breaks a stream now.
BREAK_SECONDS = 3.0


async def follow(link: Link, witness: Witness, hop_events: int = 0) -> None:
    """Watch a session until it is deleted; walk away and come back after every `hop_events`, unless that is 0."""
    await witness.ledger.created.wait()
    watch = Watch(witness.ledger.session_id)
    witness.ledger.watches.append(watch)
    await _watch(link, witness, watch, hop_events)


async def follow_inferences(link: Link, witness: Witness) -> None:
    """Watch one inference after the other, each to its end."""
    ledger = witness.ledger
    while not ledger.is_deleted:
        inference = await ledger.to_watch.get()
        after = inference.first_sequence - 1
        watch = Watch(ledger.session_id, inference.inference_id, start=after, position=after)
        ledger.watches.append(watch)
        await _watch(link, witness, watch, 0)


async def _watch(link: Link, witness: Witness, watch: Watch, hop_events: int) -> None:
    """Follow to the `end`, through as many servers as it takes."""
    is_over = False
    while not is_over:
        life = await link.life()
        try:
            is_over = await _stream(life, witness, watch, hop_events)
        except ServerGoneError:
            witness.tally.counts["streams cut"] += 1
            if not life.is_ending:
                await link.pause(RETRY_SECONDS)
        except RefusedError as refused:
            check_absence(witness.ledger, refused.reason)
            is_over = True
        finally:
            witness.ledger.moved.set()


async def _stream(life: Life, witness: Witness, watch: Watch, hop_events: int) -> bool:
    """Read one stream; return whether it was the last one."""
    watch.begin(watch.position)
    request = pb.SubscribeEventsRequest(
        session_id=watch.session_id,
        inference_id=watch.inference_id,
        after_sequence=watch.position,
        log=watch.log,
        until=pb.SUBSCRIBE_UNTIL_INFERENCE_END if watch.inference_id else pb.SUBSCRIBE_UNTIL_FOLLOW,
    )
    call = life.stubs.inference.SubscribeEvents(request)
    seen_count, head, began = 0, 0, time.monotonic()
    try:
        async for response in call:
            head = response.opened.head_sequence or head
            witness.hear_events(watch, response, head, life)
            seen_count += len(response.events)
            if hop_events and seen_count >= hop_events:
                call.cancel()
                return False
    except grpc.aio.AioRpcError as error:
        raise life.explain(error, max(began, time.monotonic() - BREAK_SECONDS)) from None
    check_stream_end(witness.ledger, watch, is_ending=life.is_ending)
    if watch.end in {0, pb.SUBSCRIPTION_END_REASON_DRAINING}:
        raise ServerGoneError
    return True
