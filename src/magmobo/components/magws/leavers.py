"""Connections that are asked to go, at a pace that lets them come back without a stampede.

Source: CONTRACTS section 7 (a shutdown is 4200, paced).
"""

from __future__ import annotations

import asyncio

from magmobo.components.magws.connection import Client
from magmobo.contracts.clock import Clock

PAUSE_S = 0.02
SPREAD = 100  # the longest queue is served in about this many portions
MIN_PORTION = 20


class Leavers:
    """Closes what is added, a portion at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: dict[Client, tuple[int, str]] = {}
        self._work = asyncio.Event()

    def add(self, client: Client, code: int, reason: str) -> None:
        """Close the client soon; adding it twice closes it once."""
        self._queue.setdefault(client, (code, reason))
        self._work.set()

    def drop(self, client: Client) -> None:
        """The client is gone already."""
        self._queue.pop(client, None)

    async def run(self) -> None:
        """Close until cancelled."""
        while True:
            await self._work.wait()
            portion = max(MIN_PORTION, len(self._queue) // SPREAD)
            while self._queue:
                for client in list(self._queue)[:portion]:
                    code, reason = self._queue.pop(client)
                    client.close(code, reason)
                await self._clock.sleep(PAUSE_S)
            self._work.clear()
