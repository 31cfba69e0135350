"""What happened on the realtime plane: plain counters, and events for those who listen.

An event is built only when somebody subscribes to its type, so a quiet bus costs one test.
"""

from __future__ import annotations

from collections.abc import Callable

from magmobo.components.magws.channels import Channel
from magmobo.contracts.bus import Bus
from magmobo.contracts.events import (
    RealtimeConnectionClosed,
    RealtimeConnectionOpened,
    RealtimeGap,
    RealtimeMessageSent,
    RealtimeSubscriptionCreated,
    RealtimeSubscriptionRemoved,
)


class Traffic:
    """Counts since the component started. `on_published` hears of every channel that something was published on."""

    def __init__(self, bus: Bus, on_published: Callable[[Channel], None]) -> None:
        self._bus = bus
        self.published = on_published
        self.opened = self.refused = self.slow = self.gaps = 0

    def connected(self, socket_id: str, app_id: str) -> None:
        """A client was accepted."""
        self.opened += 1
        if self._bus.has_listeners(RealtimeConnectionOpened):
            self._bus.emit(RealtimeConnectionOpened(socket_id, app_id))

    def disconnected(self, socket_id: str, app_id: str, code: int, duration_s: float) -> None:
        """A client is gone."""
        if self._bus.has_listeners(RealtimeConnectionClosed):
            self._bus.emit(RealtimeConnectionClosed(socket_id, app_id, str(code), duration_s))

    def subscribed(self, socket_id: str, channel: str) -> None:
        """A client was admitted to a channel."""
        if self._bus.has_listeners(RealtimeSubscriptionCreated):
            self._bus.emit(RealtimeSubscriptionCreated(socket_id, channel))

    def unsubscribed(self, socket_id: str, channel: str) -> None:
        """A client left a channel."""
        if self._bus.has_listeners(RealtimeSubscriptionRemoved):
            self._bus.emit(RealtimeSubscriptionRemoved(socket_id, channel))

    def sent(self, channel: Channel, event: str) -> None:
        """A message went out to an ordinary channel."""
        if self._bus.has_listeners(RealtimeMessageSent):
            self._bus.emit(RealtimeMessageSent(channel.name, len(channel.members), event))

    def gap(self, channel: str, start: str, end: str, reason: str) -> None:
        """Clients were told that they missed something."""
        self.gaps += 1
        if self._bus.has_listeners(RealtimeGap):
            self._bus.emit(RealtimeGap(channel, start, end, reason))
