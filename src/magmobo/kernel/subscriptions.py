"""The bus as one component sees it: what it subscribes while it boots lives until its end, the rest until it stops."""

from __future__ import annotations

from magmobo.contracts.bus import AsyncHandler, Handler, Subscription
from magmobo.contracts.events import Event
from magmobo.kernel.bus.bus import EventBus

BOOT_OWNER = "/boot"


class ComponentBus:
    """Implements `contracts.bus.Bus`. The owner of a subscription is the component's name; of one made in its
    constructor or `boot`, the name with `/boot`.
    """

    def __init__(self, bus: EventBus, component: str) -> None:
        self._bus = bus
        self._of_boot, self._serving = bus.scoped(component + BOOT_OWNER), bus.scoped(component)
        self._current = self._of_boot
        # Bound once, so that this view adds nothing to the cost of an event.
        self.emit = bus.emit
        self.publish = bus.publish
        self.has_listeners = bus.has_listeners

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        return self._current.on(pattern, handler, priority=priority)

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        return self._current.queue(event, delay_s=delay_s)

    def begin_serving(self) -> None:
        """What is subscribed from now on ends with `end_serving`."""
        self._current = self._serving

    async def end_serving(self) -> None:
        """End what was subscribed since `begin_serving`, then return once none of its handlers runs."""
        await self._serving.close()

    async def close(self) -> None:
        """End every subscription, then return once none of its handlers runs."""
        await self._serving.close()
        await self._of_boot.close()

    def __len__(self) -> int:
        return sum(self._bus.subscription_count(scope.owner) for scope in (self._of_boot, self._serving))
