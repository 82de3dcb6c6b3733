"""Requests that were once answered as none must be. Each is sent again with every run of the tests.

What is in them for what a server mints are stand-ins; `fuzz.search` prints a case when it finds one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """One request, as hexadecimal digits, and what was wrong with its answer."""

    rpc: str
    request: str
    why: str


CASES: tuple[Case, ...] = (
    Case(
        "StartInference",
        "12001a092a070a0568656c6c6f2a056167656e7432a70122a4017b22736372697074223a207b2263616c6c73223a205b7b22"
        "7374657073223a205b7b22746f6f6c43616c6c223a207b226e616d65223a20226e6f626f6479227d7d5d2c20227573616765"
        "223a207b226f7574707574546f6b656e73223a2031383434363734343037333730393535313631357d7d2c207b2273746570"
        "73223a205b5d2c20227573616765223a207b226f7574707574546f6b656e73223a20317d7d5d7d7d",
        "the usage of two engine calls is together more than its field can hold: the attempt crashed",
    ),
)
