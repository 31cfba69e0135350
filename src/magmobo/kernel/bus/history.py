"""What the bus remembers for people: the last events of the node, and the events that a handler failed on.

Traffic (`TRAFFIC`) has a ring of its own, so that a busy table never pushes out what happened to the node. A topic that
floods is remembered one event in 64 (`dispatch.Topic`), and every event that is not there any more is counted.
Invariant: cursors grow by one with every event, remembered or not; what a page skips is exactly `missed`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from magmobo.contracts.events import Envelope
from magmobo.kernel.bus.ring import Ring, size_of
from magmobo.kernel.bus.topics import means, parse_pattern

TRAFFIC = ("database.change", "database.query.**", "realtime.**", "api.**")
_ERROR_CHARACTERS = 2_000

Entry = tuple[int, Envelope[Any]]
_traffic_words = tuple(parse_pattern(pattern) for pattern in TRAFFIC)


class History:
    """The last events.

    Args:
        limit: events remembered of traffic, and as many of all others; 0 turns history off.
        limit_bytes: what each of the two may hold.
    """

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self.is_on = limit > 0
        self.cursor = 0
        self._events: Ring[Entry] = Ring(limit=limit, limit_bytes=limit_bytes)
        self._traffic: Ring[Entry] = Ring(limit=limit, limit_bytes=limit_bytes)
        self._waiting: set[asyncio.Future[None]] = set()

    def ring_of(self, topic: str) -> Ring[Entry]:
        """Where the events of a topic are kept."""
        return self._traffic if any(means(words, topic) for words in _traffic_words) else self._events

    def remember(self, ring: Ring[Entry], envelope: Envelope[Any]) -> None:
        """Keep one event in the ring of its topic."""
        self.cursor += 1
        ring.append((self.cursor, envelope), size_of(envelope.data))
        if self._waiting:
            self._wake()

    def resize(self, limit: int) -> None:
        """Another limit from now on. Whether it is on is for the topics to take over."""
        self.is_on = limit > 0
        self._events.resize(limit)
        self._traffic.resize(limit)

    def skip(self, count: int) -> None:
        """So many events were not remembered."""
        self.cursor += count
        if self._waiting:
            self._wake()

    def page(self, after: int, limit: int, pattern: str = "**") -> tuple[list[Entry], int, int]:
        """Events behind cursor `after` that `pattern` means, oldest first, at most `limit`.

        Returns: the events with their cursors, the cursor to ask behind next, and how many events of any topic lie
        between `after` and there but are remembered no more. A cursor of the future, as from before a restart, counts
        as 0. Raises: BadPattern.
        """
        words = parse_pattern(pattern)
        after = after if after <= self.cursor else 0
        found: list[Entry] = []
        seen, last = 0, self.cursor
        for entry in self._behind(after):
            seen += 1
            if means(words, entry[1].topic):
                found.append(entry)
                if len(found) >= limit:
                    last = entry[0]
                    break
        return found, last, last - after - seen

    def _behind(self, after: int) -> Iterator[Entry]:
        both = heapq.merge(self._events, self._traffic, key=lambda entry: entry[0])
        return (entry for entry in both if entry[0] > after)

    async def wait(self, after: int, timeout_s: float) -> bool:
        """Return once there was an event behind cursor `after`, or `timeout_s` passed; whether there was one."""
        if self.cursor <= after:
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                await asyncio.wait([woken], timeout=timeout_s)
            finally:
                self._waiting.discard(woken)
        return self.cursor > after

    def close(self) -> None:
        """Forget everything and wake who waits."""
        self._events.clear()
        self._traffic.clear()
        self._wake()

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
        self._waiting.clear()


class DeadLetter(Struct, frozen=True):
    """An event that a handler of `owner` failed on or did not finish in time."""

    time_s: float
    owner: str
    handler: str
    error: str
    envelope: Envelope[Any]


class DeadLetters:
    """The last failed deliveries. `total` counts those that are forgotten too."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._ring: Ring[DeadLetter] = Ring(limit=limit, limit_bytes=limit_bytes)
        self.total = 0

    def add(self, time_s: float, owner: str, handler: str, error: BaseException, envelope: Envelope[Any]) -> None:
        """File one failed delivery."""
        self.total += 1
        text = f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
        letter = DeadLetter(time_s, owner, handler, text, envelope)
        self._ring.append(letter, size_of(envelope.data) + len(text))

    def __iter__(self) -> Iterator[DeadLetter]:
        """Oldest first."""
        return iter(self._ring)

    def __len__(self) -> int:
        return len(self._ring)
