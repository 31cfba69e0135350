"""The time of this machine, as `contracts.clock.Clock`."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall time in UTC, and a monotonic clock that does not stand still while the machine runs."""

    def time_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
