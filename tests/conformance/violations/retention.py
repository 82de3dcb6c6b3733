"""Logs whose beginning was removed, told as if other events were gone."""

from violations.kinds import changes
from violations.paging import tells
from violations.subscribing import opens_with
from violations.violation import violation

LIST, OPENED = "ListEventsResponse.earliest_sequence", "SubscriptionOpened.earliest_sequence"
NONE_LEFT, UNFINISHED = (
    "It is one beyond the head when none is left.",
    "Retention removes no event of an inference that",
)

VIOLATIONS = [
    violation(
        "a-list-of-nothing-begins-beyond-what-comes-next",
        (LIST, NONE_LEFT),
        changes("ListEvents", tells("earliest_sequence", lambda earliest: earliest + 1)),
    ),
    violation(
        "a-list-begins-behind-what-has-not-ended",
        (LIST, UNFINISHED),
        changes("ListEvents", tells("earliest_sequence", lambda earliest: earliest + 1)),
    ),
    violation(
        "a-stream-of-nothing-begins-beyond-what-comes-next",
        (OPENED, NONE_LEFT),
        opens_with("earliest_sequence", lambda earliest: earliest + 1),
    ),
    violation(
        "a-stream-begins-behind-what-has-not-ended",
        (OPENED, UNFINISHED),
        opens_with("earliest_sequence", lambda earliest: earliest + 1),
    ),
]
