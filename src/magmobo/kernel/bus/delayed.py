"""Events that are emitted later: one timer of the loop each, bounded by owner, gone with their owner.

Invariant: what is filed under an owner is exactly what still will be emitted.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import Event
from magmobo.kernel.bus.errors import QueueFull
from magmobo.kernel.bus.trace import Cause, cause_here


class DelayedEvent:
    """One event on its timer; implements `contracts.bus.Subscription`."""

    __slots__ = ("_cause", "_delayed", "_event", "_timer", "owner")

    def __init__(self, delayed: Delayed, owner: str, event: Event, delay_s: float, cause: Cause | None) -> None:
        self._delayed, self.owner, self._event, self._cause = delayed, owner, event, cause
        # An empty context: what its handlers see must not depend on who happened to ask.
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire, context=contextvars.Context())

    def cancel(self) -> None:
        """Emit nothing; calling it twice, or after the event was emitted, is fine."""
        self._timer.cancel()
        self._delayed.forget(self)

    def _fire(self) -> None:
        self._delayed.forget(self)
        cause_here.set(self._cause)
        self._delayed.emit(self._event)


class Delayed:
    """All delayed events of a bus.

    Args:
        emit: called with the event when its time has come, in the trace in which it was asked for.
        limit: events one owner may have waiting.
    """

    def __init__(self, emit: Callable[[Event], None], *, limit: int) -> None:
        self.emit, self._limit = emit, limit
        self._by_owner: dict[str, set[DelayedEvent]] = {}
        self._closed = False

    def add(self, owner: str, event: Event, delay_s: float, cause: Cause | None) -> DelayedEvent:
        """Start the timer. Raises: QueueFull; ValueError for a delay that is none; Unavailable once closed."""
        if not (delay_s >= 0 and math.isfinite(delay_s)):
            raise ValueError(f"an event cannot be delayed by {delay_s} s")
        if self._closed:
            raise Unavailable("the event bus")
        if len(self._by_owner.get(owner, ())) >= self._limit:
            raise QueueFull(owner, self._limit)
        waiting = DelayedEvent(self, owner, event, delay_s, cause)
        self._by_owner.setdefault(owner, set()).add(waiting)
        return waiting

    def forget(self, waiting: DelayedEvent) -> None:
        """Take one out of the account."""
        owned = self._by_owner.get(waiting.owner, set())
        owned.discard(waiting)
        if not owned:
            self._by_owner.pop(waiting.owner, None)

    def cancel_all(self, owner: str) -> None:
        """Emit nothing more for `owner`."""
        for waiting in tuple(self._by_owner.get(owner, ())):
            waiting.cancel()

    def close(self) -> None:
        """Emit nothing more at all, and take nothing more."""
        self._closed = True
        for owner in tuple(self._by_owner):
            self.cancel_all(owner)

    def count(self, owner: str | None = None) -> int:
        """Events that wait, of one owner or of all."""
        owners = self._by_owner if owner is None else {owner}
        return sum(len(self._by_owner.get(name, ())) for name in owners)
