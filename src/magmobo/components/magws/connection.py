"""One connection: moves messages between the port's WebSocket and a `Session`, and asks the plane to act.

No rule of the protocol belongs here, and no knowledge of other connections.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from magmobo.components.magws.config import AppConfig
from magmobo.components.magws.errors import ProtocolError, SubscriptionRefused
from magmobo.components.magws.protocol import frames
from magmobo.components.magws.protocol.closing import CloseCode
from magmobo.components.magws.protocol.session import Action, Limits, Liveness, Session
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.websocket import WebSocketConnection

MAX_HELD = 1_000
MAX_HELD_BYTES = 262_144


class Owner(Protocol):
    """Who a client reports to."""

    def opened(self, client: Client) -> None:
        """The handshake is done."""
        ...

    def act(self, client: Client, action: Action) -> None:
        """The client asks for something its session allows."""
        ...

    def closed(self, client: Client, code: int) -> None:
        """The connection is gone."""
        ...

    def leaving(self, client: Client) -> None:
        """The port wants the connection to end soon."""
        ...


class Backlog:
    """Messages of a client that wait behind a question about an earlier one. `held`: the question is open."""

    __slots__ = ("held", "messages", "size_bytes")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.size_bytes = 0
        self.held = True

    def add(self, payload: bytes) -> bool:
        """Keep one more message; False when there are too many."""
        self.messages.append(payload)
        self.size_bytes += len(payload)
        return len(self.messages) <= MAX_HELD and self.size_bytes <= MAX_HELD_BYTES

    def pop(self) -> bytes:
        """The oldest message."""
        payload = self.messages.popleft()
        self.size_bytes -= len(payload)
        return payload


class Client:
    """One accepted connection of one app."""

    __slots__ = ("_backlog", "_clock", "_owner", "app", "connection", "opened_s", "session", "socket_id")

    connection: WebSocketConnection

    def __init__(self, owner: Owner, app: AppConfig, socket_id: str, session: Session, clock: Clock) -> None:
        self._owner, self._clock = owner, clock
        self.app, self.socket_id, self.session = app, socket_id, session
        self.opened_s = clock.monotonic_s()
        self._backlog: Backlog | None = None

    @property
    def hello(self) -> bool:
        """Whether the client understands positions and gaps."""
        return self.session.hello

    def adopt(self, app: AppConfig, limits: Limits) -> None:
        """The app has other settings: signatures made with a former secret admit to nothing more."""
        self.app = app
        self.session.adjust(limits)

    def on_open(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self._owner.opened(self)
        self.send_replies()

    def on_text(self, payload: bytes) -> None:
        if self._backlog is None:
            self._take(payload)
        elif not self._backlog.add(payload):
            self.close(CloseCode.OVER_CAPACITY, "too many messages while a subscription is being decided")

    def hold(self) -> None:
        """Keep what the client sends from now on until `release`."""
        if self._backlog is None:
            self._backlog = Backlog()
        self._backlog.held = True

    def release(self) -> None:
        """Take what was kept, in order, up to the message that asks to hold again."""
        backlog = self._backlog
        if backlog is None:  # closed meanwhile
            return
        backlog.held = False
        while backlog.messages and not backlog.held:
            self._take(backlog.pop())
        if not backlog.held:
            self._backlog = None

    def _take(self, payload: bytes) -> None:
        try:
            action = self.session.receive(payload, self._clock.monotonic_s())
        except ProtocolError as error:
            self.close(error.close_code, f"{error} [{error.code}]")
            return
        self.send_replies()
        if action is not None:
            self._owner.act(self, action)

    def on_close(self, code: int) -> None:
        self._owner.closed(self, code)

    def on_server_shutdown(self) -> None:
        self._owner.leaving(self)

    def send_replies(self) -> None:
        """Send what the session has to say."""
        if replies := self.session.outgoing():
            self.connection.send_frames(replies)

    def refuse(self, refusal: SubscriptionRefused, reason: MagError | None = None) -> None:
        """Tell the client that a channel is not, or no longer, its."""
        self.session.refused(refusal, reason)
        self.send_replies()

    def check_liveness(self, now_s: float) -> Liveness:
        """Ping after silence; the caller closes the dead."""
        liveness = self.session.liveness(now_s)
        self.send_replies()
        return liveness

    def close(self, code: int, reason: str) -> None:
        """Say why, then end. The error frame reaches libraries that do not show close codes."""
        if self._backlog is not None:
            self._backlog.messages.clear()
        self.connection.send_frames(frames.error(code, reason))
        self.connection.close(code, reason.encode()[:123].decode(errors="ignore"))


class RefusedConnection:
    """A connection that is told why it is not wanted, and closed."""

    def __init__(self, error: ProtocolError) -> None:
        self._error = error

    def on_open(self, connection: WebSocketConnection) -> None:
        error = self._error
        connection.send_frames(frames.error(error.close_code, f"{error} [{error.code}] {error.next_step()}"))
        connection.close(error.close_code, f"{error} [{error.code}]")

    def on_text(self, payload: bytes) -> None:
        """Too late."""

    def on_close(self, code: int) -> None:
        """Nothing was registered."""

    def on_server_shutdown(self) -> None:
        """It is closing already."""
