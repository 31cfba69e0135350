"""The time of this machine, as `contracts.clock.Clock`."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Wall time in UTC, and a monotonic clock that does not stand still while the machine runs."""

    # The functions themselves: every event of the bus asks for the time, and a method around it costs as much again.
    time_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
