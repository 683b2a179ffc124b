"""The real clock."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """This machine's clocks (`interfaces.Clock`)."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> int:
        """Nanoseconds since 1970, as this machine believes."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(seconds)
