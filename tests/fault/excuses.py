"""What a server may log as an error: what its disk did to it, what a script told its engine, and who left it.

All else that it logs at this level is a defect, although no client has been told of it.
"""

from support.server_log import Line, exception_of

# What is said while the store takes nothing, and of which errors.
STORE_EVENTS = frozenset(
    {
        "rpc failed",
        "failed; it will be tried again",
        "attempt given up: the store did not answer; it will be recovered",
        "the log of a lost attempt cannot be read; what was read of it is kept",
    }
)
STORE_ERRORS = frozenset({"OperationalError", "DatabaseError", "StoreUnavailableError", "TimeoutError"})

# gRPC itself says this when a client leaves while it is sent something.
GONE = "ExecuteBatchError raised in core by servicer method"

# Scripts tell the engine to ignore that it is cancelled. That the inference ends all the same, CancelEnds checks.
ABANDONED = "engine did not stop; abandoned"


def is_excused(line: Line, *, is_store_troubled: bool) -> bool:
    """Whether a line of the level error is no defect. `is_store_troubled`: the server had a disk that failed."""
    event = str(line["event"])
    if event == ABANDONED or event.startswith(GONE):
        return True
    is_of_store = event == "the store takes no writes" or (
        event in STORE_EVENTS and exception_of(line)[0] in STORE_ERRORS
    )
    return is_store_troubled and is_of_store
