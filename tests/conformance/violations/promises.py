"""The seven promises of event.proto, broken."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

from violations.exchange import Exchange
from violations.kinds import changes
from violations.streams import (
    changes_events,
    changes_streamed_events,
    doubles_events,
    drops_events,
    follows,
    is_a,
    rewrites,
    swaps_events,
)
from violations.violation import violation

EVENTS = "turnwire/v1/event.proto"
SUBSCRIBE = "InferenceService.SubscribeEvents"


def behind(_: Any, response: Any) -> None:
    """List events without the newest one, as if it were not in the store yet."""
    is_newest = response.through_sequence == response.head_sequence
    if response.events and (is_newest or len(response.events) == 1):
        del response.events[-1]


def and_then(_: Any, response: Any) -> None:
    """Tell something more after an end."""
    if not any(event.HasField("inference_finished") for event in response.events):
        return
    more = response.events.add()
    more.CopyFrom(response.events[-2])
    more.sequence += 1
    more.log.message = "by the way"
    response.through_sequence = more.sequence


async def in_step(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Go on with the streams of a session only once each has taken what there was."""
    steps: defaultdict[str, asyncio.Lock] = exchange.state.setdefault("steps", defaultdict(asyncio.Lock))
    session_id = exchange.request.session_id
    async for response in exchange.follow_raw():
        async with steps[session_id]:
            yield response


def as_of_now(event: Any) -> None:
    """Say of an event that it was made just now."""
    event.create_time.GetCurrentTime()


VIOLATIONS = [
    violation("logs-are-behind", (EVENTS, "Durable: an event that any watcher"), changes("ListEvents", behind)),
    violation("events-change-places", (EVENTS, "Ordered: a watcher sees"), swaps_events()),
    violation("events-come-twice", (EVENTS, "Unique: no two events"), doubles_events(is_a("llm_delta", "turn_opened"))),
    violation("events-are-missing", (EVENTS, "Gapless: the sequences"), drops_events(is_a("llm_start", "turn_closed"))),
    violation("an-end-is-not-the-end", (EVENTS, "Terminal: every accepted inference"), rewrites(and_then)),
    violation(
        "there-is-no-end",
        (EVENTS, "Terminal: every accepted inference"),
        changes_events(lambda event: event.log.SetInParent(), is_a("inference_finished")),
    ),
    violation(
        "events-are-made-anew-for-each-watcher",
        [
            (EVENTS, "Resumable: a stream that starts with after_sequence"),
            ("Event", "An event MUST NOT change once it is in the log."),
            (SUBSCRIBE, "The seven promises of event.proto hold for every stream."),
        ],
        changes_streamed_events(as_of_now),
    ),
    violation("the-slowest-watcher-leads", (EVENTS, "Bounded: a slow watcher"), follows(in_step)),
    violation(
        "sessions-are-behind",
        ("Session.head_sequence", "The sequence of the newest event"),
        changes("GetSession", lambda _, response: setattr(response.session, "head_sequence", 1)),
    ),
]
