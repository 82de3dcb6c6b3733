"""The log of a server that a test has run: what may be in it. Each line is JSON, and none tells of a defect."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# What the scripted engine says when it crashes because a script says so; a crash with other words is a defect.
SCRIPTED_CRASH = "the script says: crash"

Line = Mapping[str, Any]


def check_log(lines: Iterable[str], is_excused: Callable[[Line], bool]) -> None:
    """Available: check lines of the level error, unless something excuses them. Raises AssertionError.

    What a script tells the engine to do is always excused, and so is a last line that a kill has cut.
    """
    for line in lines:
        if not line.endswith("\n"):
            continue
        try:
            told: Line = json.loads(line)
        except ValueError:
            msg = f"Available: the server wrote what is no line of its log: {line!r}"
            raise AssertionError(msg) from None
        is_error = told["level"] in ("error", "critical")
        assert not is_error or _is_scripted(told) or is_excused(told), f"Available: the server logged {line}"


def exception_of(line: Line) -> tuple[str, str]:
    """Return the type and the words of the exception that a line tells of; empty, if it tells of none."""
    exceptions: Sequence[Line] = line.get("exception") or [{}]
    return str(exceptions[0].get("exc_type", "")), str(exceptions[0].get("exc_value", ""))


def _is_scripted(told: Line) -> bool:
    return told["event"] == "engine crashed" and exception_of(told) == ("RuntimeError", SCRIPTED_CRASH)
