"""Which denials are put on record: all of those that say something new, not each of a loop's.

A record costs a sync and stays for ever, a denied call costs its sender nothing. So one actor's denials of one command
are recorded `RECORDED` times in `WINDOW_S`; the next one that is recorded tells how many were not. Boundary: no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

RECORDED = 5
WINDOW_S = 60.0
MAX_PAIRS = 1_000


class _Pair:
    """Denials of one actor for one command since `began_s`."""

    __slots__ = ("began_s", "recorded", "unrecorded")

    def __init__(self, began_s: float) -> None:
        self.began_s, self.recorded, self.unrecorded = began_s, 0, 0


class Denials:
    """Counts for one node; of more than `MAX_PAIRS` pairs, those that were not heard of for longest are forgotten."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    def admit(self, actor: str, command: str) -> int | None:
        """How many of this pair were not recorded since the last one that was; None when this one is not either."""
        now_s = self._monotonic_s()
        pair = self._pairs.setdefault((actor, command), _Pair(now_s))
        self._pairs.move_to_end((actor, command))
        if len(self._pairs) > MAX_PAIRS:
            self._pairs.popitem(last=False)
        if now_s - pair.began_s >= WINDOW_S:
            pair.began_s, pair.recorded = now_s, 0
        if pair.recorded >= RECORDED:
            pair.unrecorded += 1
            return None
        pair.recorded += 1
        unrecorded, pair.unrecorded = pair.unrecorded, 0
        return unrecorded
