"""How many questions a worker may have at the same time, and who is next when all places are taken.

Hooks may use every place; everything else leaves one in four free, and one at least where there are two, so that a
flood of requests to an extension's endpoints cannot keep its guards from answering, nor can what waits for these very
guards. First come, first served; nobody overtakes who waits. Boundary: no I/O.
"""

from __future__ import annotations

import asyncio
from collections import deque

MAX_WAITING = 1024


class WindowFull(Exception):
    """As many wait already as may."""


class Window:
    """Places of one link; `hook` says whether a question is a hook's."""

    __slots__ = ("_loop", "_others", "_waiting", "others_size", "size", "used")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.size = size
        self.others_size = max(1, size - max(1, size // 4))
        self.used = self._others = 0
        self._loop = loop
        self._waiting: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())

    def take_now(self, *, hook: bool) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if hook:
            if self.used >= self.size or self._waiting[0]:
                return False
        elif self.used >= self.size or self._others >= self.others_size or self._waiting[1]:
            return False
        else:
            self._others += 1
        self.used += 1
        return True

    async def take(self, *, hook: bool) -> None:
        """Wait for a place. Raises: WindowFull; what `close` was given."""
        if self.take_now(hook=hook):
            return
        if self.waiting >= MAX_WAITING:
            raise WindowFull
        queue = self._waiting[0 if hook else 1]
        place = self._loop.create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                if place in queue:
                    queue.remove(place)
            elif place.exception() is None:  # it was given a place in the moment in which it left
                self.give(hook=hook)
            raise

    def give(self, *, hook: bool) -> None:
        """A place is free again."""
        self.used -= 1
        if not hook:
            self._others -= 1
        if self._waiting[0] or self._waiting[1]:
            self._hand_on()

    def _hand_on(self) -> None:
        for queue, hook in ((self._waiting[0], True), (self._waiting[1], False)):
            while queue and self.used < self.size and (hook or self._others < self.others_size):
                place = queue.popleft()
                if not place.done():
                    self.used += 1
                    self._others += not hook
                    place.set_result(None)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting[0]) + len(self._waiting[1])

    def close(self, error: Exception) -> None:
        """Nobody gets a place any more."""
        for queue in self._waiting:
            while queue:
                place = queue.popleft()
                if not place.done():
                    place.set_exception(error)
