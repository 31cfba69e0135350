"""The channels that exist: those with members, and ordinary ones whose history a client may still come back for.

A channel without members and without history costs nothing: it is gone. The number of channels kept for their history
alone is bounded; above it the longest idle is forgotten, and its clients are told of a gap by the new epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from magmobo.components.magws.channels import Channel, Subscriber
from magmobo.components.magws.history import Histories, Log
from magmobo.components.magws.tables import TableChannel

MAX_IDLE = 10_000
_NONE: Mapping[str, Channel] = {}


class Registry:
    """Channels by app and name."""

    def __init__(self, histories: Histories, *, idle_s: float) -> None:
        self._histories, self._idle_s = histories, idle_s
        self._by_app: dict[str, dict[str, Channel]] = {}
        self._idle: OrderedDict[Channel, float] = OrderedDict()

    def adjust(self, *, idle_s: float) -> None:
        """How long a channel without members waits for them."""
        self._idle_s = idle_s

    def find(self, app_id: str, name: str) -> Channel | None:
        """The channel, None when nobody is or was lately on it."""
        return self._by_app.get(app_id, _NONE).get(name)

    def of_app(self, app_id: str) -> Mapping[str, Channel]:
        """All channels of one app by name."""
        return self._by_app.get(app_id, _NONE)

    def __iter__(self) -> Iterator[Channel]:
        for channels in self._by_app.values():
            yield from channels.values()

    def join(
        self, app_id: str, name: str, member: Subscriber, *, table: TableChannel | None = None, position: str = ""
    ) -> Channel:
        """Make somebody a member, and the channel with its first one."""
        channels = self._by_app.setdefault(app_id, {})
        channel = channels.get(name)
        if channel is None:
            channel = channels[name] = Channel(app_id, name, table)
        self._idle.pop(channel, None)
        channel.join(member, position)
        return channel

    def remember(self, channel: Channel) -> Log:
        """Keep the channel's messages from now on."""
        if channel.log is None:
            channel.log = Log()
        return channel.log

    def leave(self, channel: Channel, member: Subscriber, now_s: float) -> bool:
        """Take a member out; whether it was one. With the last one the channel goes, or waits for its return."""
        if not channel.leave(member):
            return False
        if channel.members:
            return True
        if channel.log is None:
            self._remove(channel)
            return True
        self._idle[channel] = now_s
        if len(self._idle) > MAX_IDLE:
            self._remove(self._idle.popitem(last=False)[0])
        return True

    def expire(self, now_s: float) -> None:
        """Forget what nobody came back for."""
        self._histories.expire(now_s)
        while self._idle:
            channel, since_s = next(iter(self._idle.items()))
            if now_s - since_s <= self._idle_s:
                return
            del self._idle[channel]
            self._remove(channel)

    def _remove(self, channel: Channel) -> None:
        channels = self._by_app[channel.app_id]
        channels.pop(channel.name, None)
        if not channels:
            del self._by_app[channel.app_id]
        if channel.log is not None:
            self._histories.forget(channel.log)
