"""Telling clients that said hello where their channels stand: soon after deliveries, and every minute when idle.

One frame a channel serves all of them. It goes out behind everything published before it, so a client that counts
messages since its last position counts right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from magmobo.components.magws.channels import Channel, Fanout
from magmobo.components.magws.protocol import frames

IDLE_S = 60.0


class Positions:
    """`stand(channel)` gives epoch and serial, None when the channel has none."""

    def __init__(self, fanout: Fanout, stand: Callable[[Channel], tuple[str, str] | None]) -> None:
        self._fanout, self._stand = fanout, stand
        self._moved: dict[Channel, None] = {}
        self._idle_sent_s = 0.0

    def moved(self, channel: Channel) -> None:
        """Something was published on the channel."""
        self._moved[channel] = None

    def tick(self, now_s: float, everything: Iterable[Channel]) -> None:
        """Called about once a second: tell the channels that moved; once a minute, all."""
        due: list[Channel] = list(self._moved)
        self._moved.clear()
        if now_s - self._idle_sent_s >= IDLE_S:
            self._idle_sent_s = now_s
            due = list(everything)
        for channel in due:
            self._tell(channel)

    def _tell(self, channel: Channel) -> None:
        if channel.sending is not None:  # a large channel in the middle of a batch: next time
            self._moved[channel] = None
            return
        members = [member for member in channel.members if member.hello]
        if not members or (stand := self._stand(channel)) is None:
            return
        self._fanout.flush(channel)
        frame = frames.position(channel.name, *stand)
        for member in members:
            if member in channel.members:  # a slow one may have been taken out by the flush
                member.connection.send_frames(frame)
