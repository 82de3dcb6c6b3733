"""The way to a server that comes and goes: one life after the other."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from fault.checks import check_answer
from support.rpc import Stubs

# How long an rpc may take that does not wait for anything.
RPC_SECONDS = 10.0

DETAILS_KEY = "grpc-status-details-bin"

Reply = TypeVar("Reply", bound=Message)


class ServerGoneError(Exception):
    """The server went away, as it was told to. Whether the request was carried out is not known."""


class NoAnswerError(Exception):
    """The client gave up before the answer came. Whether the request was carried out is not known."""


class RefusedError(Exception):
    """The server refused the request, with a reason of the catalogue."""

    def __init__(self, reason: str, metadata: dict[str, str]) -> None:
        super().__init__(f"{reason} {metadata}")
        self.reason = reason
        self.metadata = metadata


@dataclass
class Life:
    """One server, from when it listens until it is told to end."""

    number: int
    stubs: Stubs
    is_ending: bool = False

    async def ask(
        self, rpc: Callable[..., Awaitable[Reply]], request: Message, timeout_seconds: float = RPC_SECONDS
    ) -> Reply:
        """Call an rpc once.

        Raises ServerGoneError, RefusedError, NoAnswerError; AssertionError for what a server must never answer.
        """
        try:
            return await rpc(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise self.explain(error) from None

    def explain(self, error: grpc.aio.AioRpcError) -> Exception:
        """Return what a failed rpc means. Raises AssertionError for what a server must never answer."""
        info = _info(error)
        if self.is_ending and (not info.reason or info.reason in {"DRAINING", "STORE_UNAVAILABLE"}):
            return ServerGoneError()
        if not info.reason and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return NoAnswerError()
        check_answer(f"{error.code().name} {error.details()}", info.reason)
        return RefusedError(info.reason, dict(info.metadata))


class Link:
    """Hands out the present life. Lives are numbered from 1; servers that never listened have a number as well."""

    def __init__(self) -> None:
        self.launches: list[float] = []
        self.stops: list[int] = []
        self.is_closing = False
        self._life: Life | None = None
        self._is_open = asyncio.Event()

    @property
    def is_first(self) -> bool:
        """Whether no server has been open yet."""
        return self._life is None

    def stops_since(self, number: int) -> int:
        """Return how many lives from a number on ended with a SIGTERM: such a server may hand back what it runs."""
        return sum(stop >= number for stop in self.stops)

    def launch(self) -> None:
        """Count a server that is started."""
        self.launches.append(time.time())

    def open(self, stubs: Stubs) -> Life:
        """Let everyone go on, with the server that was launched last."""
        self._life = Life(len(self.launches), stubs)
        self._is_open.set()
        return self._life

    def end(self, life: Life, *, is_stop: bool) -> None:
        """Say that a server is about to be told to end: from now on it may be gone."""
        life.is_ending = True
        self._is_open.clear()
        if is_stop:
            self.stops.append(life.number)

    async def life(self) -> Life:
        """Wait until a server listens; return its life."""
        while True:
            await self._is_open.wait()
            if self._life and not self._life.is_ending:
                return self._life

    def has_ended_since(self, number: int, seconds: float) -> bool:
        """Whether a life had ended, and the next server was launched, by a time of the wall clock."""
        return number < len(self.launches) and self.launches[number] <= seconds


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info, status = error_details_pb2.ErrorInfo(), status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Unpack(info):
            break
    return info
