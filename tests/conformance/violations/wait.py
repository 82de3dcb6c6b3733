"""Violations of what Wait waits for, and how long."""

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from turnwire.v1 import inference_pb2 as pb
from turnwire.v1.inference_service_pb2 import WaitResponse
from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, delays, refuses, sends, takes
from violations.told import TERMINAL, clears, sets
from violations.violation import violation

WAIT = "InferenceService.Wait"
REQUEST = "WaitRequest"
METHOD = "Wait"

WAKE_SECONDS = 11

# How long the case for the deadline would wait.
DEADLINE_TIMEOUT_SECONDS = 40


async def too_late(exchange: Exchange) -> Any:
    """Take it for an error that the time is over."""
    response = await exchange.forward()
    if response.inference.state not in TERMINAL:
        raise RefusalError("DEADLINE_EXCEEDED", reason="")
    return response


async def gone_after_the_end(exchange: Exchange) -> Any:
    """Know nothing of what has ended already."""
    name = exchange.request.inference_id
    now = await exchange.ask("GetInference", inference_id=name)
    if now.inference.state in TERMINAL:
        raise RefusalError.of("INFERENCE_NOT_FOUND", inference_id=name)
    return await exchange.forward()


async def paused_is_no_state_to_act_in(exchange: Exchange) -> Any:
    """Hold while an inference is paused."""
    now = await exchange.ask("GetInference", inference_id=exchange.request.inference_id)
    if now.inference.state == pb.INFERENCE_STATE_PAUSED:
        exchange.request.until = pb.WAIT_UNTIL_END
    return await exchange.forward()


async def late_after_a_cancel(exchange: Exchange) -> Any:
    """Tell of an inference that is cancelled when the client would call again anyway."""
    response = await exchange.forward()
    if response.inference.state == pb.INFERENCE_STATE_CANCELLED:
        await asyncio.sleep(WAKE_SECONDS)
    return response


async def as_it_was(exchange: Exchange) -> Any:
    """Answer a wait whose session is deleted with what was there when it began."""
    now = await exchange.ask("GetInference", inference_id=exchange.request.inference_id)
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason != "INFERENCE_NOT_FOUND":
            raise
        return WaitResponse(inference=now.inference)


async def a_few_at_a_time(exchange: Exchange) -> Any:
    """Let ten clients wait for an inference, and no more."""
    name = exchange.request.inference_id
    exchange.state[name] = exchange.state.get(name, 0) + 1
    try:
        if exchange.state[name] > 10:
            raise RefusalError.of("QUOTA_EXCEEDED")
        return await exchange.forward()
    finally:
        exchange.state[name] -= 1


def has_no_timeout(request: Any) -> bool:
    """Whether the client does not say how long."""
    return not request.HasField("timeout")


def with_timeout(seconds: int) -> Callable[[Any], None]:
    """Hold for another time."""

    def edit(request: Any) -> None:
        request.timeout.CopyFrom(Duration(seconds=seconds))

    return edit


def is_above_50(request: Any) -> bool:
    """Whether the client would wait for more than 50 s."""
    return (request.timeout.seconds, request.timeout.nanos) > (50, 0)


