"""Streams that begin, go on, or end otherwise than SubscribeEvents says."""

import copy
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from turnwire.v1 import inference_service_pb2 as pb
from violations.exchange import Exchange, Plant
from violations.kinds import When, changes, delays, refuses, sends
from violations.streams import drops_events, ends_at_the_head, ends_otherwise, follows, is_a, never_ends, rewrites
from violations.violation import violation

METHOD = "SubscribeEvents"
RPC = "InferenceService.SubscribeEvents"
REQUEST = "SubscribeEventsRequest"
RESPONSE = "SubscribeEventsResponse"

FOLLOW, INFERENCE_END, CAUGHT_UP = (
    pb.SUBSCRIBE_UNTIL_FOLLOW,
    pb.SUBSCRIBE_UNTIL_INFERENCE_END,
    pb.SUBSCRIBE_UNTIL_CAUGHT_UP,
)


def starts(kind: str) -> When:
    """Whether a stream begins so."""
    return lambda request: request.WhichOneof("start") == kind


def lasts(*until: int) -> When:
    """Whether a stream ends so."""
    return lambda request: request.until in until


def begins(start: str, edit: Callable[[Any], Any]) -> Plant:
    """Return a plant that begins the streams with that start otherwise."""
    return sends(METHOD, edit, when=starts(start))


def from_the_beginning(request: Any) -> None:
    """Begin with the first event."""
    request.from_beginning.SetInParent()


def live(request: Any) -> None:
    """Begin with the next event."""
    request.live.SetInParent()


def one_before(request: Any) -> None:
    """Begin with an event that the client has."""
    request.after_sequence = max(0, request.after_sequence - 1)


def one_beyond(request: Any) -> None:
    """Leave out the first event."""
    request.after_sequence += 1


def resumes_beyond(request: Any) -> bool:
    """Whether a stream is resumed in the middle of a log."""
    return bool(request.after_sequence > 0 and request.until != INFERENCE_END)


