"""Starts the real server, with a wall clock that can be made to jump, and with a bug planted into it if that is asked.

    python -m fault.launcher --clock FILE [--plant NAME] -- ARGUMENTS OF turnwire_server

The file has the seconds that the wall clock is ahead of the machine's. The monotonic clock is the machine's own: it
does not jump.
"""

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fault.plants import PLANTS
from turnwire_server import __main__ as server
from turnwire_server.runtime.clock import SystemClock


def shift_clock(file: Path) -> None:
    """Have every clock of this process read how far it is ahead from a file."""

    def now(_: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=read_shift(file))

    setattr(SystemClock, "now", now)  # noqa: B010 - a method is replaced, which only this way of writing admits


def read_shift(file: Path) -> float:
    """Return the seconds that a file says, 0 as long as there is none."""
    try:
        return float(file.read_text("utf-8"))
    except FileNotFoundError:
        return 0.0


def write_shift(file: Path, seconds: float) -> None:
    """Make the clocks jump that read this file. They see the old number or the new one, and nothing in between."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds), "utf-8")
    new.replace(file)


def main() -> int:
    """Run the server until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m fault.launcher")
    parser.add_argument("--clock", type=Path, required=True)
    parser.add_argument("--plant", choices=PLANTS, default="")
    own, rest = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    options = parser.parse_args(own)
    shift_clock(options.clock)
    if options.plant:
        PLANTS[options.plant].apply()
    sys.argv[1:] = rest
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
