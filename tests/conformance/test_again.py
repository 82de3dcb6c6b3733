"""A call is made again after the answers that say so, as long as it may be, and after no other."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from support.made_up_server import made_up
from turnwire.testing.v1.conformance_pb2 import Step
from turnwire.v1.inference_service_pb2 import WaitResponse
from turnwire_conformance.limits import Limits
from turnwire_conformance.stage import Stage
from turnwire_conformance.steps import take_steps

WAIT = {
    "rpc": "InferenceService.Wait",
    "request": {"inference_id": "i"},
    "expect": {"inference": {"state": "CANCELLED"}},
}
RUNNING = {"expect": {"inference": {"state": "RUNNING"}}}

LIMITS = Limits(again=0.3, deadline=5.0)

States = Callable[[int], str]


async def asked(call: dict[str, Any], state: States, seconds: float = 0.0) -> int:
    """Make a call of a server that answers the n-th one with a state, later; return how often it was called."""
    count = 0

    async def answer(_: str, __: bytes, context: Any) -> bytes:
        nonlocal count
        count += 1
        await asyncio.sleep(seconds)
        now = state(count)
        if now == "GONE":
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        told = {"inference": {"state": f"INFERENCE_STATE_{now}"}}
        return json_format.ParseDict(told, WaitResponse()).SerializeToString()

    step = json_format.ParseDict({"call": {**WAIT, **call}}, Step())
    async with made_up(answer) as address, grpc.aio.insecure_channel(address) as channel:
        await take_steps(Stage(address, channel, {}, LIMITS), [step])
    return count


def after(number: int, then: str = "CANCELLED") -> States:
    return lambda count: "RUNNING" if count < number else then


async def test_a_call_is_made_again_until_another_answer_comes() -> None:
    assert await asked({"again": RUNNING}, after(3)) == 3


@pytest.mark.parametrize(
    ("call", "state", "seconds", "told"),
    [
        ({}, after(2), 0.0, "state is INFERENCE_STATE_RUNNING"),
        ({"again": RUNNING}, after(2, "SUCCEEDED"), 0.0, "state is INFERENCE_STATE_SUCCEEDED"),
        ({"again": RUNNING}, after(2, "GONE"), 0.0, "it is refused with NOT_FOUND"),
        ({"again": RUNNING}, after(1000), 0.0, "for 0.3 s it is"),
        ({"again": RUNNING, "tookMax": "0.1s"}, after(1000), 0.0, "for 0.1 s it is"),
        ({"again": RUNNING, "tookMax": "0.1s"}, after(2), 0.2, "for 0.1 s it is"),
        ({"again": RUNNING, "tookMax": "0.3s"}, after(2), 0.2, "should take at most 0.3 s"),
        ({"again": {**RUNNING, "tookMax": "0.1s"}}, after(2), 0.2, "s it is still inference"),
    ],
    ids=[
        "not-asked-for",
        "other-state",
        "refused",
        "for-ever",
        "till-took-max",
        "after-took-max",
        "late",
        "not-at-once",
    ],
)
async def test_no_other_answer_is_asked_for_again(
    call: dict[str, Any], state: States, seconds: float, told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        await asked(call, state, seconds)


async def test_a_call_is_tried_as_often_as_it_says() -> None:
    assert await asked({"tries": 3}, after(3)) == 3
    with pytest.raises(AssertionError, match="RUNNING"):
        await asked({"tries": 2}, after(3))


async def test_a_stream_that_says_nothing_ends_at_the_deadline_of_the_call() -> None:
    async def hang(_: str, __: bytes, ___: Any) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    call = {"rpc": "InferenceService.SubscribeEvents", "deadline": "0.2s", "status": "DEADLINE_EXCEEDED"}
    step = json_format.ParseDict({"call": call}, Step())
    async with made_up(hang) as address, grpc.aio.insecure_channel(address) as channel, asyncio.timeout(5):
        await take_steps(Stage(address, channel, {}, LIMITS), [step])
