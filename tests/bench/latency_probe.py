"""The Python probe for latency: receives paced streams, and says how long each event took from its making to here.

An event says when it was made (create_time) by the server's clock, which is this machine's. Messages are kept as they
come and parsed afterwards, so that parsing is not measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import grpc

from bench.raw_rpc import OWN_CONNECTION, call_stream_async
from turnwire.v1 import inference_service_pb2 as pb


class _Stream:
    """One stream as it comes in."""

    def __init__(self) -> None:
        self.received: list[tuple[int, bytes]] = []

    async def receive(self, channel: grpc.aio.Channel, path: str, request: bytes) -> None:
        async for message in call_stream_async(channel, path, request):
            self.received.append((time.time_ns(), message))


def receive_streams(address: str, path: str, requests: Sequence[bytes]) -> list[list[float]]:
    """Receive streams of events at once, until they end; return for each what its deltas took, in seconds."""
    return asyncio.run(_receive(address, path, requests))


async def _receive(address: str, path: str, requests: Sequence[bytes]) -> list[list[float]]:
    streams = [_Stream() for _ in requests]
    async with (
        grpc.aio.insecure_channel(address, options=[OWN_CONNECTION]) as channel,
        asyncio.TaskGroup() as group,
    ):
        for stream, request in zip(streams, requests, strict=True):
            group.create_task(stream.receive(channel, path, request))
    return [[each for at, message in stream.received for each in _latencies(at, message)] for stream in streams]


def _latencies(received_nanos: int, message: bytes) -> list[float]:
    """Return what the deltas of a message took. The frames of a bare server are read as ours: they are the same."""
    return [
        (received_nanos - event.create_time.ToNanoseconds()) / 1e9
        for event in pb.SubscribeEventsResponse.FromString(message).events
        if event.HasField("llm_delta")
    ]
