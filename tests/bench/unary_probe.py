"""The Python probe for what takes more than one rpc: workers that do something over and over, some at a time.

Bytes go out and come in as they are, so that it costs little; but one Python process asks no more than about 6,000
times a second, so it is compared only with what it measured itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import grpc

from bench.raw_rpc import OWN_CONNECTION, call_unary_async
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb

# Does one thing on a channel.
Work = Callable[[grpc.aio.Channel], Awaitable[object]]


def rate_of(address: str, work: Work, count: int, workers: int) -> float:
    """Return how often per second something is done, by so many workers at a time."""
    return asyncio.run(_rate_of(address, work, count, workers))


async def _rate_of(address: str, work: Work, count: int, workers: int) -> float:
    left = iter(range(count))

    async def go_on() -> None:
        for _ in left:
            await work(channel)

    async with grpc.aio.insecure_channel(address, options=[OWN_CONNECTION]) as channel:
        await channel.channel_ready()
        began = time.perf_counter()
        await asyncio.gather(*(go_on() for _ in range(workers)))
        return count / (time.perf_counter() - began)


def calling(path: str, request: bytes) -> Work:
    """Return work that calls an rpc."""

    async def call(channel: grpc.aio.Channel) -> None:
        await call_unary_async(channel, path, request)

    return call


def starting_to_the_end(request: bytes) -> Work:
    """Return work that starts an inference and waits until it has ended. Errors: ValueError unless it succeeded."""

    async def start(channel: grpc.aio.Channel) -> None:
        answer = await call_unary_async(channel, "/turnwire.v1.InferenceService/StartInference", request)
        inference_id = pb.StartInferenceResponse.FromString(answer).inference.inference_id
        wait = pb.WaitRequest(inference_id=inference_id, until=inference_pb2.WAIT_UNTIL_END).SerializeToString()
        answer = await call_unary_async(channel, "/turnwire.v1.InferenceService/Wait", wait)
        state = pb.WaitResponse.FromString(answer).inference.state
        if state != inference_pb2.INFERENCE_STATE_SUCCEEDED:
            msg = f"the inference is in state {state}"
            raise ValueError(msg)

    return start
