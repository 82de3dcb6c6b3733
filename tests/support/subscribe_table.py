"""The table start x until x inference of SubscribeEvents, as inference_service.proto says it.

Every row is a promise: `parse_table` hands them to the test that checks it is complete, and to those that run each one.
"""

import re
from dataclasses import dataclass

from support.proto_docs import load_contract

COLUMNS = ("start", "until", "inference", "first event", "end")
INFERENCES = ("none", "unfinished", "finished")
FIRST_EVENTS = ("earliest", "n+1", "head+1", "snapshot", "-")

_ROW = re.compile(r"^ +\|(.+)\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    `start` is an arm of SubscribeEventsRequest.start and `until` a SubscribeUntil without its prefix. `inference` says
    what is named: `none`, or one that is `unfinished` or `finished`. `first_event` is one of FIRST_EVENTS. `end` is
    `never`, `INVALID_FIELD`, or a SubscriptionEndReason without its prefix.
    """

    start: str
    until: str
    inference: str
    first_event: str
    end: str

    @property
    def case(self) -> tuple[str, str, str]:
        """What the row is about."""
        return self.start, self.until, self.inference

    def __str__(self) -> str:
        return "-".join(self.case)


def subscribe_table() -> list[Row]:
    """Return the table of our contract."""
    return parse_table(load_contract().element("turnwire.v1.InferenceService.SubscribeEvents").comment)


def parse_table(comment: str) -> list[Row]:
    """Return the rows of the table in a comment. Raises ValueError for one that is not such a table."""
    lines = [tuple(cell.strip() for cell in match[1].split("|")) for match in _ROW.finditer(comment)]
    if len(lines) < 2 or lines[0] != COLUMNS or set("".join(lines[1])) != {"-"}:
        msg = f"no table with the columns {COLUMNS}"
        raise ValueError(msg)
    if crooked := [line for line in lines if len(line) != len(COLUMNS)]:
        msg = f"rows with other columns: {crooked}"
        raise ValueError(msg)
    return [Row(*line) for line in lines[2:]]
