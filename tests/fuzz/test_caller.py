"""A server that is late once is asked again; one that is late each time has not answered."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from fuzz.caller import Attempt, call
from fuzz.oracle import check_answer
from fuzz.rpcs import rpcs

# Short where a call is to be late, long where it is not, whatever else the machine does.
_LATE, _NOT_LATE = 0.2, 30.0

_ATTEMPT = Attempt(rpcs()["ListProfiles"], b"")


@contextmanager
def _channel_to_one_late(times: int) -> Generator[grpc.Channel]:
    """A server that holds so many requests until the end, and answers the others with nothing."""
    is_over, held = threading.Event(), iter(range(times))

    def serve(_request: bytes, _context: object) -> bytes:
        if next(held, None) is not None:
            is_over.wait()
        return b""

    library: Any = grpc
    server: Any = grpc.server(ThreadPoolExecutor(4))
    handlers = {_ATTEMPT.rpc.name: library.unary_unary_rpc_method_handler(serve)}
    service = _ATTEMPT.rpc.method.containing_service.full_name
    server.add_generic_rpc_handlers((library.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        is_over.set()
        server.stop(None).wait()


def test_an_answer_that_is_late_once_is_asked_for_again() -> None:
    with _channel_to_one_late(1) as channel:
        answer = call(channel, _ATTEMPT, b"", (_LATE, _NOT_LATE))
    assert answer.code is grpc.StatusCode.OK
    check_answer(_ATTEMPT, b"", answer)


def test_an_answer_that_is_late_twice_is_missing() -> None:
    with _channel_to_one_late(2) as channel:
        answer = call(channel, _ATTEMPT, b"", (_LATE, _LATE))
    with pytest.raises(AssertionError, match="ListProfiles: no answer in time"):
        check_answer(_ATTEMPT, b"", answer)


def test_a_client_that_gives_up_asks_once() -> None:
    hasty = Attempt(_ATTEMPT.rpc, b"", seconds=_LATE)
    with _channel_to_one_late(1) as channel:
        answer = call(channel, hasty, b"", (_NOT_LATE,))
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    check_answer(hasty, b"", answer)