async def later_than_told(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """End streams at an event before the head."""
    is_meant = exchange.request.until == CAUGHT_UP
    async for response in exchange.follow():
        if is_meant and len(response.events) > 1:
            del response.events[1:]
            response.through_sequence = response.events[-1].sequence
            response.end.reason = pb.SUBSCRIPTION_END_REASON_CAUGHT_UP
            yield response
            return
        yield response


def without_others(_: Any, response: Any) -> None:
    """Let through what is about the inference of the first event only."""
    if response.events:
        first = response.events[0].inference_id
        kept = [event for event in response.events if event.inference_id == first]
        del response.events[:]
        response.events.extend(kept)


async def with_pulse(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Send a heartbeat right after the first response."""
    is_first = True
    async for response in exchange.follow():
        yield response
        is_plain = is_first and not response.HasField("end") and not exchange.request.HasField("snapshot")
        if is_plain:
            at = response.through_sequence
            yield pb.SubscribeEventsResponse(after_sequence=at, through_sequence=at)
        is_first = False


async def always_opened(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Say in every response what was opened."""
    opened = pb.SubscriptionOpened()
    async for response in exchange.follow():
        if response.HasField("opened"):
            opened = copy.deepcopy(response.opened)
        response.opened.CopyFrom(opened)
        yield response


async def ends_early(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Say why the stream ends before it does."""
    async for response in exchange.follow():
        response.end.reason = response.end.reason or pb.SUBSCRIPTION_END_REASON_CAUGHT_UP
        yield response


def with_snapshot(_: Any, response: Any) -> None:
    """Have a part of a snapshot that nobody asked for."""
    response.snapshot.last = False
    response.snapshot.SetInParent()


async def begins_nowhere(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Say of the second response with events that it begins one later."""
    count = 0
    async for response in exchange.follow():
        count += 1
        response.after_sequence += count > 1 and bool(response.events)
        yield response


def opens_with(field: str, edit: Callable[[Any], Any], when: When = lambda _: True) -> Plant:
    """Return a plant that tells something else of what was opened."""

    def change(_: Any, response: Any) -> Iterable[Any] | None:
        if response.HasField("opened"):
            setattr(response.opened, field, edit(getattr(response.opened, field)))
        return None

    return rewrites(change, when)


STARTS = [
    violation(
        "a-filter-lets-everything-through",
        [
            (f"{REQUEST}.inference_id", "Only events of this inference."),
            (RPC, "Only events of that inference are delivered"),
        ],
        sends(METHOD, lambda request: request.ClearField("inference_id"), lasts(0, FOLLOW)),
    ),
    violation(
        "without-a-filter-one-inference-comes",
        (f"{REQUEST}.inference_id", "Empty: all events of the session."),
        rewrites(without_others, lambda request: not request.inference_id),
    ),
    violation(
        "from-beginning-is-live",
        [
            (f"{REQUEST}.from_beginning", "With the first event"),
            (RPC, "`earliest` is the first event that is retained"),
            (RPC, "Where a stream begins and how it ends"),
        ],
        begins("from_beginning", live),
    ),
    violation(
        "after-a-sequence-is-at-it",
        (f"{REQUEST}.after_sequence", "With the event after this one."),
        begins("after_sequence", one_before),
    ),
    violation(
        "after-0-is-after-1",
        (f"{REQUEST}.after_sequence", "0 means with the first one."),
        sends(METHOD, one_beyond, lambda request: request.HasField("after_sequence") and not request.after_sequence),
    ),
    violation(
        "live-is-from-the-beginning",
        [(f"{REQUEST}.live", "With the next event."), (RPC, "Where a stream begins and how it ends")],
        begins("live", from_the_beginning),
    ),
    violation(
        "a-snapshot-is-live",
        [
            (f"{REQUEST}.snapshot", "With a snapshot of everything so far"),
            ("FromSnapshot", "Begin with a snapshot."),
        ],
        begins("snapshot", live),
    ),
    violation(
        "no-start-is-live",
        (f"{REQUEST}.start", "Exactly one is set."),
        sends(METHOD, live, lambda request: not request.WhichOneof("start")),
    ),
    violation(
        "resumed-one-later",
        [
            (RPC, "So a client can check that nothing is missing"),
            (f"{RESPONSE}.through_sequence", "It is the cursor to resume from"),
        ],
        sends(METHOD, one_beyond, resumes_beyond),
    ),
    violation(
        "an-inference-begins-one-later",
        (RPC, "When an inference is named, the first event"),
        drops_events(is_a("inference_queued"), lambda request: bool(request.inference_id)),
    ),
    violation(
        "the-log-has-to-be-named",
        (f"{REQUEST}.log", "Empty: not checked."),
        refuses(METHOD, "LOG_REPLACED", lambda request: request.after_sequence > 0 and not request.log),
    ),
    violation(
        "the-log-does-not-matter",
        ("Session.log", "A client SHOULD send it along"),
        sends((METHOD, "ListEvents"), lambda request: request.ClearField("log")),
    ),
]

ENDS = [
    violation(
        "until-nothing-is-until-caught-up",
        [
            (f"{REQUEST}.until", "UNSPECIFIED means FOLLOW."),
            ("SubscribeUntil.SUBSCRIBE_UNTIL_UNSPECIFIED", "FOLLOW."),
        ],
        sends(METHOD, lambda request: setattr(request, "until", CAUGHT_UP), lasts(0)),
    ),
    violation(
        "the-end-of-nobody-is-waited-for",
        (f"{REQUEST}.until", "INFERENCE_END needs inference_id."),
        sends(
            METHOD,
            lambda request: setattr(request, "until", FOLLOW),
            lambda request: request.until == INFERENCE_END and not request.inference_id,
        ),
    ),
    violation(
        "followers-are-sent-away",
        ("SubscribeUntil.SUBSCRIBE_UNTIL_FOLLOW", "Not by itself."),
        ends_at_the_head("CAUGHT_UP", lasts(FOLLOW)),
    ),
    violation(
        "no-end-after-the-terminal-event",
        ("SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END", "After the terminal event"),
        never_ends(lasts(INFERENCE_END)),
    ),
    violation(
        "no-end-at-the-head",
        ("SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP", "At the head at the time"),
        never_ends(lasts(CAUGHT_UP)),
    ),
    violation(
        "the-head-is-reached-early",
        (RPC, "CAUGHT_UP ends it at the head"),
        follows(later_than_told),
    ),
    violation(
        "the-end-of-an-inference-is-called-caught-up",
        ("SubscriptionEndReason.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED", "The inference that is named"),
        ends_otherwise("CAUGHT_UP", lasts(INFERENCE_END)),
    ),
    violation(
        "ends-without-their-terminal-event",
        ("SubscriptionEndReason.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED", "The inference that is named"),
        drops_events(is_a("inference_finished"), lasts(INFERENCE_END)),
    ),
    violation(
        "the-head-is-called-draining",
        ("SubscriptionEndReason.SUBSCRIPTION_END_REASON_CAUGHT_UP", "The head at the time"),
        ends_otherwise("DRAINING", lasts(CAUGHT_UP)),
    ),
    violation(
        "past-ends-are-told-late",
        (RPC, "An after_sequence at or beyond the terminal event"),
        delays(METHOD, 5, lambda request: request.until == INFERENCE_END and request.after_sequence > 0),
    ),
]

RESPONSES = [
    violation(
        "events-are-not-in-order",
        (f"{RESPONSE}.events", "The events in (after_sequence, through_sequence]"),
        rewrites(lambda _, response: response.events.reverse()),
    ),
    violation(
        "heartbeats-come-at-once",
        [
            (RPC, "A response without events is a heartbeat:"),
            (f"{RESPONSE}.events", "None: a heartbeat, or the filter"),
        ],
        follows(with_pulse),
    ),
    violation(
        "responses-begin-nowhere",
        (f"{RESPONSE}.after_sequence", "The through_sequence of the response before"),
        follows(begins_nowhere),
    ),
    violation(
        "responses-do-not-reach-their-end",
        (f"{RESPONSE}.through_sequence", "Up to where this response reaches."),
        rewrites(lambda _, response: setattr(response, "through_sequence", response.after_sequence)),
    ),
    violation(
        "opened-again-and-again",
        (f"{RESPONSE}.opened", "Only in the first response"),
        follows(always_opened),
    ),
    violation(
        "a-snapshot-for-everyone",
        (f"{RESPONSE}.snapshot", "A part of the snapshot, only after"),
        rewrites(with_snapshot, lambda request: not request.HasField("snapshot")),
    ),
    violation("every-response-is-the-last", (f"{RESPONSE}.end", "Only in the last response"), follows(ends_early)),
    violation(
        "opened-on-another-log",
        [
            ("SubscriptionOpened.log", "The token of the log."),
            ("turnwire/v1/event.proto", "Every session has one log."),
        ],
        opens_with("log", lambda _: "another"),
    ),
    violation(
        "cursors-through-a-filter-are-of-another-log",
        ("SubscriptionOpened.log", "It belongs to every cursor of this stream."),
        opens_with("log", lambda _: "another", lambda request: bool(request.inference_id)),
    ),
    violation(
        "the-earliest-is-the-one-before",
        ("SubscriptionOpened.earliest_sequence", "The sequence of the first event"),
        opens_with("earliest_sequence", lambda earliest: earliest - 1),
    ),
    violation(
        "the-head-is-the-next",
        ("SubscriptionOpened.head_sequence", "The sequence of the newest event"),
        opens_with("head_sequence", lambda head: head + 1),
    ),
    violation(
        "a-page-is-no-cursor",
        [
            ("InferenceService.ListEvents", "The cursor is the same as"),
            ("ListEventsResponse.through_sequence", "It is also a cursor"),
        ],
        changes("ListEvents", lambda _, response: setattr(response, "through_sequence", 2**63)),
    ),
]

VIOLATIONS = [*STARTS, *ENDS, *RESPONSES]
