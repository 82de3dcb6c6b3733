"""Violations of each row of the table of SubscribeEvents: another first event, and another end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from support.subscribe_table import Row, subscribe_table
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from violations.exchange import Exchange, Follow, Plant, RefusalError
from violations.streams import follows
from violations.violation import Violation, violation

SUBSCRIBE = "InferenceService.SubscribeEvents"

TERMINAL = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)

Responses = AsyncGenerator[Any, None]


def of_rows() -> Iterator[Violation]:
    """Yield the violations of each row."""
    for row in subscribe_table():
        breaks = (SUBSCRIBE, f"{row.start} | {row.until} | {row.inference} | {row.first_event} | {row.end}")
        for what, change in _changes(row):
            yield violation(f"{row}-{what}", breaks, _in_row(row, change))


def _changes(row: Row) -> Iterator[tuple[str, Follow]]:
    match row.end:
        case "INVALID_FIELD":
            yield "is-opened", _opens
            return
        case "never":
            yield "ends", _ends_at_the_head
        case _:
            yield "ends-otherwise", _ends_as_deleted
            yield "goes-on", _goes_on
    match row.first_event:
        case "-":
            yield "delivers-what-is-past", _from_beginning
        case "snapshot":
            yield "begins-without-a-snapshot", _from_beginning
        case "earliest":
            yield "begins-with-the-next", _live
        case _:
            yield "begins-one-later", _one_later


def _in_row(row: Row, change: Follow) -> Plant:
    """Return a plant that does something to the streams of one row."""

    async def follow(exchange: Exchange) -> Responses:
        if await _row_of(exchange) == row.case:
            async for response in change(exchange):
                yield response
        else:
            async for response in exchange.follow_raw():
                yield response

    return follows(follow)


async def _row_of(exchange: Exchange) -> tuple[str, str, str]:
    request = exchange.request
    until = pb.SubscribeUntil.Name(request.until or pb.SUBSCRIBE_UNTIL_FOLLOW).removeprefix("SUBSCRIBE_UNTIL_")
    return request.WhichOneof("start") or "", until, await _inference(exchange)


async def _inference(exchange: Exchange) -> str:
    if not exchange.request.inference_id:
        return "none"
    try:
        answer = await exchange.ask("GetInference", inference_id=exchange.request.inference_id)
    except RefusalError:
        return "unknown"
    return "finished" if answer.inference.state in TERMINAL else "unfinished"


async def _opens(exchange: Exchange) -> Responses:
    exchange.request.until = pb.SUBSCRIBE_UNTIL_FOLLOW
    async for response in exchange.follow_raw():
        yield response


async def _ends_at_the_head(exchange: Exchange) -> Responses:
    """End at the head, or at the end of an inference behind which there is nothing to tell."""
    head = 0
    async for response in exchange.follow():
        head = max(head, response.opened.head_sequence)
        is_whole = not exchange.request.HasField("snapshot") or response.snapshot.last
        is_finished = any(event.HasField("inference_finished") for event in response.events)
        if (response.through_sequence >= head and is_whole) or (exchange.request.inference_id and is_finished):
            response.end.reason = pb.SUBSCRIPTION_END_REASON_CAUGHT_UP
            yield response
            return
        yield response


async def _ends_as_deleted(exchange: Exchange) -> Responses:
    async for response in exchange.follow():
        if response.HasField("end"):
            response.end.reason = pb.SUBSCRIPTION_END_REASON_SESSION_DELETED
        yield response


async def _goes_on(exchange: Exchange) -> Responses:
    async for response in exchange.follow():
        is_over = response.HasField("end")
        response.ClearField("end")
        yield response
        if is_over:
            await asyncio.Event().wait()


def _beginning(edit: Callable[[Any], Any]) -> Follow:
    async def follow(exchange: Exchange) -> Responses:
        edit(exchange.request)
        async for response in exchange.follow_raw():
            yield response

    return follow


_from_beginning = _beginning(lambda request: request.from_beginning.SetInParent())
_live = _beginning(lambda request: request.live.SetInParent())


async def _one_later(exchange: Exchange) -> Responses:
    """Leave out the first event, and count it in no position that the client can check."""
    is_left_out = False
    async for response in exchange.follow():
        if response.events and not is_left_out:
            is_left_out = True
            if not exchange.request.inference_id:
                response.after_sequence = response.events[0].sequence
            del response.events[0]
        yield response


VIOLATIONS = list(of_rows())
