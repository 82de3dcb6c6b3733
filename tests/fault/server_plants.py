"""Bugs to plant that are of a server as a whole: its way down, its log, its streams. plants.py lists them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fault.planting import patch
from turnwire_server.rpc import call
from turnwire_server.rpc.inference_service import InferenceService
from turnwire_server.rpc.server import RpcServer
from turnwire_server.rpc.session_service import SessionService
from turnwire_server.runtime.inference_loop import Attempt
from turnwire_server.telemetry.logs import logger

# Longer than a cancel may take, and less than what is noticed by a client that has to wait for its answer.
LATE_SECONDS = 2.3

# How many unread streams of a session the others can stand.
UNREAD_MAX = 5


def drain_crashes() -> None:
    """While a server drains, whatever it refuses crashes on its way out: UNKNOWN, and no reason."""
    draining: list[RpcServer] = []

    def make_drain(begin: Callable[..., Any]) -> Callable[..., Any]:
        async def begin_drain(self: RpcServer) -> None:
            draining.append(self)
            await begin(self)

        return begin_drain

    def make_abort(abort: Callable[..., Any]) -> Callable[..., Any]:
        async def abort_later(*arguments: Any) -> None:
            if draining:
                msg = "planted"
                raise KeyError(msg)
            await abort(*arguments)

        return abort_later

    patch(RpcServer, "begin_drain", make_drain)
    patch(call, "_abort", make_abort)


def silent_failure() -> None:
    """Something fails behind answers that look well: only the log tells."""

    def make(get: Callable[..., Any]) -> Callable[..., Any]:
        async def get_session(*arguments: Any) -> Any:
            logger().error("the sessions could not be counted")
            return await get(*arguments)

        return get_session

    patch(SessionService, "get_session", make)


def cancel_late() -> None:
    """A cancel is heeded after a while, for which it could have been heeded at once."""

    def make(cancel: Callable[[Attempt], None]) -> Callable[[Attempt], None]:
        def cancel_later(self: Attempt) -> None:
            asyncio.get_running_loop().call_later(LATE_SECONDS, cancel, self)

        return cancel_later

    patch(Attempt, "cancel", make)


def watcher_starves() -> None:
    """As soon as some streams of a session are not read, its others get nothing more."""
    waiting: Counter[str] = Counter()

    def make(subscribe: Callable[..., AsyncGenerator[bytes]]) -> Callable[..., AsyncGenerator[bytes]]:
        async def subscribe_events(self: Any, request: Any, caller: Any) -> AsyncGenerator[bytes]:
            is_first = True
            async for response in subscribe(self, request, caller):
                while waiting[request.session_id] > UNREAD_MAX and not is_first:  # noqa: ASYNC110 - it is a bug
                    await asyncio.sleep(0.01)
                is_first = False
                waiting[request.session_id] += 1
                try:
                    yield response
                finally:
                    waiting[request.session_id] -= 1

        return subscribe_events

    patch(InferenceService, "subscribe_events", make)
