"""Violations that every listing can have: pages that are too long, and tokens that lead nowhere."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from violations.edits import doubles, sends_no_more
from violations.exchange import Exchange
from violations.kinds import accepts, changes, sends, takes
from violations.violation import Violation, violation


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing: its method, the path to its elements, how the statements on its size begin, and the most of a page."""

    method: str
    elements: str
    at_most: str
    default: str
    most: int
    token: str = "To be sent for the next page."


FIFTY = "0 means 50; more than 1,000 is INVALID_FIELD."
THOUSAND = "0 means 1,000; more than"

LISTINGS = (
    Listing("ListEngines", "engines", "At most this many.", FIFTY, 1000),
    Listing("ListProfiles", "profiles", "At most this many.", FIFTY, 1000),
    Listing("ListSessions", "sessions", "At most this many.", FIFTY, 1000),
    Listing("ListTurns", "turns", "At most this many turns.", FIFTY, 1000),
    Listing("ListInferences", "inferences", "", FIFTY, 1000),
    Listing("ListEvents", "events", "", THOUSAND, 10000),
    Listing("ListPauses", "pauses", "At most this many.", FIFTY, 1000),
    Listing("ListTurnSnapshots", "snapshots", "At most this many.", FIFTY, 1000),
    Listing(
        "GetTurn", "turn.blocks", "At most this many blocks.", THOUSAND, 1000, "To be sent for the next page of blocks."
    ),
)

# Listings of which no case says that a token is bound to the rest of the request, or that it is empty at the end.
_BOUND = ("ListSessions", "ListTurns", "GetTurn")
_ENDING = ("ListEngines", "ListProfiles", "ListSessions", "ListTurns", "ListTurnSnapshots", "ListPauses", "GetTurn")


def of_listing(listing: Listing) -> Iterator[Violation]:
    """Yield the violations of a listing."""
    method = listing.method
    size, token = f"{method}Request.page_size", f"{method}Request.page_token"
    next_token = f"{method}Response.next_page_token"
    if listing.at_most:
        yield violation(
            f"{method}-gives-more-than-asked-for", (size, listing.at_most), changes(method, _doubled(listing))
        )
    yield violation(f"{method}-cuts-what-is-asked-for", (size, listing.default), sends(method, _at_most(listing.most)))
    if method in _ENDING:
        yield violation(f"{method}-has-a-lost-token", (next_token, listing.token), takes(method, _lose))
        yield violation(
            f"{method}-goes-on-for-ever", (next_token, "Empty when there is none."), changes(method, sends_no_more)
        )
    if method in _BOUND:
        yield violation(
            f"{method}-takes-foreign-tokens",
            (token, "The other fields, page_size aside, MUST be the same as then."),
            accepts(method, "INVALID_PAGE_TOKEN"),
        )


def _doubled(listing: Listing) -> Callable[[Any, Any], None]:
    double = doubles(listing.elements)

    def edit(request: Any, response: Any) -> None:
        if request.page_size == 1:
            double(response)

    return edit


def _at_most(most: int) -> Callable[[Any], None]:
    def edit(request: Any) -> None:
        request.page_size = min(request.page_size, most)

    return edit


async def _lose(exchange: Exchange) -> Any:
    """Keep the elements of the first page for a token that nobody takes."""
    request = copy.deepcopy(exchange.request)
    response = await exchange.forward()
    if not request.page_token:
        response.next_page_token = "lost"
    return response


VIOLATIONS = [each for listing in LISTINGS for each in of_listing(listing)]
