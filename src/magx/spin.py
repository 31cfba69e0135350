"""Keeps a loop awake for a moment when something is due at once.

To sleep and be woken takes a virtual processor that has nothing else to do 30 to 40 us, which is more than a whole hook
costs (docs/performance.md). So the loop turns without sleeping for as long as an answer usually takes; whatever else
comes has its turn as always. Boundary: knows nothing of what is awaited. Invariant: awake for `MOST_S` at most after
the last thing that became due, and next to never where that does not pay: what is due is slow, or shares its processor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MOST_S = 100e-6
MISS, MOST_DOUBT = 256, 4096
"""What is not there in time counts as much as so many things that were: each costs a wait of `MOST_S` where whoever is
awaited shares this processor, and if one in a hundred did, the slowest hundredth would be the worse for it. A burst of
sixteen is nothing yet.
"""
PAUSE = 1024
"""So many things are awaited asleep when it does not pay, before it is tried again."""


class Spin:
    """`expect` when something is due, `came` when it is there. `now_s` is a clock of seconds."""

    __slots__ = ("_asleep", "_call_soon", "_doubt", "_is_turning", "_now_s", "_until_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._call_soon, self._now_s = loop.call_soon, now_s
        self._until_s = 0.0
        self._is_turning = False
        self._doubt = self._asleep = 0

    def expect(self) -> None:
        """Something is due: turn until it comes, or the time is over."""
        if self._asleep:
            self._asleep -= 1
            return
        self._until_s = self._now_s() + MOST_S
        if not self._is_turning:
            self._is_turning = True
            self._call_soon(self._turn)

    def came(self) -> None:
        """It is there: sleep as soon as there is nothing to do."""
        if self._is_turning and self._until_s:
            self._until_s = 0.0
            self._doubt = max(0, self._doubt - 1)

    def _turn(self) -> None:
        if self._now_s() < self._until_s:
            self._call_soon(self._turn)
            return
        self._is_turning = False
        if self._until_s:
            self._doubt += MISS
            if self._doubt >= MOST_DOUBT:
                self._doubt, self._asleep = MOST_DOUBT - MISS, PAUSE
