"""How often an extension may still use a capability: a token bucket and the budget of the day. No I/O.

A bucket holds what one minute allows and fills evenly. It belongs to the extension and not to its process: neither a
crash nor another version fills it. Budgets count on this node and begin anew with it, and at midnight UTC.
"""

from __future__ import annotations

from magmobo.extensions.gate.hours import DAY_S


class Allowance:
    """Of one extension and capability. `used` counts calls that were let through since the node started."""

    __slots__ = ("_day", "_filled_s", "_in_day", "_tokens", "used")

    def __init__(self) -> None:
        self.used = 0
        self._tokens, self._filled_s = -1.0, 0.0
        self._day, self._in_day = -1, 0

    def retry_s(self, rate_per_minute: int, monotonic_s: float) -> float:
        """Seconds until a call may be made by the rate; 0 now."""
        if self._tokens < 0:
            self._tokens = float(rate_per_minute)
        else:
            fresh = max(0.0, monotonic_s - self._filled_s) * rate_per_minute / 60
            self._tokens = min(float(rate_per_minute), self._tokens + fresh)
        self._filled_s = monotonic_s
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) * 60 / rate_per_minute

    def is_spent(self, budget_per_day: int, time_s: float) -> bool:
        """Whether today's calls have reached the budget."""
        return int(time_s // DAY_S) == self._day and self._in_day >= budget_per_day

    def take(self, time_s: float) -> None:
        """Count a call; the caller asked `retry_s` before."""
        day = int(time_s // DAY_S)
        if day != self._day:
            self._day, self._in_day = day, 0
        self._tokens -= 1
        self._in_day += 1
        self.used += 1
