"""The realtime plane of one node: what each client's wish leads to.

It joins the parts: `Clients` says who is connected and who may be, `Session` what a client may ask; `TableFeed` follows
tables, `Fanout` delivers, `Registry` and `Histories` remember ordinary channels. All of it runs on the node's loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from magmobo.components.magws import tables
from magmobo.components.magws.broadcasts import Broadcast, Broadcasts, tell_nobody
from magmobo.components.magws.channels import Channel, Fanout, Subscriber
from magmobo.components.magws.clients import Clients
from magmobo.components.magws.config import MagWSConfig
from magmobo.components.magws.connection import Client, RefusedConnection
from magmobo.components.magws.errors import ProtocolError, SubscriptionRefused
from magmobo.components.magws.history import Histories
from magmobo.components.magws.hooks import RealtimeHooks
from magmobo.components.magws.leavers import Leavers
from magmobo.components.magws.positions import Positions
from magmobo.components.magws.protocol import frames, names
from magmobo.components.magws.protocol.closing import CLIENT_EVENT_REFUSED, CloseCode
from magmobo.components.magws.protocol.messages import ClientEvent, Hello, Subscribe, Unsubscribe
from magmobo.components.magws.protocol.session import Action, Liveness, Session
from magmobo.components.magws.published import TableBook
from magmobo.components.magws.questions import Questions
from magmobo.components.magws.registry import Registry
from magmobo.components.magws.rights import check_right
from magmobo.components.magws.tablefeed import TableFeed
from magmobo.components.magws.traffic import Traffic
from magmobo.components.magws.verdicts import Told
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.hooks import ChannelContext, Hooks
from magmobo.contracts.planes import Changes
from magmobo.contracts.websocket import Upgrade, WebSocketSession

LIVENESS_EVERY_S = 5.0


class Plane:
    """Everything between the public port and the change stream. `hide` takes secrets of the node out of errors."""

    def __init__(
        self,
        config: MagWSConfig,
        changes: Changes,
        book: TableBook,
        bus: Bus,
        hooks: Hooks,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        hide: Callable[[str], str] = str,
    ) -> None:
        self._config, self._clock, self._hide = config, clock, hide
        self.clients = Clients(config)
        self._checked_s = 0.0
        self.leavers = Leavers(clock)
        self._fanout = Fanout(config.send_buffer_bytes, self._slow)
        self._histories = Histories(
            max_messages=config.history_messages, max_bytes=config.history_bytes, max_age_s=config.history_s
        )
        self.registry = Registry(self._histories, idle_s=config.history_s)
        self._positions = Positions(self._fanout, self._stand)
        self.traffic = Traffic(bus, self._positions.moved)
        self._hooks = RealtimeHooks(hooks)
        self._questions = Questions(self._hooks, log)
        self.broadcasts = Broadcasts(self._hooks.before_broadcast, self._send, self._max_data_bytes, log)
        self.feed = TableFeed(
            changes,
            book,
            self.registry,
            self._fanout,
            self.leavers,
            self.traffic,
            clock,
            log,
            send_buffer_bytes=config.send_buffer_bytes,
            row_limits=_row_limits(config),
        )

    def adopt(self, config: MagWSConfig) -> None:
        """Go on with these apps and limits. Who is connected stays, but for clients of an app that is gone: they are
        told at a pace that nobody knows their key any more.
        """
        self._config = config
        self._fanout.adjust(config.send_buffer_bytes)
        self._histories.adjust(
            max_messages=config.history_messages, max_bytes=config.history_bytes, max_age_s=config.history_s
        )
        self.registry.adjust(idle_s=config.history_s)
        self.feed.adjust(send_buffer_bytes=config.send_buffer_bytes, row_limits=_row_limits(config))
        for client in self.clients.adopt(config):
            self.leavers.add(client, CloseCode.UNKNOWN_APP, "the app was removed")

    # ------------------------------------------------------------ connections

    def open(self, upgrade: Upgrade) -> WebSocketSession:
        """The session of one new connection; one that closes at once when it is not wanted."""
        try:
            app = self.clients.app_for(upgrade)
        except ProtocolError as error:
            self.traffic.refused += 1
            return RefusedConnection(error)
        socket_id, limits = self.clients.new_socket_id(app.id), self.clients.limits[app.id]
        session = Session(socket_id, limits, now_s=self._clock.monotonic_s(), hide=self._hide)
        return Client(self, app, socket_id, session, self._clock)

    def opened(self, client: Client) -> None:
        self.clients.add(client)
        self.traffic.connected(client.socket_id, client.app.id)

    def closed(self, client: Client, code: int) -> None:
        self.clients.remove(client)
        self.leavers.drop(client)
        self._questions.drop(client)
        for name in list(client.session.channels):
            self._leave(client, name)
        duration_s = self._clock.monotonic_s() - client.opened_s
        self.traffic.disconnected(client.socket_id, client.app.id, code, duration_s)

    def leaving(self, client: Client) -> None:
        self.leavers.add(client, CloseCode.RECONNECT, "the server restarts: reconnect")

    def close_all(self) -> None:
        """Refuse new connections, and ask everybody to come back, at a pace."""
        self.clients.closing = True
        for client in self.clients:
            self.leaving(client)

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for client in self.clients:
            client.connection.abort()

    async def forget_waiting(self) -> None:
        """Ask extensions nothing more; what waits for their answers is lost."""
        await self._questions.close()
        await self.broadcasts.close()

    def __len__(self) -> int:
        return len(self.clients)

    # ------------------------------------------------------------ what clients ask

    def act(self, client: Client, action: Action) -> None:
        match action:
            case Subscribe():
                try:
                    self._subscribe(client, action)
                except SubscriptionRefused as refusal:
                    client.refuse(refusal)
            case Unsubscribe():
                self._leave(client, action.channel)
            case ClientEvent():
                self._relay(client, action)
            case Hello():
                self._greet(client)

    def broadcast(self, message: Broadcast, told: Told = tell_nobody) -> None:
        """Send one message to everybody on an ordinary channel, as extensions let it go; `told` hears if it did."""
        if self.registry.find(message.app_id, message.channel) is not None:
            self.broadcasts.put(message, told)
        else:
            told(None)

    def publish(self, app_id: str, name: str, frame: bytes, exclude: str = "") -> None:
        """Send one frame to everybody on an ordinary channel but the excluded socket."""
        channel = self.registry.find(app_id, name)
        if channel is None:
            return
        if channel.log is not None:
            self._histories.record(channel.log, frame, exclude, self._clock.monotonic_s())
        self._fanout.publish(channel, frame, exclude=exclude)
        self.traffic.published(channel)

    def tick(self, now_s: float) -> None:
        """Once a second: positions; every few seconds: silent clients and what is too old."""
        self._positions.tick(now_s, self.registry)
        if now_s - self._checked_s < LIVENESS_EVERY_S:
            return
        self._checked_s = now_s
        self.feed.stand()  # a storage plane that came back with another history may not have told anybody
        self.registry.expire(now_s)
        for client in self.clients:
            if client.check_liveness(now_s) is Liveness.DEAD:
                client.close(CloseCode.NO_PONG, "no pong: the client was silent too long")

    @property
    def deliveries(self) -> int:
        """Messages sent to members since the start."""
        return self._fanout.deliveries

    # ------------------------------------------------------------ inside

    def _subscribe(self, client: Client, wish: Subscribe) -> None:
        name = wish.channel
        if (is_on := self._asked_before(client, name)) is not None:
            if is_on:
                client.connection.send_frames(frames.subscription_succeeded(name))
            return
        check_right(client, wish)
        if self._hooks.subscribe.chain is None and self._hooks.register.chain is None:
            self._admit(client, name)
        else:
            self._ask(client, wish)

    def _ask(self, client: Client, wish: Subscribe) -> None:
        """Let extensions say whether the client may have a channel that we would give it."""
        name = wish.channel
        if names.is_table_channel(name):
            self.feed.admit(client, name, tables.parse(name))
        channel = self.registry.find(client.app.id, name)
        is_first = channel is None or not channel.members
        if self._hooks.subscribe.chain is None and not is_first:
            self._admit(client, name)
            return

        def decided(refusal: SubscriptionRefused | None) -> None:
            try:
                if refusal is not None:
                    raise refusal
                check_right(client, wish)  # the app's secret may be another one by now
                self._admit(client, name)
            except SubscriptionRefused as reason:
                client.refuse(reason)

        self._questions.ask(client, name, is_first=is_first, decided=decided)

    def _admit(self, client: Client, name: str) -> None:
        if names.is_table_channel(name):
            self.feed.subscribe(client, name, tables.parse(name))
        else:
            client.connection.send_frames(frames.subscription_succeeded(name))
            self._bring_up_to_date(client, name)
            self.registry.join(client.app.id, name, client)
            self.traffic.subscribed(client.socket_id, name)

    def _asked_before(self, client: Client, name: str) -> bool | None:
        """Whether a client that asks again is subscribed already; None when it asks for the first time."""
        if names.is_table_channel(name):
            return self.feed.asked_before(client, name)
        channel = self.registry.find(client.app.id, name)
        return True if channel is not None and client in channel.members else None

    def _bring_up_to_date(self, client: Client, name: str) -> None:
        """Give a client that said hello what it missed on an ordinary channel, or a gap; and where the channel is."""
        if not client.hello:
            return
        entry = client.session.take_resume(name)
        channel = self.registry.join(client.app.id, name, client)
        self._fanout.flush(channel)
        log = self.registry.remember(channel)
        if entry is None:
            client.connection.send_frames(frames.position(name, log.epoch, log.position))
            return
        missed = log.missed(entry)
        if not isinstance(missed, str):
            page = b"".join([kept.frame for kept in missed])
            if len(page) <= self._config.send_buffer_bytes:
                client.connection.send_frames(page + frames.resumed(name, log.epoch, log.position))
                return
            missed = "too_old"
        told = frames.gap(name, entry.serial, log.position, missed, None)
        client.connection.send_frames(told + frames.position(name, log.epoch, log.position))
        self.traffic.gap(name, entry.serial, log.position, missed)

    def _leave(self, client: Client, name: str) -> None:
        client.session.left(name)
        if names.is_table_channel(name):
            was_on = self.feed.leave(client, name)
        else:
            channel = self.registry.find(client.app.id, name)
            was_on = channel is not None and self.registry.leave(channel, client, self._clock.monotonic_s())
        if not was_on:
            return
        self.traffic.unsubscribed(client.socket_id, name)
        if (chain := self._hooks.unsubscribe.chain) is not None:
            chain.after(ChannelContext(app=client.app.id, channel=name, connection_id=client.socket_id))

    def _relay(self, client: Client, event: ClientEvent) -> None:
        data = event.data.decode()
        message = Broadcast(client.app.id, event.channel, event.event, data, client.socket_id, "client")
        self.broadcast(message, partial(self._relayed, client))

    def _relayed(self, client: Client, error: MagError | None) -> None:
        """Tell a client that its event did not go out, if it is still there."""
        if error is not None and self.clients.has(client):
            client.connection.send_frames(frames.error(CLIENT_EVENT_REFUSED, self._hide(str(error))))

    def _send(self, message: Broadcast) -> None:
        """Send one message now, and tell who wants to know."""
        channel = self.registry.find(message.app_id, message.channel)
        if channel is None:
            return
        self.publish(message.app_id, message.channel, message.frame(), message.exclude)
        self.traffic.sent(channel, message.event)
        if (chain := self._hooks.after_broadcast.chain) is not None:
            chain.after(message.context())

    def _max_data_bytes(self, app_id: str) -> int:
        limits = self.clients.limits.get(app_id)
        return 0 if limits is None else limits.max_event_bytes

    def _greet(self, client: Client) -> None:
        """A client said hello: channels it is on already begin to tell it where they stand."""
        for name in list(client.session.channels):
            if names.is_table_channel(name):
                self.feed.resume_again(client, name)
            elif self.registry.find(client.app.id, name) is not None:
                self._bring_up_to_date(client, name)

    def _stand(self, channel: Channel) -> tuple[str, str] | None:
        if channel.table is not None:
            return self.feed.stand()
        return None if channel.log is None else (channel.log.epoch, channel.log.position)

    def _slow(self, channel: Channel, member: Subscriber, position: str) -> None:
        """A member has too much unsent: on a table it gets history at its own pace; else it is asked to come back."""
        self.traffic.slow += 1
        if not isinstance(member, Client):
            return
        if channel.table is not None:
            self.feed.fell_behind(channel, channel.table, member, position)
        else:
            member.close(CloseCode.OVER_CAPACITY, "too slow: unsent messages exceed the buffer")


def _row_limits(config: MagWSConfig) -> dict[str, int]:
    return {app.id: app.max_row_bytes for app in config.apps}
