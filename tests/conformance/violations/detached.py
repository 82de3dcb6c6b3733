"""Violations of what goes on when a client goes away."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from violations.exchange import Exchange
from violations.kinds import takes
from violations.streams import follows
from violations.violation import violation

START = "InferenceService.StartInference"
DETACHED = (START, "The inference is detached from the rpc: it goes on when the client goes away.")


async def cancels_when_left(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Cancel what is watched when a watcher leaves."""
    is_over = False
    try:
        async for response in exchange.follow():
            is_over = response.HasField("end")
            yield response
    finally:
        if not is_over and exchange.request.inference_id:
            exchange.begin(exchange.ask("Cancel", inference_id=exchange.request.inference_id))


async def dies_with_its_start(exchange: Exchange) -> Any:
    """Cancel an inference whose start nobody waits for any more."""
    response = await exchange.forward()
    try:
        await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        exchange.begin(exchange.ask("Cancel", inference_id=response.inference.inference_id))
        raise
    return response


async def dies_with_a_wait(exchange: Exchange) -> Any:
    """Cancel an inference that a client has stopped waiting for."""
    try:
        return await exchange.forward()
    except asyncio.CancelledError:
        exchange.begin(exchange.ask("Cancel", inference_id=exchange.request.inference_id))
        raise


VIOLATIONS = [
    violation(
        "who-leaves-cancels",
        DETACHED,
        follows(cancels_when_left),
    ),
    violation("an-inference-dies-with-its-start", DETACHED, takes("StartInference", dies_with_its_start)),
    violation("an-inference-dies-with-a-wait", DETACHED, takes("Wait", dies_with_a_wait)),
]
