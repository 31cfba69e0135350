"""The bus as one component sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magmobo.contracts.bus import AsyncHandler, Handler, Subscription
from magmobo.contracts.events import Event

if TYPE_CHECKING:
    from magmobo.kernel.bus.bus import EventBus


class ScopedBus:
    """The bus for one owner: everything it subscribes or delays ends with it. Implements `contracts.bus.Bus`."""

    def __init__(self, bus: EventBus, owner: str) -> None:
        self._bus, self.owner = bus, owner
        # Bound once, so that the scope adds nothing to the cost of an event.
        self.emit = bus.emit
        self.publish = bus.publish
        self.has_listeners = bus.has_listeners

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        """See `contracts.bus.Bus.queue`."""
        return self._bus.delay(self.owner, event, delay_s)

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        """See `contracts.bus.Bus.on`."""
        return self._bus.subscribe(self.owner, pattern, handler, priority=priority)

    def cancel_all(self) -> None:
        """End every subscription and delayed event made through this view."""
        self._bus.cancel_all(self.owner)

    async def close(self) -> None:
        """`cancel_all`, then return once none of its handlers runs."""
        await self._bus.close_owner(self.owner)
