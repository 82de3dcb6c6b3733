"""How long a runner waits where a case does not say so."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds. The defaults are those of conformance.proto; whoever expects a case to fail MAY wait less.

    `deadline` is that of an rpc; `again`, `finish` and `read` are those of steps. `settle` is how long inferences
    may take to end once they are cancelled; the contract says 2 s of each. `call` is for looking after a case.
    """

    deadline: float = 60.0
    again: float = 20.0
    finish: float = 20.0
    read: float = 20.0
    settle: float = 15.0
    call: float = 30.0
    case: float = 120.0
