"""How often an extension may still use a capability: a token bucket and the budget of the day. No I/O.

A bucket holds what one minute allows and fills evenly. It belongs to the extension and not to its process: neither a
crash nor another version fills it. Buckets are this node's and begin full with it. Budgets begin anew at midnight UTC
and count what all nodes let through, as far as this one heard of it (`budgets`).
"""

from __future__ import annotations

from magmobo.extensions.gate.hours import DAY_S


class Allowance:
    """Of one extension and capability. `used` counts calls that were let through since the node started, `refused`
    those that the rate or the budget kept back, the last one at `refused_s`; `has_budget`: other nodes are told of
    those that were let through.
    """

    __slots__ = (
        "_day", "_filled_s", "_in_day", "_tokens", "_unsaid", "has_budget", "refused", "refused_s", "used",
    )  # fmt: skip

    def __init__(self) -> None:
        self.used, self.has_budget = 0, False
        self.refused, self.refused_s = 0, float("-inf")
        self._tokens, self._filled_s = -1.0, 0.0
        self._day, self._in_day, self._unsaid = -1, 0, 0

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
            self._day, self._in_day, self._unsaid = day, 0, 0
        self._tokens -= 1
        self._in_day += 1
        self._unsaid += 1
        self.used += 1

    def refuse(self, monotonic_s: float) -> None:
        """Count a call that was kept back."""
        self.refused += 1
        self.refused_s = monotonic_s

    def spent(self, day: int) -> int:
        """Calls of this day (since 1970 UTC) on all nodes, as far as this one heard of it."""
        return self._in_day if day == self._day else 0

    def unsaid(self, day: int) -> int:
        """Calls of this day (since 1970 UTC) that other nodes were not told of."""
        return self._unsaid if day == self._day else 0

    def said(self, day: int, calls: int) -> None:
        """So many of them were told."""
        if day == self._day:
            self._unsaid -= calls

    def heard(self, day: int, calls: int) -> None:
        """All nodes together told of so many on this day, which is today."""
        if day != self._day:
            self._day, self._unsaid = day, 0
        self._in_day = calls + self._unsaid