VIOLATIONS = [
    violation(
        "a-wait-wakes-late-after-a-cancel",
        (WAIT, "Waits until an inference has ended"),
        takes(METHOD, late_after_a_cancel),
    ),
    violation(
        "a-wait-tells-of-a-session-that-is-deleted",
        (WAIT, "INFERENCE_NOT_FOUND there is no such inference, or its session was deleted meanwhile."),
        takes(METHOD, as_it_was),
    ),
    violation(
        "a-wait-does-not-wait",
        [(WAIT, "It holds for at most `timeout`"), (f"{REQUEST}.timeout", "How long to hold at most.")],
        sends(METHOD, with_timeout(0)),
    ),
    violation(
        "a-wait-holds-too-long",
        (f"{REQUEST}.timeout", "How long to hold at most."),
        sends(
            METHOD,
            lambda request: sets(seconds=request.timeout.seconds + 6)(request.timeout),
            when=lambda request: request.timeout.seconds == 1,
        ),
    ),
    violation(
        "a-wait-holds-up-to-the-deadline",
        (WAIT, "It holds for at most `timeout`, and ends 500 ms before the deadline"),
        delays(METHOD, 0.6),
    ),
    violation(
        "a-wait-ends-100-ms-before-the-deadline",
        (WAIT, "It holds for at most `timeout`, and ends 500 ms before the deadline"),
        delays(METHOD, 0.4, when=lambda request: request.timeout.seconds == DEADLINE_TIMEOUT_SECONDS),
    ),
    violation(
        "it-is-an-error-that-the-time-is-over",
        (WAIT, "That the time is over is not an error"),
        takes(METHOD, too_late),
    ),
    violation(
        "nobody-may-wait-for-what-has-ended",
        (WAIT, "Any number of clients MAY wait, at any replica, at any time"),
        takes(METHOD, gone_after_the_end),
    ),
    violation(
        "ten-clients-may-wait",
        (WAIT, "Any number of clients MAY wait, at any replica, at any time"),
        takes(METHOD, a_few_at_a_time),
    ),
    violation(
        "a-wait-holds-for-1-s-by-default",
        (f"{REQUEST}.timeout", "Absent: 20 s."),
        sends(METHOD, with_timeout(1), when=has_no_timeout),
    ),
    violation(
        "no-time-is-the-default",
        (f"{REQUEST}.timeout", "0: do not hold."),
        sends(METHOD, clears("timeout"), when=lambda request: not (request.timeout.seconds or request.timeout.nanos)),
    ),
    violation(
        "long-timeouts-are-refused",
        (f"{REQUEST}.timeout", "More than 50 s counts as 50 s."),
        refuses(METHOD, "INVALID_FIELD", when=is_above_50),
    ),
    violation(
        "a-wait-is-always-for-the-end",
        [
            ("WaitUntil.WAIT_UNTIL_CLIENT_ACTION", "When the inference is terminal, or when the client has to act"),
            (f"{REQUEST}.until", "UNSPECIFIED means CLIENT_ACTION."),
        ],
        sends(METHOD, sets(until=pb.WAIT_UNTIL_END)),
    ),
    violation(
        "a-wait-holds-while-an-inference-is-paused",
        ("WaitUntil.WAIT_UNTIL_CLIENT_ACTION", "When the inference is terminal, or when the client has to act"),
        takes(METHOD, paused_is_no_state_to_act_in),
    ),
    violation(
        "unspecified-is-the-end",
        (f"{REQUEST}.until", "UNSPECIFIED means CLIENT_ACTION."),
        sends(METHOD, sets(until=pb.WAIT_UNTIL_END), when=lambda request: not request.until),
    ),
    violation(
        "a-wait-is-never-for-the-end",
        ("WaitUntil.WAIT_UNTIL_END", "When the inference is terminal."),
        sends(METHOD, sets(until=pb.WAIT_UNTIL_CLIENT_ACTION)),
    ),
    violation(
        "a-turn-comes-as-a-whole",
        (f"{REQUEST}.turn_view", "How much of the turn to return once it is CLOSED."),
        sends(METHOD, sets(turn_view=3), when=lambda request: bool(request.turn_view)),
    ),
    violation(
        "a-turn-comes-unasked",
        (f"{REQUEST}.turn_view", "UNSPECIFIED: no turn."),
        sends(METHOD, sets(turn_view=3), when=lambda request: not request.turn_view),
    ),
    violation(
        "no-turn-comes",
        ("WaitResponse.turn", "The turn, if one was asked for and it is CLOSED"),
        changes(METHOD, lambda _, response: response.ClearField("turn")),
    ),
    violation(
        "no-page-token-comes",
        ("WaitResponse.turn_page_token", "To be sent to GetTurn, with the target"),
        changes(METHOD, lambda _, response: response.ClearField("turn_page_token")),
    ),
    violation(
        "there-is-always-a-page-token",
        ("WaitResponse.turn_page_token", "Empty when there is none."),
        changes(METHOD, lambda _, response: sets(turn_page_token=response.turn_page_token or "more")(response)),
    ),
    violation(
        "a-page-token-is-of-another-view",
        ("WaitResponse.turn_page_token", "To be sent to GetTurn, with the target"),
        changes(METHOD, lambda _, response: sets(turn_page_token=f"{response.turn_page_token}x")(response)),
    ),
]
