"""One load for all who ask for the same value at the same time.

A flight that an invalidation concerns still answers those who were waiting, for they asked before it; whoever asks
afterwards starts a new one, and what the old one brings is not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from magmobo.kernel.cache.errors import CacheClosed
from magmobo.kernel.cache.keys import Name
from magmobo.kernel.cache.tags import Invalidation

END_TIMEOUT_S = 5.0


class Flight:
    """A value under way. `outdated`: what it brings may be older than an invalidation and must not be kept."""

    def __init__(self, name: Name, tags: Sequence[str] | None) -> None:
        self.name, self.tags = name, tags
        self.outdated = False
        self.waiters = 0
        self.is_behind = False  # nobody needs to wait for it: it loads anew what is still shown
        self.task: asyncio.Task[bytes] | None = None


class Flights:
    """All loads and look-ups under way."""

    def __init__(self) -> None:
        self._by_name: dict[Name, Flight] = {}
        self._active: set[Flight] = set()

    def begin(self, name: Name, tags: Sequence[str] | None) -> Flight:
        """Note that a value is under way which nobody else can join; `end` it. `tags` is None while not known."""
        flight = Flight(name, tags)
        self._active.add(flight)
        return flight

    def end(self, flight: Flight) -> None:
        """It has arrived, or will not."""
        self._active.discard(flight)
        self.leave(flight)

    def leave(self, flight: Flight) -> None:
        """Let nobody join it any more."""
        if self._by_name.get(flight.name) is flight:
            del self._by_name[flight.name]

    def join(
        self,
        name: Name,
        tags: Sequence[str],
        fly: Callable[[Flight], Coroutine[Any, Any, bytes]],
        *,
        behind: bool = False,
    ) -> Flight:
        """The flight for `name`, begun with `fly` when there is none. `behind`: it goes on with nobody waiting."""
        flight = self._by_name.get(name)
        if flight is None:
            flight = self._by_name[name] = self.begin(name, tags)
            flight.is_behind = behind
            flight.task = asyncio.create_task(fly(flight), name=f"cache:{name.owner}")
            flight.task.add_done_callback(partial(self._landed, flight))  # also when cancelled before it began
        return flight

    def _landed(self, flight: Flight, task: asyncio.Task[bytes]) -> None:
        self.end(flight)
        if not task.cancelled():
            task.exception()  # looked at: with nobody waiting it was logged by who loaded

    async def wait(self, flight: Flight) -> bytes:
        """What the flight brings. When the last of its waiters is cancelled, so is the load.

        Raises: what the load raises; CacheClosed when it was ended from outside.
        """
        task = flight.task
        if task is None:
            raise CacheClosed
        flight.waiters += 1
        try:
            await asyncio.wait([task])
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.is_behind and not task.done():
                self.end(flight)  # whoever asks from now on starts anew
                task.cancel()
        if task.cancelled():
            raise CacheClosed
        return task.result()

    def outdate(self, order: Invalidation) -> None:
        """Nothing that `order` concerns is kept when it arrives, or joined by others."""
        for flight in self._active:
            if order.concerns(flight.name, flight.tags):
                self._outdate_one(flight)

    def outdate_name(self, name: Name) -> None:
        """A value was put there meanwhile, which is newer."""
        for flight in self._active:
            if flight.name == name:
                self._outdate_one(flight)

    def _outdate_one(self, flight: Flight) -> None:
        flight.outdated = True
        self.leave(flight)

    async def cancel(self, owner: str | None = None) -> None:
        """End the loads of `owner`, or all, and wait for their ends."""
        chosen = [flight for flight in self._active if owner is None or flight.name.owner == owner]
        tasks = []
        for flight in chosen:
            flight.outdated = True
            if flight.task is not None:
                flight.task.cancel()
                tasks.append(flight.task)
        if tasks:
            await asyncio.wait(tasks, timeout=END_TIMEOUT_S)

    def __len__(self) -> int:
        return len(self._active)
