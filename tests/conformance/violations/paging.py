"""Listings that have other pages, other orders, and other elements than they should."""

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from turnwire.v1 import inference_pb2
from violations.exchange import Exchange
from violations.kinds import accepts, changes, refuses, sends, takes
from violations.violation import Violation, violation

EVENTS = "ListEvents"
INFERENCES = "ListInferences"
SESSIONS = "ListSessions"

# Each listing, how many elements a page has at most, and what the contract says of that.
LISTINGS = (
    ("ListInferences", 1000, "At most this many.", "0 means 50;"),
    ("ListEvents", 10_000, "At most this many events.", "0 means 1,000;"),
    ("ListSessions", 1000, "At most this many.", "0 means 50;"),
    ("ListTurns", 1000, "At most this many turns.", "0 means 50;"),
    ("GetTurn", 1000, "At most this many blocks.", "0 means 1,000;"),
    ("ListPauses", 1000, "At most this many.", "0 means 50;"),
    ("ListTurnSnapshots", 1000, "At most this many.", "0 means 50;"),
    ("ListEngines", 1000, "At most this many.", "0 means 50;"),
    ("ListProfiles", 1000, "At most this many.", "0 means 50;"),
)

# Those that ask for something, which has to stay the same; violations.listings has the others.
NAMED = ("ListInferences", "ListEvents")

# Those of which there may be only one: they are not cut into pages.
SINGLE = ("ListEngines", "ListProfiles")


def of_pages() -> Iterator[Violation]:
    """Yield the violations that every listing may have."""
    for method, most, size, edges in LISTINGS:
        request, response = f"{method}Request", f"{method}Response"
        yield violation(
            f"{method}-takes-any-size",
            (f"{request}.page_size", edges),
            sends(method, _to(most), _is_beyond(most)),
        )
        if method in NAMED:
            yield violation(
                f"{method}-takes-tokens-of-others",
                (f"{request}.page_token", "The other fields, page_size aside, MUST be the same"),
                accepts(method, "INVALID_PAGE_TOKEN"),
            )
        if method in SINGLE:
            yield violation(
                f"{method}-always-has-a-next-page",
                (f"{response}.next_page_token", "Empty when there is none."),
                changes(method, _has_more),
            )
            continue
        yield violation(
            f"{method}-pages-are-as-large-as-they-like", (f"{request}.page_size", size), sends(method, _to(most))
        )
        yield violation(
            f"{method}-has-one-page",
            (f"{response}.next_page_token", "To be sent for the next page"),
            changes(method, lambda _, response: response.ClearField("next_page_token")),
        )


def _to(size: int) -> Callable[[Any], None]:
    def edit(request: Any) -> None:
        request.page_size = size

    return edit


def _is_beyond(most: int) -> Callable[[Any], bool]:
    return lambda request: request.page_size > most


def _has_more(_: Any, response: Any) -> None:
    response.next_page_token = response.next_page_token or "more"


def without_the_first(_: Any, response: Any) -> None:
    """Leave out the first event of a page."""
    if response.events:
        del response.events[0]


def reverses(field: str) -> Callable[[Any, Any], None]:
    """Return an edit that turns a listing round."""

    def edit(_: Any, response: Any) -> None:
        getattr(response, field).reverse()

    return edit


def empties(field: str) -> Callable[[Any, Any], None]:
    """Return an edit that leaves out what is listed."""

    def edit(_: Any, response: Any) -> None:
        response.ClearField(field)
        response.ClearField("next_page_token")

    return edit


