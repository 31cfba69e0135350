"""The event bus as components see it.

Promises (CONTRACTS section 2): order per topic is kept even when a handler emits; a failing handler stops no other;
every subscription belongs to a component and dies with it; queues are bounded and shed with a count; emitting never
blocks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from magmobo.contracts.events import Envelope, Event

E = TypeVar("E", bound=Event)
Handler = Callable[[Envelope[Any]], None]
AsyncHandler = Callable[[Envelope[Any]], Awaitable[None]]


class Subscription(Protocol):
    """One handler on one pattern."""

    def cancel(self) -> None:
        """Deliver nothing more to the handler; calling it twice is fine."""
        ...


class Bus(Protocol):
    """Publish and subscribe inside one node. Use it only from the node's event loop."""

    def emit(self, event: Event) -> None:
        """Run every sync handler now, in order; queue the event for async handlers. Never raises, never blocks.

        An emit on the same topic from inside a handler is queued and delivered after the current event.
        """
        ...

    async def publish(self, event: Event) -> None:
        """Like `emit`, but returns only after the async handlers have run too."""
        ...

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        """Emit `event` after `delay_s` seconds, unless the returned handle is cancelled or its owner ends before.

        Raises: QueueFull when too many delayed events of this owner wait; ValueError for a negative delay.
        """
        ...

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        """Call `handler` for every event of a topic, an event class, or a pattern `a.b`, `a.*` (one segment), `a.**`
        (any).

        Higher priority runs earlier; equal ones in the order of subscription.
        Raises: ValueError when the pattern is malformed or names a topic nobody declared.
        """
        ...

    def has_listeners(self, event_type: type[Event]) -> bool:
        """Whether emitting this type would reach anyone; lets a hot path skip building the event."""
        ...
