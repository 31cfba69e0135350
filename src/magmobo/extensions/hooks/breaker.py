"""Leaves an extension alone that keeps failing at a hook point. No I/O.

`FAILURES` within `WINDOW_S` open it for `OPEN_S`; then one call is let through, and its success closes it. Calls that
one crash took with it are one failure.
"""

from __future__ import annotations

from collections import deque

FAILURES, WINDOW_S, OPEN_S = 5, 10.0, 30.0


class Breaker:
    """Of one extension at one hook point. Times are seconds of any clock that does not go back."""

    __slots__ = ("_failed_s", "_last_pid", "_probing_until_s", "is_closed", "open_until_s")

    def __init__(self) -> None:
        self.is_closed = True
        self.open_until_s = 0.0
        self._failed_s: deque[float] = deque(maxlen=FAILURES)
        self._last_pid = self._probing_until_s = 0.0

    def lets(self, now_s: float) -> bool:
        """Whether a call may be made; of an open one that has waited, one at a time to see how it is."""
        if self.is_closed:
            return True
        if now_s < self.open_until_s or now_s < self._probing_until_s:
            return False
        self._probing_until_s = now_s + OPEN_S
        return True

    def failed(self, now_s: float, *, pid: int = 0) -> bool:
        """A call failed; `pid` is that of the process whose end it was, else 0. Whether this opened the breaker."""
        if pid and pid == self._last_pid:
            return False
        self._last_pid = pid or self._last_pid
        self._failed_s.append(now_s)
        full = len(self._failed_s) == FAILURES and now_s - self._failed_s[0] <= WINDOW_S
        if self.is_closed and not full:
            return False
        self.is_closed = False
        self.open_until_s = now_s + OPEN_S
        self._probing_until_s = 0.0
        self._failed_s.clear()
        return True

    def succeeded(self) -> None:
        """A call was answered. Ask only when it is not closed: else there is nothing to say."""
        self.is_closed = True
        self._probing_until_s = 0.0
        self._failed_s.clear()
