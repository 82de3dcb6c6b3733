"""Violations of what the contract says of the pages of turns; those that every listing can have are in listings."""

from typing import Any

from turnwire.v1.turn_pb2 import TURN_VIEW_FULL
from violations.edits import clears
from violations.kinds import changes
from violations.violation import violation


def nothing_but_tokens(_: Any, response: Any) -> None:
    """Have no block in a page that is not the last one."""
    if response.next_page_token:
        del response.turn.blocks[:]


def all_or_nothing(request: Any, response: Any) -> None:
    """Show no block of a turn that does not fit."""
    for turn in response.turns:
        if request.view == TURN_VIEW_FULL and len(turn.blocks) < turn.block_count:
            del turn.blocks[:]


VIOLATIONS = [
    violation(
        "pages-of-blocks-are-empty",
        ("SessionService.GetTurn", "A response aims at 1 MiB and has at least one block"),
        changes("GetTurn", nothing_but_tokens),
    ),
    violation(
        "large-turns-are-listed-without-blocks",
        ("SessionService.ListTurns", "In the views DELTA and FULL the size of a response is bounded"),
        changes("ListTurns", all_or_nothing),
    ),
    violation(
        "turns-are-not-waited-for",
        ("WaitResponse.turn", "The turn, if one was asked for and it is CLOSED"),
        changes("Wait", clears("turn")),
    ),
    violation(
        "turns-that-are-waited-for-end-with-a-page",
        ("WaitResponse.turn_page_token", "To be sent to GetTurn"),
        changes("Wait", clears("turn_page_token")),
    ),
]
