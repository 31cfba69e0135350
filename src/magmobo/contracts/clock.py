"""Time as a collaborator, so that tests can own it. Wall time is UTC; durations are seconds and monotonic."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where components get the time from."""

    def time_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Suspend the calling task for `duration_s` seconds."""
        ...
