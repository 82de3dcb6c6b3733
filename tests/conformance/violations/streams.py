"""The common kinds of plants for streams of events.

They parse what they pass on, and leave the positions of responses (after_sequence, through_sequence) as they are: so
each breaks what it is meant to break, and not the counting as well. `which` says of which events, `when` (it looks at
the request) of which streams.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from turnwire.v1 import inference_service_pb2 as pb
from violations.exchange import STREAMED, Exchange, Follow, Plant
from violations.kinds import When, always, changes

Which = Callable[[Any], bool]


def is_a(*payloads: str) -> Which:
    """Whether an event has one of these payloads: `is_a("llm_delta")`."""
    return lambda event: event.WhichOneof("payload") in payloads


def follows(follow: Follow) -> Plant:
    """Take streams over: a generator from an Exchange to responses; it MAY raise a RefusalError."""
    return Plant(frozenset([STREAMED]), follow=follow)


def rewrites(edit: Callable[[Any, Any], Iterable[Any] | None], when: When = always) -> Plant:
    """Change the responses of a stream: `edit(request, response)`, in place, or return those that take its place."""

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        request = copy.deepcopy(exchange.request)
        is_meant = when(request)
        async for response in exchange.follow():
            others = edit(request, response) if is_meant else None
            for each in [response] if others is None else others:
                yield each

    return follows(follow)


def _rearranges(rearrange: Callable[[list[Any]], list[Any]], when: When) -> Plant:
    def edit(_: Any, response: Any) -> None:
        events = rearrange(list(response.events))
        del response.events[:]
        response.events.extend(events)

    return rewrites(edit, when)


def drops_events(which: Which, when: When = always) -> Plant:
    """Leave events out of streams. ListEvents still has them."""
    return _rearranges(lambda events: [event for event in events if not which(event)], when)


def doubles_events(which: Which, when: When = always) -> Plant:
    """Deliver events twice."""
    return _rearranges(lambda events: [each for event in events for each in [event] * (1 + which(event))], when)


def swaps_events(when: When = always) -> Plant:
    """Deliver the last two events of each response in the wrong order."""
    return _rearranges(lambda events: [*events[:-2], *reversed(events[-2:])], when)


def changes_events(edit: Callable[[Any], Any], which: Which = always) -> Plant:
    """Change events wherever they are told: in streams, in snapshots, and in ListEvents."""

    def change(_: Any, response: Any) -> None:
        parts = (response.events, response.snapshot.events if response.HasField("snapshot") else ())
        for event in (event for events in parts for event in events if which(event)):
            edit(event)

    def change_page(_: Any, response: Any) -> None:
        for event in filter(which, response.events):
            edit(event)

    in_streams, in_pages = rewrites(change), changes("ListEvents", change_page)
    return Plant(in_streams.methods | in_pages.methods, in_pages.take, in_streams.follow)


def changes_streamed_events(edit: Callable[[Any], Any], which: Which = always, when: When = always) -> Plant:
    """Change events in streams, and not where else they are told."""

    def change(_: Any, response: Any) -> None:
        for event in filter(which, response.events):
            edit(event)

    return rewrites(change, when)


def ends_otherwise(reason: str, when: When = always) -> Plant:
    """End streams with that reason, a SubscriptionEndReason without its prefix, where they end with another one."""

    def edit(_: Any, response: Any) -> None:
        if response.HasField("end"):
            response.end.reason = pb.SubscriptionEndReason.Value(f"SUBSCRIPTION_END_REASON_{reason}")

    return rewrites(edit, when)


def ends_silently(when: When = always) -> Plant:
    """End streams without `end`."""
    return rewrites(lambda _, response: response.ClearField("end"), when)


def ends_at_the_head(reason: str, when: When = always) -> Plant:
    """End streams at the head that `opened` told, with that reason, although they should go on."""

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        is_meant = when(exchange.request)
        head = 0
        async for response in exchange.follow():
            head = max(head, response.opened.head_sequence)
            is_over = is_meant and response.through_sequence >= head and _is_whole(exchange.request, response)
            if is_over:
                response.end.reason = pb.SubscriptionEndReason.Value(f"SUBSCRIPTION_END_REASON_{reason}")
            yield response
            if is_over:
                return

    return follows(follow)


def _is_whole(request: Any, response: Any) -> bool:
    return not request.HasField("snapshot") or response.snapshot.last


def never_ends(when: When = always) -> Plant:
    """Go on although a stream should end: leave out `end`, and say nothing more."""

    async def follow(exchange: Exchange) -> AsyncGenerator[Any, None]:
        is_meant = when(exchange.request)
        async for response in exchange.follow():
            is_over = is_meant and response.HasField("end")
            if is_over:
                response.ClearField("end")
            yield response
            if is_over:
                await asyncio.Event().wait()

    return follows(follow)
