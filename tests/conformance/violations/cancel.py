"""Violations of what Cancel promises."""

import asyncio
from typing import Any

from turnwire.v1 import inference_pb2 as pb
from turnwire.v1 import inference_service_pb2
from violations.examples import cancel_later
from violations.exchange import Exchange, RefusalError
from violations.kinds import answers, changes, forgets, sends, takes
from violations.streams import changes_events, is_a
from violations.told import clears, refuses_field, sets
from violations.violation import violation

CANCEL = "InferenceService.Cancel"
REQUEST = "CancelRequest"
METHOD = "Cancel"


async def the_last_in_line(exchange: Exchange) -> Any:
    """Take the newest inference of a session for the one to cancel."""
    request = exchange.request
    if request.session_id:
        listed = await exchange.ask("ListInferences", session_id=request.session_id)
        if listed.inferences:
            request.inference_id = listed.inferences[0].inference_id
    return await exchange.forward()


async def only_the_active(exchange: Exchange) -> Any:
    """Find nothing to cancel in a session of which nothing is active."""
    request = exchange.request
    if request.session_id:
        session = (await exchange.ask("GetSession", session_id=request.session_id)).session
        if session.queued_count and not session.active.inference_id:
            raise RefusalError.of("NO_ACTIVE_INFERENCE", session_id=request.session_id)
    return await exchange.forward()


async def queued_stay(exchange: Exchange) -> Any:
    """Say that a queued inference is to be cancelled, and let it run when its time comes."""
    request = exchange.request
    if request.inference_id:
        now = (await exchange.ask("GetInference", inference_id=request.inference_id)).inference
        if now.state == pb.INFERENCE_STATE_QUEUED:
            now.cancel_requested_time.GetCurrentTime()
            return inference_service_pb2.CancelResponse(inference=now)
    return await exchange.forward()


async def tools_go_on(exchange: Exchange) -> Any:
    """Cancel what makes tool calls only when it has ended by itself."""
    request = exchange.request
    if not request.inference_id:
        return await exchange.forward()
    now = (await exchange.ask("GetInference", inference_id=request.inference_id)).inference
    if now.config.iterations_max != 100:
        return await exchange.forward()

    async def cancel() -> None:
        await asyncio.sleep(10)
        await exchange.ask(METHOD, inference_id=request.inference_id)

    exchange.begin(cancel())
    return inference_service_pb2.CancelResponse(inference=now)


async def succeeds_at_last(exchange: Exchange) -> Any:
    """Let what was cancelled succeed when it is cancelled again."""
    response = await exchange.forward()
    name = response.inference.inference_id
    if name in exchange.state and response.inference.state == pb.INFERENCE_STATE_CANCELLED:
        sets(state=pb.INFERENCE_STATE_SUCCEEDED, finish_class=pb.FINISH_CLASS_COMPLETED)(response.inference)
    exchange.state[name] = True
    return response


def as_queued(inference: Any) -> None:
    """Tell of a queued inference that it is still queued."""
    inference.state = pb.INFERENCE_STATE_QUEUED
    clears("end_time", "finish_class")(inference)


def is_none(request: Any) -> bool:
    """Whether nothing is named."""
    return not request.WhichOneof("target")


