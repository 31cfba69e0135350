"""Tells extensions what happened, behind the operation's back: a bounded queue for each, a few at the same time.

What does not fit is dropped and counted: the host never waits, and an extension that is slow costs only itself.
Boundary: `after` hooks alone; whoever must hear of everything subscribes to events.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec import Raw

from magmobo.contracts.errors import MagError
from magmobo.extensions.gate.ledger import Tally
from magmobo.extensions.hooks.binding import Binding
from magmobo.extensions.workers.asked import CURRENT, Asked

MAX_WAITING = 256
AT_ONCE = 8


class Telling:
    """The queue of one binding."""

    __slots__ = ("_binding", "_tally", "_tasks", "_waiting")

    def __init__(self, binding: Binding, tally: Tally) -> None:
        self._binding, self._tally = binding, tally
        self._waiting: deque[tuple[Raw, tuple[str, ...], Asked | None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, packed: Raw, chain: tuple[str, ...], behalf: Asked | None) -> None:
        """Tell it soon, or drop it."""
        if len(self._waiting) >= MAX_WAITING:
            self._tally.note("dropped", 0.0)
            return
        self._waiting.append((packed, chain, behalf))
        if len(self._tasks) < AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._tell(), name=f"tell {self._binding.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        while self._waiting:
            packed, chain, behalf = self._waiting.popleft()
            CURRENT.set(behalf)
            try:
                await self._binding.ask(packed, chain)
            except MagError:
                continue  # a no comes too late, and failures are counted where they happen
