"""How often something that goes on is put on record: at once, then at growing distances. No I/O.

A record stays for ever and costs a sync, while what is refused costs its sender nothing. So a flood is on record at
once, after 1, 2, 4 … seconds more, and then once a minute; behind a quiet minute, the next is at once again.
Invariant: at most `MOST_PER_MINUTE` in any 60 s, whoever chooses the moments.
"""

from __future__ import annotations

FIRST_S, LAST_S = 1.0, 60.0
MOST_PER_MINUTE = 6
"""One at once, and behind 1, 2, 4, 8 and 16 seconds more."""


class Pace:
    """Of one kind of thing. Times are of a clock that never goes back."""

    __slots__ = ("_distance_s", "_last_s")

    def __init__(self) -> None:
        self._last_s, self._distance_s = float("-inf"), 0.0

    def due_s(self, now_s: float) -> float:
        """Seconds until the next record may be written; 0 now."""
        return max(0.0, self._last_s + self._distance_s - now_s)

    def wrote(self, now_s: float) -> None:
        """One was written now."""
        was_quiet = now_s - self._last_s >= self._distance_s + LAST_S
        self._distance_s = FIRST_S if was_quiet else min(LAST_S, self._distance_s * 2)
        self._last_s = now_s