VIOLATIONS = [
    violation(
        "a-cancel-is-refused-the-second-time",
        (CANCEL, "Idempotent in every state."),
        forgets(METHOD, "INFERENCE_NOT_FOUND", key=lambda request: request.inference_id or object()),
    ),
    violation(
        "what-ended-is-told-otherwise",
        (CANCEL, "Cancelling an inference that has ended changes nothing and returns it."),
        changes(
            METHOD,
            lambda _, response: response.inference.cancel_requested_time.GetCurrentTime(),
            when=lambda request: bool(request.reason),
        ),
    ),
    violation(
        "what-succeeded-or-failed-is-cancelled",
        [("InferenceState", "SUCCEEDED -> (terminal)"), ("InferenceState", "FAILED -> (terminal)")],
        changes(METHOD, lambda _, response: sets(state=pb.INFERENCE_STATE_CANCELLED)(response.inference)),
    ),
    violation(
        "what-was-cancelled-succeeds",
        ("InferenceState", "CANCELLED -> (terminal)"),
        takes(METHOD, succeeds_at_last),
    ),
    violation(
        "a-queued-inference-is-cancelled-later",
        (CANCEL, "A QUEUED inference is CANCELLED in the same transaction."),
        changes(
            METHOD,
            lambda _, response: (
                as_queued(response.inference) if not response.inference.HasField("start_time") else None
            ),
        ),
    ),
    violation(
        "a-queued-inference-runs-although-it-was-cancelled",
        (CANCEL, "One whose engine does not exist yet never gets one."),
        takes(METHOD, queued_stay),
    ),
    violation(
        "an-engine-is-made-for-what-was-cancelled",
        (CANCEL, "One whose engine does not exist yet never gets one."),
        changes_events(
            lambda event: event.engine_call_started.SetInParent(),
            which=lambda event: event.inference_finished.event_count == 2,
        ),
    ),
    violation(
        "a-tool-loop-goes-on",
        (CANCEL, "For one that runs, the connection to the engine's provider is closed at once"),
        takes(METHOD, tools_go_on),
    ),
    violation("a-cancel-takes-4-s", (CANCEL, "The reply says requested;"), takes(METHOD, cancel_later)),
    violation(
        "a-session-stands-for-its-newest-inference",
        (f"{REQUEST}.session_id", "The active inference of this session"),
        takes(METHOD, the_last_in_line),
    ),
    violation(
        "a-session-without-an-active-inference-has-nothing-to-cancel",
        (f"{REQUEST}.session_id", "The active inference of this session"),
        takes(METHOD, only_the_active),
    ),
    violation(
        "the-last-reason-counts",
        [
            (f"{REQUEST}.reason", "Kept from the first request."),
            ("Inference.cancel_reason", "The reason that came with the first cancel request."),
        ],
        changes(METHOD, lambda request, response: sets(cancel_reason=request.reason)(response.inference)),
    ),
    violation(
        "reasons-are-cut",
        (f"{REQUEST}.reason", "At most 1,024 characters."),
        sends(METHOD, lambda request: sets(reason=request.reason[:1024])(request)),
    ),
    violation(
        "reasons-are-counted-in-bytes",
        (f"{REQUEST}.reason", "At most 1,024 characters."),
        refuses_field(METHOD, "reason", when=lambda request: len(request.reason.encode()) > 1024),
    ),
    violation(
        "nothing-is-cancelled-when-nothing-is-named",
        (f"{REQUEST}.target", "Exactly one is set."),
        answers(METHOD, when=is_none),
    ),
    violation(
        "a-cancel-tells-of-no-state",
        [
            ("CancelResponse.inference", "The inference as it is now."),
            ("InferenceState.INFERENCE_STATE_UNSPECIFIED", "Never sent."),
        ],
        changes(METHOD, lambda _, response: clears("state")(response.inference)),
    ),
    violation(
        "the-terminal-event-has-no-reason",
        ("InferenceCancelled.reason", "The reason that came with the first cancel request."),
        changes_events(
            lambda event: clears("reason")(event.inference_finished.cancelled),
            which=lambda event: is_a("inference_finished")(event) and event.inference_finished.HasField("cancelled"),
        ),
    ),
    violation(
        "an-active-inference-is-not-to-be-cancelled",
        (CANCEL, "Requests that an inference stops."),
        answers(
            METHOD,
            lambda request: inference_service_pb2.CancelResponse(
                inference=pb.Inference(inference_id=request.inference_id, state=pb.INFERENCE_STATE_RUNNING)
            ),
            when=lambda request: bool(request.inference_id),
        ),
    ),
]
