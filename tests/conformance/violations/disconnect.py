"""Inferences whose watchers left, and what becomes of them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from google.protobuf.duration_pb2 import Duration

from violations.exchange import Exchange
from violations.kinds import sends
from violations.streams import follows
from violations.violation import violation

METHOD = "SubscribeEvents"
FIELD = "SubscribeEventsRequest.cancel_after_disconnect"

DAY_SECONDS = 86_400


def has_field(request: Any) -> bool:
    """Whether the inference is to be cancelled at all."""
    return bool(request.HasField("cancel_after_disconnect"))


def lasts(request: Any) -> float:
    """Return how long the server waits, in seconds."""
    return float(request.cancel_after_disconnect.ToTimedelta().total_seconds())


async def whoever_comes_back(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Cancel after a stream has ended, whatever comes back, and however it ended."""
    request = exchange.request
    seconds = lasts(request) if has_field(request) else None
    inference_id = request.inference_id

    async def cancel(after: float) -> None:
        await asyncio.sleep(after)
        await exchange.ask("Cancel", inference_id=inference_id, reason="nobody is there")

    request.ClearField("cancel_after_disconnect")
    try:
        async for response in exchange.follow_raw():
            yield response
    finally:
        if seconds is not None:
            exchange.begin(cancel(seconds))


VIOLATIONS = [
    violation(
        "nobody-is-missed",
        (FIELD, "If set, and if this stream breaks without `end`"),
        sends(METHOD, lambda request: request.ClearField("cancel_after_disconnect")),
    ),
    violation(
        "whoever-comes-back-is-too-late",
        (FIELD, "A stream that comes back is one that names the inference"),
        follows(whoever_comes_back),
    ),
    violation(
        "0-means-later",
        (FIELD, "0 means at once."),
        sends(
            METHOD,
            lambda request: request.cancel_after_disconnect.CopyFrom(Duration(seconds=30)),
            lambda request: has_field(request) and not lasts(request),
        ),
    ),
    violation(
        "more-than-one-day",
        (FIELD, "At most one day."),
        sends(
            METHOD,
            lambda request: request.cancel_after_disconnect.CopyFrom(Duration(seconds=DAY_SECONDS)),
            lambda request: has_field(request) and lasts(request) > DAY_SECONDS,
        ),
    ),
    violation(
        "nobody-is-cancelled-after-a-disconnect",
        (FIELD, "It needs inference_id."),
        sends(
            METHOD,
            lambda request: request.ClearField("cancel_after_disconnect"),
            lambda request: not request.inference_id,
        ),
    ),
]
