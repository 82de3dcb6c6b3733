"""The clock of the machine."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime


class SystemClock:
    """The Clock of a running server."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        """See Clock."""
        try:
            async with asyncio.timeout(seconds):
                await awaitable
        except TimeoutError:
            return False
        return True

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)
