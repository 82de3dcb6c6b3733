"""Violations of what a timeout does, in each state."""

from typing import Any

from google.protobuf.duration_pb2 import Duration

from violations.exchange import Exchange
from violations.kinds import sends, takes
from violations.told import clears, overlooks, sets, tells
from violations.violation import violation

REQUEST = "StartInferenceRequest"
METHOD = "StartInference"
IN_WHATEVER_STATE = (f"{REQUEST}.timeout", "How long the inference may take from acceptance to its end")


async def not_while_paused(exchange: Exchange) -> Any:
    """Count no time in a session that is in step mode."""
    request = exchange.request
    if request.session_id and (await exchange.ask("GetSession", session_id=request.session_id)).session.step_mode:
        request.ClearField("timeout")
    return await exchange.forward()


VIOLATIONS = [
    violation(
        "time-does-not-count-in-line",
        IN_WHATEVER_STATE,
        sends(METHOD, clears("timeout"), when=lambda request: request.conflict_policy == 2),
    ),
    violation(
        "time-does-not-count-while-a-client-has-to-answer",
        IN_WHATEVER_STATE,
        sends(METHOD, clears("timeout"), when=lambda request: bool(request.overrides.tools)),
    ),
    violation("time-does-not-count-while-paused", IN_WHATEVER_STATE, takes(METHOD, not_while_paused)),
    violation(
        "timeouts-are-ignored",
        (f"{REQUEST}.timeout", "How long the inference may take from acceptance to its end"),
        sends(METHOD, clears("timeout")),
    ),
    violation(
        "timeouts-end-as-cancelled",
        (f"{REQUEST}.timeout", "How long the inference may take from acceptance to its end"),
        tells(sets(state=7), which=lambda inference: inference.error.reason == 101),
    ),
    violation(
        "there-is-always-a-timeout",
        (f"{REQUEST}.timeout", "Absent: no limit."),
        sends(
            METHOD,
            lambda request: request.timeout.CopyFrom(Duration(seconds=3600)),
            when=lambda request: not request.HasField("timeout"),
        ),
    ),
    violation(
        "timeouts-out-of-range-are-taken-as-none",
        (f"{REQUEST}.timeout", "Above 0, at most 30 days."),
        overlooks(METHOD, clears("timeout")),
    ),
]
