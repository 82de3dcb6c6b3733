"""Rpcs whose messages stay bytes, so that a client does no more than it has to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import grpc

# A connection of one's own, also where others in this process go to the same server.
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Answers(Protocol):
    """The answers of a rpc that is under way."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def cancel(self) -> object:
        """Want no more of them."""
        ...


def as_is(message: bytes) -> bytes:
    """Return a message."""
    return message


def call_unary(channel: grpc.Channel, path: str, request: bytes) -> bytes:
    """Return the answer of an rpc."""
    return channel.unary_unary(path, as_is, as_is)(request)


def call_stream(channel: grpc.Channel, path: str, request: bytes) -> Answers:
    """Return the answers of an rpc as they come."""
    return channel.unary_stream(path, as_is, as_is)(request)


async def call_unary_async(channel: grpc.aio.Channel, path: str, request: bytes) -> bytes:
    """Return the answer of an rpc."""
    return await channel.unary_unary(path, as_is, as_is)(request)


def call_stream_async(channel: grpc.aio.Channel, path: str, request: bytes) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    """Return the answers of an rpc as they come."""
    return channel.unary_stream(path, as_is, as_is)(request)
