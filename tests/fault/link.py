"""The way to a server that comes and goes: one life after the other, and the troubles in and between them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from fault.checks import check_answer
from fault.history import History
from fault.troubles import DOWN, Failure, Troubles
from support.rpc import Stubs

# How long an rpc may take that does not wait for anything.
RPC_SECONDS = 15.0

DETAILS_KEY = "grpc-status-details-bin"

# What gRPC says by itself of a connection that is gone. Any other status without a reason is the server's own, and
# nothing that befalls a server is an excuse for it.
BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})

Reply = TypeVar("Reply", bound=Message)


class ServerGoneError(Exception):
    """The server went away or was out of reach, as it was told to. Whether the request was carried out is not known."""


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
    """One server, from when it listens until it is told to end. `address` is that of the proxy in front of it."""

    number: int
    stubs: Stubs
    troubles: Troubles
    history: History
    address: str = ""
    is_ending: bool = False

    async def ask(
        self, rpc: Callable[..., Awaitable[Reply]], request: Message, timeout_seconds: float = RPC_SECONDS
    ) -> Reply:
        """Call an rpc once.

        Raises ServerGoneError, RefusedError, NoAnswerError; AssertionError for what a server must never answer.
        """
        began = time.monotonic()
        call = self.history.invoke(self.number, type(request).__name__, request)
        try:
            reply = await rpc(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            info = _info(error)
            outcome = f"refused: {info.reason}" if info.reason else f"unknown: {error.code().name} {error.details()}"
            self.history.complete(call, outcome)
            failed = self.explain(error, began)
            if isinstance(failed, NoAnswerError) and timeout_seconds >= RPC_SECONDS:
                check_answer("nothing in time", "")
            raise failed from None
        self.history.complete(call, "ok", reply)
        return reply

    def explain(self, error: grpc.aio.AioRpcError, began: float) -> Exception:
        """Return what a failed rpc means that was made then. Raises AssertionError for what must never be answered."""
        info = _info(error)
        failure = _failure(error.code(), info.reason)
        if self.is_ending and (failure or info.reason == "DRAINING"):
            return ServerGoneError()
        if failure and self.troubles.explain(failure, began):
            return ServerGoneError()
        if failure is Failure.SILENCE:
            return NoAnswerError()
        check_answer(f"{error.code().name} {error.details()}", info.reason)
        return RefusedError(info.reason, dict(info.metadata))


class Link:
    """Hands out the present life. Lives are numbered from 1; servers that never listened have a number as well.

    An era is a stretch without a trouble: each life begins one, and so does the end of the troubles within a life.
    """

    def __init__(self, history: History) -> None:
        self.launches: list[float] = []
        self.stops: list[int] = []
        self.era = 0
        self.is_closing = False
        self.set_backs: list[int] = []
        self.warm_time = -float("inf")  # from when on the present server has all that it imports
        self.jump_time = -float("inf")  # when the wall clock was set for the last time
        self.troubles = Troubles()
        self.provider_troubles = Troubles()
        self.history = history
        self._life: Life | None = None
        self._is_open = asyncio.Event()
        self._is_new = asyncio.Condition()

    def stops_since(self, number: int) -> int:
        """Return how many lives from a number on ended with a SIGTERM: such a server may hand back what it runs."""
        return sum(stop >= number for stop in self.stops)

    def launch(self, seconds: float) -> None:
        """Count a server that is started when its wall clock says so many seconds."""
        self.launches.append(seconds)

    async def open(self, stubs: Stubs, address: str) -> Life:
        """Let everyone go on, with the server that was launched last."""
        self._life = Life(len(self.launches), stubs, self.troubles, self.history, address)
        self.history.tell("open", life=self._life.number)
        self.troubles.end_all()
        self.provider_troubles.end_all()  # one that was cut short with its server: there are new connections now
        await self.begin_era()
        self._is_open.set()
        return self._life

    async def begin_era(self) -> int:
        """Say that there is no trouble any more; return the number of the new era."""
        async with self._is_new:
            self.era += 1
            self._is_new.notify_all()
        return self.era

    def end(self, life: Life, *, is_stop: bool) -> None:
        """Say that a server is about to be told to end: from now on it may be gone."""
        self.history.tell("end", life=life.number, is_stop=is_stop)
        life.is_ending = True
        self.troubles.begin(DOWN, {Failure.BREAK, Failure.SILENCE, Failure.STORE})
        self._is_open.clear()
        if is_stop:
            self.stops.append(life.number)

    async def life(self) -> Life:
        """Wait until a server listens; return its life."""
        while True:
            await self._is_open.wait()
            if self._life and not self._life.is_ending:
                return self._life

    async def pause(self, seconds: float) -> None:
        """Wait that long before the next try, or until there is no trouble any more."""
        era = self.era
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._is_new:
                await self._is_new.wait_for(lambda: self.era != era)

    def set_clock(self, *, is_back: bool) -> None:
        """Say that the wall clock jumps. When it goes back, deadlines are later, and times tell no order."""
        self.jump_time = time.monotonic()
        if is_back:
            self.set_backs.append(len(self.launches))

    def was_set_back_since(self, number: int) -> bool:
        """Whether the wall clock went back in a life from a number on."""
        return any(each >= number for each in self.set_backs)

    def has_ended_since(self, number: int, seconds: float) -> bool:
        """Whether a life had ended, and the next server was launched, by a time of the wall clock."""
        return number < len(self.launches) and self.launches[number] <= seconds


def _failure(code: grpc.StatusCode, reason: str) -> Failure | None:
    """Return what a status tells of that troubles explain, if it does."""
    if reason:
        return Failure.STORE if reason == "STORE_UNAVAILABLE" else None
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Failure.SILENCE
    return Failure.BREAK if code in BROKEN else None


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info, status = error_details_pb2.ErrorInfo(), status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Unpack(info):
            break
    return info