def tells(field: str, edit: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    """Return an edit of one field."""

    def change(_: Any, response: Any) -> None:
        setattr(response, field, edit(getattr(response, field)))

    return change


async def all_at_once(exchange: Exchange) -> Any:
    """Put all events into one response, however large it gets."""
    whole = await exchange.forward()
    request = exchange.request
    while whole.next_page_token and request.page_size != 1:
        page = await exchange.ask(
            EVENTS,
            session_id=request.session_id,
            inference_id=request.inference_id,
            after_sequence=request.after_sequence,
            log=request.log,
            page_size=request.page_size,
            page_token=whole.next_page_token,
        )
        whole.events.extend(page.events)
        whole.through_sequence, whole.next_page_token = page.through_sequence, page.next_page_token
    return whole


async def no_more_than_fits(exchange: Exchange) -> AsyncGenerator[Any, None]:
    """Put all events of a stream into one response, however large it gets."""
    whole: Any = None
    async for response in exchange.follow():
        if whole is None:
            whole = response
        else:
            whole.events.extend(response.events)
            whole.snapshot.events.extend(response.snapshot.events)
            whole.snapshot.last = response.snapshot.last
            whole.end.CopyFrom(response.end)
            whole.through_sequence = response.through_sequence
        if response.HasField("end"):
            yield whole
            return


def without_others(request: Any, response: Any) -> None:
    """Let through what is about the inference of the first event only."""
    if not request.inference_id and response.events:
        first = response.events[0].inference_id
        kept = [event for event in response.events if event.inference_id == first]
        del response.events[:]
        response.events.extend(kept)


OF_INFERENCES = [
    violation(
        "states-do-not-matter",
        (f"{INFERENCES}Request.states", "Only those in one of these states."),
        sends(INFERENCES, lambda request: request.ClearField("states")),
    ),
    violation(
        "no-states-are-those-that-succeeded",
        (f"{INFERENCES}Request.states", "None: all."),
        sends(
            INFERENCES,
            lambda request: request.states.append(inference_pb2.INFERENCE_STATE_SUCCEEDED),
            lambda request: not request.states,
        ),
    ),
    violation(
        "no-state-is-refused",
        (f"{INFERENCES}Request.states", "UNSPECIFIED is not looked at."),
        refuses(INFERENCES, "INVALID_FIELD", lambda request: 0 in request.states),
    ),
    violation(
        "pages-begin-anew",
        (f"{INFERENCES}Request.page_token", "The next_page_token of the response before"),
        sends(INFERENCES, lambda request: request.ClearField("page_token")),
    ),
    violation(
        "pages-keep-their-size",
        (f"{INFERENCES}Request.page_token", "The other fields, page_size aside"),
        refuses(
            INFERENCES, "INVALID_PAGE_TOKEN", lambda request: bool(request.page_token) and request.page_size == 1000
        ),
    ),
    violation(
        "the-oldest-inference-comes-first",
        (f"{INFERENCES}Response.inferences", "The inferences, the newest first."),
        changes(INFERENCES, reverses("inferences")),
    ),
]

OF_SESSIONS = [
    violation(
        "labels-do-not-matter",
        (f"{SESSIONS}Request.labels", "Only sessions that have all of these labels"),
        sends(SESSIONS, lambda request: request.ClearField("labels")),
    ),
    violation(
        "without-labels-there-is-none",
        (f"{SESSIONS}Request.labels", "Empty: all sessions."),
        changes(SESSIONS, empties("sessions"), lambda request: not request.labels),
    ),
    violation(
        "the-oldest-session-comes-first",
        (f"{SESSIONS}Response.sessions", "The sessions, the newest first."),
        sends(SESSIONS, _to(1000)),
        changes(SESSIONS, reverses("sessions")),
    ),
    violation(
        "pauses-of-everyone",
        ("ListPausesRequest.session_id", "Only those of this session."),
        sends("ListPauses", lambda request: request.ClearField("session_id")),
    ),
    violation(
        "pauses-of-nobody",
        ("ListPausesRequest.session_id", "Empty: those of all sessions."),
        changes("ListPauses", empties("pauses"), lambda request: not request.session_id),
    ),
]

OF_EVENTS = [
    violation(
        "events-of-all-inferences-are-listed",
        (f"{EVENTS}Request.inference_id", "Only events of this inference."),
        sends(EVENTS, lambda request: request.ClearField("inference_id")),
    ),
    violation(
        "events-of-one-inference-are-listed",
        (f"{EVENTS}Request.inference_id", "Empty: all events of the session."),
        changes(EVENTS, without_others),
    ),
    violation(
        "events-are-listed-from-the-one-before",
        (f"{EVENTS}Request.after_sequence", "Only events after this one."),
        sends(
            EVENTS,
            lambda request: setattr(request, "after_sequence", request.after_sequence - 1),
            lambda request: request.after_sequence > 0 and not request.page_token,
        ),
    ),
    violation(
        "the-first-event-is-not-listed",
        (f"{EVENTS}Request.after_sequence", "0: from the first one"),
        changes(EVENTS, without_the_first),
    ),
    violation(
        "the-log-of-a-list-has-to-be-named",
        (f"{EVENTS}Request.log", "Empty: not checked."),
        refuses(EVENTS, "LOG_REPLACED", lambda request: request.after_sequence > 0 and not request.log),
    ),
    violation(
        "pages-are-as-large-as-the-log",
        [
            (f"{EVENTS}Request.page_size", "A response MAY have fewer, for its size."),
            ("InferenceService", "Sizes: a request is at most 4 MiB"),
        ],
        takes(EVENTS, all_at_once),
    ),
    violation(
        "responses-are-as-large-as-the-log",
        ("InferenceService", "Sizes: a request is at most 4 MiB"),
        takes("SubscribeEvents", lambda exchange: exchange.forward_raw(), no_more_than_fits),
    ),
    violation(
        "the-newest-event-is-listed-first",
        (f"{EVENTS}Response.events", "The events in (after_sequence, through_sequence]"),
        changes(EVENTS, reverses("events")),
    ),
    violation(
        "pages-of-events-begin-elsewhere",
        (f"{EVENTS}Response.after_sequence", "Where this page begins."),
        changes(EVENTS, tells("after_sequence", lambda _: 0)),
    ),
    violation(
        "pages-of-events-end-elsewhere",
        (f"{EVENTS}Response.through_sequence", "Up to where this page reaches."),
        changes(EVENTS, tells("through_sequence", lambda sequence: sequence + 1)),
    ),
    violation(
        "there-are-always-more-events",
        (f"{EVENTS}Response.next_page_token", "Empty when the head is reached."),
        changes(EVENTS, _has_more),
    ),
    violation(
        "events-of-another-log-are-listed",
        (f"{EVENTS}Response.log", "The token of the log."),
        changes(EVENTS, tells("log", lambda _: "another")),
    ),
    violation(
        "the-head-of-a-list-is-where-it-ends",
        (f"{EVENTS}Response.head_sequence", "The sequence of the newest event."),
        changes(EVENTS, lambda _, response: setattr(response, "head_sequence", response.through_sequence)),
    ),
    violation(
        "the-earliest-event-of-a-list-is-0",
        (f"{EVENTS}Response.earliest_sequence", "The sequence of the first event"),
        changes(EVENTS, tells("earliest_sequence", lambda _: 0)),
    ),
]

# What states the order of a listing: the method, its elements, the element of the contract, and how it begins.
ORDERED = (
    ("ListPauses", "pauses", "DebugService.ListPauses", "Lists the pauses that wait for release, that of the oldest"),
    ("ListTurnSnapshots", "snapshots", "DebugService.ListTurnSnapshots", "Lists the snapshots of a turn"),
    (
        "ListInferences",
        "inferences",
        "InferenceService.ListInferences",
        "Lists the inferences of a session, the newest",
    ),
    ("ListSessions", "sessions", "SessionService.ListSessions", "Lists sessions, the newest first."),
    ("ListTurns", "turns", "ListTurnsRequest.newest_first", "Not set: the oldest does."),
)


def of_orders() -> Iterator[Violation]:
    """Yield, of each listing that has an order, pages that are turned round."""
    for method, elements, element, says in ORDERED:
        yield violation(f"{method}-is-turned-round", (element, says), changes(method, reverses(elements)))


VIOLATIONS = [*of_pages(), *of_orders(), *OF_INFERENCES, *OF_SESSIONS, *OF_EVENTS]
