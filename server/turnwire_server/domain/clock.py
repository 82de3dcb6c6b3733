"""The Clock port. Nothing in the core reads the time from anywhere else."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time. The wall clock stamps events and bounds inferences; no order and no ownership rests on it."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment; they never go back."""
        ...

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        """Await something for so many seconds; return whether it came. It is cancelled if it did not.

        It may be awaited up to a twentieth longer.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...
