"""How long to wait before a worker that ended is started again. No I/O."""

from __future__ import annotations

DELAYS_S = (0.0, 0.1, 0.5, 2.0, 10.0, 30.0)
FORGIVEN_S = 60.0
"""A life of this length makes the next end a first one again."""


class Backoff:
    """Of one worker."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = 0

    def next_s(self, lived_s: float) -> float:
        """The delay after a life of `lived_s`: none after the first end in a while."""
        if lived_s >= FORGIVEN_S:
            self._ends = 0
        delay_s = DELAYS_S[min(self._ends, len(DELAYS_S) - 1)]
        self._ends += 1
        return delay_s
