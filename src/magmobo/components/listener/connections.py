"""Everything open on the port: how many, until when, and how to wait until all are gone. No protocol knowledge.

One shared ticker replaces a timer per connection: whoever owes the port something holds a deadline here, and
`Deadlines.expire` is called twice a second. Most connections owe nothing and cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from magmobo.components.listener.config import ListenerConfig

TICK_S = 0.5
# Above the limit a client still gets a 503; far above it, it gets nothing.
_COURTESY_CONNECTIONS = 64


class Expiring(Protocol):
    """Who can hold a deadline."""

    def on_deadline(self) -> None:
        """The deadline passed; it is gone from the table already."""
        ...


class Deadlines:
    """At most one deadline per holder, on the loop's clock."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._at_s: dict[Expiring, float] = {}

    def set(self, holder: Expiring, in_s: float) -> None:
        """Call `holder.on_deadline` in `in_s` seconds, one tick later at most; replaces an earlier deadline."""
        self._at_s[holder] = self._now_s() + in_s

    def clear(self, holder: Expiring) -> None:
        """Forget the holder's deadline, if any."""
        self._at_s.pop(holder, None)

    def holds(self, holder: Expiring) -> bool:
        """Whether a deadline is set for the holder."""
        return holder in self._at_s

    def expire(self) -> None:
        """Call everybody whose time has come."""
        now_s = self._now_s()
        due = [holder for holder, at_s in self._at_s.items() if at_s <= now_s]
        for holder in due:
            self._at_s.pop(holder, None)
            holder.on_deadline()


class Connections:
    """The open connections of one port. HTTP connections join and leave through uvicorn, which owns that set.

    `config` and `max_connections` hold for all of them and may be exchanged at any time.
    """

    def __init__(self, config: ListenerConfig, *, max_connections: int, now_s: Callable[[], float]) -> None:
        self.http: set[Any] = set()
        self.websockets: set[Any] = set()
        self.deadlines = Deadlines(now_s)
        self.config, self.max_connections = config, max_connections
        self._movement: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self.http) + len(self.websockets)

    @property
    def over_limit(self) -> bool:
        """Whether more are open than may be served."""
        return len(self) > self.max_connections

    @property
    def hopeless(self) -> bool:
        """Whether so many are open that a newcomer is dropped without an answer."""
        return len(self) > self.max_connections + _COURTESY_CONNECTIONS

    def moved(self) -> None:
        """A connection ended and is in no set any more, or an answer did."""
        if self._movement is not None:
            self._movement.set()

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition`, asked again whenever something moved, came true within `timeout_s`."""
        self._movement = asyncio.Event()
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._movement.clear()
                    await self._movement.wait()
        except TimeoutError:
            return False
        finally:
            self._movement = None
        return True

    async def wait_gone(self, timeout_s: float) -> bool:
        """Whether all connections ended within `timeout_s`."""
        return await self.wait_until(lambda: not len(self), timeout_s)
