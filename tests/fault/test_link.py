"""What a failed rpc means: what a server may answer that comes and goes, and what nothing excuses."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from fault.history import History
from fault.link import DETAILS_KEY, Life, NoAnswerError, RefusedError, ServerGoneError
from fault.troubles import Failure, Troubles
from support.rpc import Stubs

Code = grpc.StatusCode


def _error(code: Code, reason: str = "") -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata()
    if reason:
        detail = Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason))
        trailing.add(DETAILS_KEY, status_pb2.Status(details=[detail]).SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "said")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A server that runs, without a trouble."""
    with History(tmp_path / "history.jsonl") as history:
        yield Life(1, cast("Stubs", None), Troubles(), history)


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.INTERNAL, Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED])
def test_no_trouble_excuses_a_status_without_a_reason_that_no_network_gives(life: Life, code: Code) -> None:
    life.troubles.begin("all at once", set(Failure))
    life.is_ending = True
    with pytest.raises(AssertionError, match=r"^Available: "):
        life.explain(_error(code), time.monotonic())


@pytest.mark.parametrize(
    ("code", "reason", "failure"),
    [
        (Code.UNAVAILABLE, "", Failure.BREAK),
        (Code.CANCELLED, "", Failure.BREAK),
        (Code.UNAVAILABLE, "STORE_UNAVAILABLE", Failure.STORE),
    ],
)
def test_a_trouble_excuses_what_it_does_to_a_call(life: Life, code: Code, reason: str, failure: Failure) -> None:
    with pytest.raises(AssertionError, match=r"^Available: "):
        life.explain(_error(code, reason), time.monotonic())
    life.troubles.begin("trouble", {failure})
    assert isinstance(life.explain(_error(code, reason), time.monotonic()), ServerGoneError)


def test_what_comes_too_late_is_no_answer_unless_there_is_a_trouble(life: Life) -> None:
    assert isinstance(life.explain(_error(Code.DEADLINE_EXCEEDED), time.monotonic()), NoAnswerError)
    life.troubles.begin("pause", {Failure.SILENCE})
    assert isinstance(life.explain(_error(Code.DEADLINE_EXCEEDED), time.monotonic()), ServerGoneError)


def test_a_server_drains_when_it_is_told_to_end_and_refuses_with_a_reason_at_any_time(life: Life) -> None:
    assert isinstance(life.explain(_error(Code.ABORTED, "SESSION_BUSY"), time.monotonic()), RefusedError)
    with pytest.raises(AssertionError, match=r"^Available: "):
        life.explain(_error(Code.UNAVAILABLE, "DRAINING"), time.monotonic())
    life.is_ending = True
    assert isinstance(life.explain(_error(Code.UNAVAILABLE, "DRAINING"), time.monotonic()), ServerGoneError)
    assert isinstance(life.explain(_error(Code.ABORTED, "SESSION_BUSY"), time.monotonic()), RefusedError)
