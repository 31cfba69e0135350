"""Channels, their members, and the fan-out: one frame built once, all frames of a loop turn joined per channel.

Order per channel is the order of `publish`. A member receives exactly the frames published after it joined, also when
it joins while frames wait. Memory is bounded: waiting frames are sent at `FLUSH_BYTES`, a member whose own buffer is
over the limit is handed to `on_slow` instead of being sent more. A large channel is served in portions, so that one
message does not hold the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from magmobo.components.magws.history import Log
from magmobo.components.magws.tables import TableChannel
from magmobo.contracts.websocket import WebSocketConnection

FLUSH_BYTES = 262_144
PORTION = 2_000


class Subscriber(Protocol):
    """Who receives: one connection."""

    socket_id: str
    connection: WebSocketConnection

    @property
    def hello(self) -> bool:
        """Whether it understands positions and gaps."""
        ...


class Waiting(NamedTuple):
    """One published frame. `exclude` is the socket that does not get it; `position` is empty on ordinary channels."""

    frame: bytes
    exclude: str
    position: str


class Membership(NamedTuple):
    """When a member joined: after the channel's `seq`-th frame, and, on table channels, after this position."""

    seq: int
    position: str


class Sending:
    """One batch on its way to the members that were there when it began."""

    __slots__ = ("batch", "excluded", "first_seq", "frames", "index", "members")

    def __init__(self, batch: list[Waiting], first_seq: int, members: list[Subscriber]) -> None:
        self.batch, self.first_seq, self.members, self.index = batch, first_seq, members, 0
        self.frames = b"".join([waiting.frame for waiting in batch])
        self.excluded = frozenset([waiting.exclude for waiting in batch if waiting.exclude])

    def part_for(self, subscriber: Subscriber, joined_seq: int) -> bytes:
        """The frames of this batch that one member may see."""
        skip = max(0, joined_seq - self.first_seq + 1)
        return b"".join([w.frame for w in self.batch[skip:] if w.exclude != subscriber.socket_id])


class Channel:
    """One channel of one app. `table` is set on table channels, `log` on ordinary ones that somebody may resume."""

    __slots__ = (
        "app_id",
        "log",
        "members",
        "name",
        "pending",
        "pending_bytes",
        "queued",
        "sending",
        "sent_position",
        "seq",
        "table",
    )

    def __init__(self, app_id: str, name: str, table: TableChannel | None = None) -> None:
        self.app_id, self.name, self.table = app_id, name, table
        self.members: dict[Subscriber, Membership] = {}
        self.pending: list[Waiting] = []
        self.pending_bytes = self.seq = 0
        self.queued = False
        self.sending: Sending | None = None
        self.sent_position = ""
        self.log: Log | None = None

    def join(self, subscriber: Subscriber, position: str = "") -> None:
        """Every frame published from now on goes to this member too."""
        self.members[subscriber] = Membership(self.seq, position)

    def leave(self, subscriber: Subscriber) -> bool:
        """Nothing more goes to this member; whether it was one."""
        return self.members.pop(subscriber, None) is not None


class Fanout:
    """Sends what is published. `on_slow(channel, subscriber, position)` takes over a member that does not keep up;
    `position` is the last it was sent.
    """

    def __init__(self, send_buffer_bytes: int, on_slow: Callable[[Channel, Subscriber, str], None]) -> None:
        self._limit_bytes, self._on_slow = send_buffer_bytes, on_slow
        self._queue: deque[Channel] = deque()
        self._turn_due = False
        self.deliveries = 0

    def adjust(self, send_buffer_bytes: int) -> None:
        """A member with more than this unsent counts as slow from now on."""
        self._limit_bytes = send_buffer_bytes

    def publish(self, channel: Channel, frame: bytes, *, exclude: str = "", position: str = "") -> None:
        """Send one frame to everybody who is a member now, in this loop turn or the next."""
        channel.seq += 1
        if not channel.members:
            channel.sent_position = position
            return
        channel.pending.append(Waiting(frame, exclude, position))
        channel.pending_bytes += len(frame)
        if channel.pending_bytes >= FLUSH_BYTES:
            self.flush(channel)
        elif not channel.queued:
            channel.queued = True
            self._queue.append(channel)
            self._schedule()

    def flush(self, channel: Channel) -> None:
        """Send everything that waits on this channel now."""
        while channel.sending is not None or channel.pending:
            self._send_portion(channel, len(channel.members) + 1)

    def _schedule(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Serve the waiting channels in order, up to `PORTION` deliveries; the rest follows in the next loop turn."""
        self._turn_due = False
        budget = PORTION
        while self._queue and budget > 0:
            channel = self._queue.popleft()
            budget -= self._send_portion(channel, budget)
            if channel.sending is None and not channel.pending:
                channel.queued = False
            else:
                self._queue.append(channel)
        if self._queue:
            self._schedule()

    def _send_portion(self, channel: Channel, count: int) -> int:
        """Go on with the batch on its way, or begin the next; return how many members were served."""
        sending = channel.sending
        if sending is None:
            batch, channel.pending, channel.pending_bytes = channel.pending, [], 0
            if not batch:
                return 0
            sending = channel.sending = Sending(batch, channel.seq - len(batch) + 1, list(channel.members))
        portion = sending.members[sending.index : sending.index + count]
        sending.index += len(portion)
        self._deliver(channel, sending, portion)
        if sending.index >= len(sending.members):
            channel.sending = None
            channel.sent_position = sending.batch[-1].position
        return max(1, len(portion))

    def _deliver(self, channel: Channel, sending: Sending, portion: list[Subscriber]) -> None:
        limit_bytes, frames = self._limit_bytes, sending.frames
        first_seq, excluded, membership = sending.first_seq, sending.excluded, channel.members.get
        for subscriber in portion:
            joined = membership(subscriber)
            if joined is None:  # left since the batch began
                continue
            connection = subscriber.connection
            if connection.unsent_bytes > limit_bytes:
                self._on_slow(channel, subscriber, max(channel.sent_position, joined.position))
            elif joined.seq >= first_seq or (excluded and subscriber.socket_id in excluded):
                if part := sending.part_for(subscriber, joined.seq):
                    connection.send_frames(part)
            else:
                connection.send_frames(frames)
        self.deliveries += len(portion) * len(sending.batch)
