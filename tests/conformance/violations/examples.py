"""Violations of all kinds, to learn from."""

import asyncio
from typing import Any

from turnwire.v1 import inference_service_pb2 as pb
from violations.exchange import Exchange, RefusalError
from violations.kinds import accepts, changes, changes_refusal, delays, forgets, refuses, sends, takes
from violations.streams import changes_streamed_events, doubles_events, drops_events, ends_silently, is_a, rewrites
from violations.violation import violation

CANCEL = "InferenceService.Cancel"
EVENTS = "turnwire/v1/event.proto"
START = "InferenceService.StartInference"
SUBSCRIBE = "InferenceService.SubscribeEvents"
WAIT = "InferenceService.Wait"


async def cancel_later(exchange: Exchange) -> Any:
    """Say that a cancel was requested, and request it only 4 s later."""
    request = exchange.request

    async def cancel() -> None:
        await asyncio.sleep(4)
        await exchange.ask("Cancel", inference_id=request.inference_id, reason=request.reason)

    if not request.inference_id:
        return await exchange.forward()
    now = (await exchange.ask("GetInference", inference_id=request.inference_id)).inference
    now.cancel_requested_time.GetCurrentTime()
    exchange.begin(cancel())
    return pb.CancelResponse(inference=now)


async def second_start_is_busy(exchange: Exchange) -> Any:
    """Refuse a repeated start as if it were another one."""
    key = exchange.request.idempotency_key
    if key and key in exchange.state:
        raise RefusalError.of("SESSION_BUSY", session_id=exchange.request.session_id)
    exchange.state[key] = True
    return await exchange.forward()


def without_position(_: Any, response: Any) -> None:
    """Tell another position than that of the events."""
    response.through_sequence += 1


VIOLATIONS = [
    # another answer
    violation(
        "cancel-answers-without-its-request",
        (CANCEL, "Requests that an inference stops."),
        changes("Cancel", lambda _, response: response.inference.ClearField("cancel_requested_time")),
    ),
    # a request that is not the client's
    violation(
        "start-forgets-its-key",
        (START, "Idempotent by idempotency_key: a repeat with the same content"),
        sends("StartInference", lambda request: request.ClearField("idempotency_key")),
    ),
    # a refusal that should not be
    violation(
        "cancel-of-what-ended-is-refused",
        (CANCEL, "Cancelling an inference that has ended changes nothing"),
        forgets("Cancel", "INFERENCE_NOT_FOUND", key=lambda request: request.inference_id or object()),
    ),
    violation(
        "start-of-the-same-key-is-refused",
        (START, "Idempotent by idempotency_key: a repeat with the same content"),
        takes("StartInference", second_start_is_busy),
    ),
    # no refusal where there has to be one
    violation(
        "wait-for-nobody-is-answered",
        (WAIT, "INFERENCE_NOT_FOUND there is no such inference, or its session"),
        accepts("Wait", "INFERENCE_NOT_FOUND"),
    ),
    # another refusal
    violation(
        "wait-for-nobody-names-nobody",
        (WAIT, "INFERENCE_NOT_FOUND there is no such inference, or its session"),
        changes_refusal("Wait", "INFERENCE_NOT_FOUND", lambda refusal: refusal.metadata.clear()),
    ),
    violation(
        "queued-cancel-is-unknown",
        (CANCEL, "INFERENCE_NOT_FOUND there is no such inference."),
        changes_refusal("Cancel", "INFERENCE_NOT_FOUND", lambda _: RefusalError.of("SESSION_NOT_FOUND")),
    ),
    violation(
        "session-without-inferences-is-cancelled-in-vain",
        (CANCEL, "NO_ACTIVE_INFERENCE a session was named"),
        refuses("Cancel", "SESSION_NOT_FOUND", when=lambda request: bool(request.session_id)),
    ),
    # late
    violation(
        "cancel-happens-late",
        (CANCEL, "The reply says requested; inference.finished says happened"),
        takes("Cancel", cancel_later),
    ),
    violation(
        "stream-opens-late",
        (SUBSCRIBE, "The first response comes at once and has `opened`"),
        delays("SubscribeEvents", 30),
    ),
    # streams
    violation(
        "stream-ends-without-a-word",
        (SUBSCRIBE, "The first response comes at once and has `opened`"),
        ends_silently(),
    ),
    violation(
        "deltas-are-left-out",
        (EVENTS, "Gapless: the sequences of a log"),
        drops_events(is_a("llm_delta")),
    ),
    violation("finals-come-twice", (EVENTS, "Unique: no two events"), doubles_events(is_a("llm_final"))),
    violation(
        "watchers-get-other-bytes",
        (EVENTS, "Resumable: a stream that starts with after_sequence"),
        changes_streamed_events(lambda event: event.create_time.GetCurrentTime()),
    ),
    violation(
        "responses-reach-too-far",
        (SUBSCRIBE, "Each response covers the sequences in"),
        rewrites(without_position),
    ),
]
