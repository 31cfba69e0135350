"""Tables on channels: takes changes from the bus, brings clients to the live edge, and says `gap` when it must.

A live member has been sent everything up to `_last`, the newest position seen. When the storage plane restarts it
replays a window of history; what lies beyond `_last` in it was never sent and is delivered, the rest is skipped.
"""

from __future__ import annotations

import structlog

from magmobo.components.magws import feed
from magmobo.components.magws.channels import Channel, Fanout, Subscriber
from magmobo.components.magws.connection import Client
from magmobo.components.magws.errors import SubscriptionRefused, TableWithdrawn
from magmobo.components.magws.leavers import Leavers
from magmobo.components.magws.protocol import frames
from magmobo.components.magws.protocol.closing import CloseCode
from magmobo.components.magws.published import TableBook
from magmobo.components.magws.registry import Registry
from magmobo.components.magws.resume import Follower, Followers, refetch_of
from magmobo.components.magws.tables import TableChannel
from magmobo.components.magws.traffic import Traffic
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost, Envelope
from magmobo.contracts.planes import Changes, Gap


class TableFeed:
    """The table channels of all apps."""

    def __init__(
        self,
        changes: Changes,
        book: TableBook,
        registry: Registry,
        fanout: Fanout,
        leavers: Leavers,
        traffic: Traffic,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        *,
        send_buffer_bytes: int,
        row_limits: dict[str, int],
    ) -> None:
        self._changes, self._book, self._registry, self._fanout = changes, book, registry, fanout
        self._leavers, self._traffic, self._clock, self._log = leavers, traffic, clock, log
        self._row_limits = row_limits
        self._index = feed.TableIndex()
        self._last = self._epoch = ""
        self.followers = Followers(changes, self, clock, send_buffer_bytes=send_buffer_bytes)

    def adjust(self, *, send_buffer_bytes: int, row_limits: dict[str, int]) -> None:
        """Other limits. An app that is not named keeps its own until its last channel is gone."""
        self._row_limits |= row_limits
        self.followers.adjust(send_buffer_bytes)

    # ------------------------------------------------------------ clients come and go

    def subscribe(self, client: Client, name: str, table: TableChannel) -> None:
        """Begin to bring a client to the live edge.

        Raises: SubscriptionRefused when the channel may not be followed.
        """
        self._book.admit(name, table)
        self.followers.add(Follower(client, name, table))

    def resume_again(self, client: Client, name: str) -> None:
        """A subscribed client says hello: give it what came after the position it names, or tell it where it is."""
        channel = self._registry.find(client.app.id, name)
        follower = self.followers.find(client, name)
        if follower is not None and follower.admitted:
            table = follower.table
        elif channel is not None and channel.table is not None and client in channel.members:
            table = channel.table
        else:  # not admitted yet: admission takes the position
            return
        entry = client.session.take_resume(name)
        if entry is not None:
            if channel is not None:
                self._take_out(channel, client)
            self.followers.add(Follower(client, name, table, entry.epoch, entry.serial, True, True))
        elif follower is None and channel is not None and (stand := self.stand()) is not None:
            self._fanout.flush(channel)
            if client in channel.members:  # else it is too slow, and is told when it has been brought back
                client.connection.send_frames(frames.position(name, *stand))

    def asked_before(self, client: Client, name: str) -> bool | None:
        """Whether a client that asked for a channel is on it; None when it has not asked."""
        if (follower := self.followers.find(client, name)) is not None:
            return follower.admitted
        channel = self._registry.find(client.app.id, name)
        return True if channel is not None and client in channel.members else None

    def leave(self, client: Client, name: str) -> bool:
        """The client does not want the channel any more, or is gone. Whether it was subscribed."""
        channel = self._registry.find(client.app.id, name)
        was_live = channel is not None and self._take_out(channel, client)
        return self.followers.drop(client, name) or was_live

    def fell_behind(self, channel: Channel, table: TableChannel, member: Client, position: str) -> None:
        """A live member does not keep up: give it history at its own pace."""
        self._take_out(channel, member)
        self.followers.add(Follower(member, channel.name, table, self._epoch, position, True))

    def stand(self) -> tuple[str, str] | None:
        """Epoch and position of the stream, None while it is away. Members hear of another epoch before anybody hears
        of a position in it.
        """
        try:
            stand = self._changes.epoch, self._changes.position
        except Unavailable:
            return None
        if self._epoch and stand[0] != self._epoch:
            self._lose(Gap(self._last, stand[1], "epoch_changed"), stand[0])
        return stand

    # ------------------------------------------------------------ what `Followers` asks

    def admit(self, client: Client, name: str, table: TableChannel) -> None:
        self._book.admit(name, table)

    def admitted(self, client: Client, name: str) -> None:
        self._traffic.subscribed(client.socket_id, name)

    def join(self, client: Client, name: str, table: TableChannel, position: str) -> None:
        self.stand()  # a new member must not hide another epoch from the old ones
        self._last = max(self._last, position)
        self._epoch = self._changes.epoch
        channel = self._registry.join(client.app.id, name, client, table=table, position=position)
        self._index.add(channel, table)

    def key_columns(self, table: TableChannel) -> tuple[str, ...]:
        return self._book.key_columns(table.table)

    def told_gap(self, name: str, gap: Gap) -> None:
        self._traffic.gap(name, gap.from_position, gap.to_position, gap.reason)

    # ------------------------------------------------------------ what the bus brings

    def on_change(self, envelope: Envelope[DatabaseChange]) -> None:
        """Deliver one change to every channel it belongs to."""
        change = envelope.data
        if change.replayed and change.position <= self._last:
            return
        self._last = max(self._last, change.position)
        channels = list(self._index.find(change))
        if not channels:
            return
        words: dict[int, bytes] = {}
        for channel in channels:
            limit_bytes = self._row_limits[channel.app_id]
            if limit_bytes not in words:
                keys = self._book.key_columns(channel.table.table) if channel.table else ()
                words[limit_bytes] = feed.in_words(change, self._epoch, keys, limit_bytes)
            frame = feed.frame_for(channel.name, change.op, words[limit_bytes])
            self._fanout.publish(channel, frame, position=change.position)
            self._traffic.published(channel)

    def on_lost(self, envelope: Envelope[DatabaseChangesLost]) -> None:
        """Nobody knows what happened up to a position: say so on every table channel."""
        lost = envelope.data
        self._lose(Gap(lost.from_position, lost.to_position, "lost"), lost.epoch)
        self._log.warning("realtime_changes_lost", reason=lost.reason, to=lost.to_position)

    def _lose(self, gap: Gap, epoch: str) -> None:
        self._last, self._epoch = gap.to_position, epoch
        for channel in list(self._index):
            self._fanout.flush(channel)
            self._tell_gap(channel, gap, epoch)

    def recheck(self) -> None:
        """The book has changed: take out whoever may not follow a table any more."""
        for channel in list(self._index):
            if channel.table is not None and (refusal := self._refusal(channel.name, channel.table)) is not None:
                self._withdraw(channel, refusal)
        self.followers.refuse(lambda follower: self._refusal(follower.name, follower.table))

    def _refusal(self, name: str, table: TableChannel) -> TableWithdrawn | None:
        try:
            self._book.admit(name, table)
        except SubscriptionRefused as refusal:
            return TableWithdrawn(name, f"the table was withdrawn: {refusal}")
        return None

    def _withdraw(self, channel: Channel, refusal: TableWithdrawn) -> None:
        self._fanout.flush(channel)
        gap = Gap(channel.sent_position, self._last, "lost")
        for member in list(channel.members):
            if isinstance(member, Client):
                if member.hello and channel.table is not None:
                    refetch = refetch_of(channel.table)
                    start, end = gap.from_position, gap.to_position
                    member.connection.send_frames(frames.gap(channel.name, start, end, "withdrawn", refetch))
                    self.told_gap(channel.name, gap)
                self._take_out(channel, member)
                member.refuse(refusal)

    def _tell_gap(self, channel: Channel, gap: Gap, epoch: str) -> None:
        if channel.table is None:
            return
        told = frames.gap(channel.name, gap.from_position, gap.to_position, gap.reason, refetch_of(channel.table))
        told += frames.position(channel.name, epoch, gap.to_position)
        channel.sent_position = gap.to_position
        for member in list(channel.members):
            channel.join(member, gap.to_position)
            if member.hello:
                member.connection.send_frames(told)
            elif isinstance(member, Client):
                self._leavers.add(member, CloseCode.RECONNECT, "changes were missed (lost): read the data again")
        self.told_gap(channel.name, gap)

    def _take_out(self, channel: Channel, member: Subscriber) -> bool:
        """Remove a member, whether it was one; the index forgets the channel with its last one."""
        if not self._registry.leave(channel, member, self._clock.monotonic_s()):
            return False
        if not channel.members and channel.table is not None:
            self._index.remove(channel, channel.table)
        return True
