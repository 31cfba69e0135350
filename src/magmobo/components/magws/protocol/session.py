"""One client's Pusher session: text messages in, actions and replies out. No I/O.

It never awaits, logs, opens anything or reads a clock, so the server, the conformance suite and the benchmark run the
same code. Invariant: when `receive` raises, the session is as it was before the call.
Source: Pusher Channels protocol 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct

from magmobo.components.magws.errors import SubscriptionRefused, TooManyChannels
from magmobo.components.magws.protocol import frames, names
from magmobo.components.magws.protocol.closing import CLIENT_EVENT_REFUSED, NOT_SUPPORTED
from magmobo.components.magws.protocol.messages import (
    MAX_RESUME,
    ClientEvent,
    Hello,
    Ping,
    Pong,
    ResumeEntry,
    Signin,
    Subscribe,
    Unsubscribe,
    parse,
)
from magmobo.contracts.errors import MagError

PONG_TIMEOUT_S = 30.0
Action = Subscribe | Unsubscribe | ClientEvent | Hello


class Limits(Struct, frozen=True):
    """What one connection may do."""

    activity_timeout_s: int = 120
    max_channels: int = 200
    client_events: bool = False
    client_events_per_s: int = 10
    max_event_bytes: int = 10_240


class Liveness(Enum):
    """What the silence of a client asks the server to do."""

    ALIVE = "alive"
    PING = "ping"
    DEAD = "dead"


class Session:
    """Rules of one connection. Feed `receive`, act on what it returns, send what `outgoing` gives.

    `hello` is whether the client understands positions and gaps. `channels` holds the channels asked for and not
    refused; the server says with `refused` and `left` when one goes. `hide` takes secrets out of the words of errors.
    """

    __slots__ = (
        "_hide", "_limits", "_outbox", "_pinged_s", "_resume", "_seen_s", "_tokens", "_tokens_s", "channels", "hello",
    )  # fmt: skip

    def __init__(self, socket_id: str, limits: Limits, *, now_s: float, hide: Callable[[str], str] = str) -> None:
        self._limits, self._hide = limits, hide
        self._outbox = frames.established(socket_id, limits.activity_timeout_s)
        self._seen_s = self._tokens_s = now_s
        self._pinged_s: float | None = None
        self._tokens = float(limits.client_events_per_s)
        self._resume: dict[str, ResumeEntry] = {}
        self.channels: set[str] = set()
        self.hello = False

    def receive(self, payload: bytes, now_s: float) -> Action | None:
        """Take one text message; return what the caller must act on, if anything.

        Raises: ProtocolError, whose `close_code` ends the connection.
        """
        message = parse(payload)
        self._seen_s, self._pinged_s = now_s, None
        match message:
            case Ping():
                self._outbox += frames.PONG
            case Pong():
                pass
            case Subscribe():
                return self._subscribe(message)
            case Unsubscribe():
                return message if message.channel in self.channels else None
            case ClientEvent():
                return self._client_event(message, now_s)
            case Hello():
                return self._hello(message)
            case Signin():
                self._outbox += frames.error(NOT_SUPPORTED, "signing in as a user is not offered here")
            case _:
                self._outbox += frames.error(NOT_SUPPORTED, self._hide(f"unknown event {message.event[:80]}"))
        return None

    def adjust(self, limits: Limits) -> None:
        """What the connection may do from now on; channels it is on above the limit stay."""
        self._limits = limits

    def outgoing(self) -> bytes:
        """Frames to send now, oldest first; each is given once."""
        replies, self._outbox = self._outbox, b""
        return replies

    def refused(self, refusal: SubscriptionRefused, reason: MagError | None = None) -> None:
        """The server did not admit a channel, or took it away; `reason` is the failure behind it, when there is one."""
        self.left(refusal.channel)
        code = refusal.code if reason is None else reason.code
        text = self._hide(f"{refusal} [{code}] {(reason or refusal).next_step()}")
        self._outbox += frames.subscription_error(refusal.channel, refusal.error_type, text, refusal.http_status, code)

    def left(self, channel: str) -> None:
        """The channel is not subscribed any more."""
        self.channels.discard(channel)
        self._resume.pop(channel, None)

    def take_resume(self, channel: str) -> ResumeEntry | None:
        """What the client last saw of the channel; given once."""
        return self._resume.pop(channel, None)

    def liveness(self, now_s: float) -> Liveness:
        """Whether to ping or to give up; asked every few seconds by the server's one ticker."""
        if self._pinged_s is not None:
            return Liveness.DEAD if now_s - self._pinged_s >= PONG_TIMEOUT_S else Liveness.ALIVE
        if now_s - self._seen_s < self._limits.activity_timeout_s:
            return Liveness.ALIVE
        self._pinged_s = now_s
        self._outbox += frames.PING
        return Liveness.PING

    def _subscribe(self, message: Subscribe) -> Subscribe | None:
        if message.channel not in self.channels and len(self.channels) >= self._limits.max_channels:
            limit = self._limits.max_channels
            self.refused(TooManyChannels(message.channel, f"a connection may have {limit} channels"))
            return None
        self.channels.add(message.channel)
        return message

    def _hello(self, message: Hello) -> Hello:
        self.hello = True
        self._keep(message.resume)
        return message

    def _keep(self, entries: Iterable[ResumeEntry]) -> None:
        for entry in entries:
            if len(self._resume) < MAX_RESUME or entry.channel in self._resume:
                self._resume[entry.channel] = entry

    def _client_event(self, message: ClientEvent, now_s: float) -> ClientEvent | None:
        reason = self._client_event_refusal(message, now_s)
        if reason is None:
            return message
        self._outbox += frames.error(CLIENT_EVENT_REFUSED, reason)
        return None

    def _client_event_refusal(self, message: ClientEvent, now_s: float) -> str | None:
        """Why the event is not relayed; None, and one token spent, when it is."""
        limits = self._limits
        if not limits.client_events:
            return "client events are not enabled for this app"
        if message.channel not in self.channels or not message.channel.startswith(names.PRIVATE):
            return "client events need a private channel this connection is subscribed to"
        if names.is_reserved(message.channel):
            return "only the node publishes on this channel"
        if len(message.event) > names.MAX_NAME or len(message.data) > limits.max_event_bytes:
            return f"a client event may hold {limits.max_event_bytes} bytes"
        rate = limits.client_events_per_s
        tokens = min(rate, self._tokens + (now_s - self._tokens_s) * rate)
        self._tokens_s = now_s
        if tokens < 1:
            self._tokens = tokens
            return f"more than {rate} client events a second"
        self._tokens = tokens - 1
        return None
