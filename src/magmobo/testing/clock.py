"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools

TURNS = 50  # of the loop, for those who were woken to come to rest


class FakeClock:
    """Implements `contracts.clock.Clock`. Sleepers wake in the order of their deadlines, at exactly those times."""

    def __init__(self, *, time_s: float = 1_700_000_000.0) -> None:
        self._time_s, self._monotonic_s = time_s, 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def time_s(self) -> float:
        return self._time_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_s + duration_s, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many calls of `sleep` wait now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, duration_s: float) -> None:
        """Let time pass, waking each sleeper at its time and letting it run before the next."""
        await self._settle()
        target_s = self._monotonic_s + duration_s
        while self._sleepers and self._sleepers[0][0] <= target_s:
            wake_at_s, _, future = heapq.heappop(self._sleepers)
            self._move_to(wake_at_s)
            if not future.done():
                future.set_result(None)
                await self._settle()
        self._move_to(target_s)

    def step_wall_time(self, duration_s: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; monotonic time is not touched."""
        self._time_s += duration_s

    def _move_to(self, monotonic_s: float) -> None:
        self._time_s += monotonic_s - self._monotonic_s
        self._monotonic_s = monotonic_s

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
