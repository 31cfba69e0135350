"""What the realtime plane refuses, and why.

MagError
├── ProtocolError            the connection ends with `close_code`, whose range tells the client what to do
│   ├── UnknownApp, UnsupportedProtocol, OverQuota, OverCapacity, NoSuchPath
├── SubscriptionRefused      the connection stays; the channel gets `pusher:subscription_error`
│   ├── Unauthorized, BadChannelName, UnsupportedChannel, TooManyChannels
│   ├── SubscriptionDenied, GuardSilent
│   └── TableNotPublished, TableAccessMismatch, TableWithdrawn, FilterRefused, ChangesNotReady
├── ApiRefused               one call of the HTTP API is answered with `http_status`
│   ├── BadSignature, BadRequest, TooLarge, ReservedChannel, NoSuchResource
│   ├── BroadcastDenied, BroadcastDropped, BroadcastUndecided
└── NoApp                    another component asked for an app and none is configured
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from magmobo.contracts.errors import MagError


class ProtocolError(MagError):
    """A client broke the Pusher protocol; its connection is closed with `close_code`.

    4000-4099 stay away, 4100-4199 come back later, 4200-4299 come back now.
    """

    code = "MAG-WS-001"
    http_status = 400
    remedy = "Send JSON objects as Pusher protocol 7 describes them; docs/realtime.md shows each frame."
    close_code: int = 4200

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class UnknownApp(ProtocolError):
    """The key in the address belongs to no configured app."""

    code = "MAG-WS-002"
    remedy = "Use the key that `mag up` prints, or add the app to magws.apps."
    close_code = 4001


class UnsupportedProtocol(ProtocolError):
    """The client asked for a protocol version that is missing, malformed or not spoken here."""

    code = "MAG-WS-003"
    remedy = "Connect with ?protocol=7; versions 5, 6 and 7 are accepted."

    def __init__(self, reason: str, close_code: int) -> None:
        super().__init__(reason)
        self.args = (reason, close_code)
        self.close_code = close_code


class OverQuota(ProtocolError):
    """The app has as many connections as it may have."""

    code = "MAG-WS-004"
    remedy = "Raise magws.apps[].max_connections, or close idle clients."
    close_code = 4004


class OverCapacity(ProtocolError):
    """The node has as many connections as it may have."""

    code = "MAG-WS-005"
    remedy = "Raise magws.max_connections, or add a node."
    close_code = 4100


class NoSuchPath(ProtocolError):
    """The WebSocket address is not `/app/<key>`."""

    code = "MAG-WS-006"
    remedy = "Connect to /app/<key>."
    close_code = 4005


class SubscriptionRefused(MagError):
    """A subscription was not admitted; the connection and its other channels stay."""

    code = "MAG-WS-010"
    error_type: ClassVar[str] = "SubscriptionError"
    http_status = 400
    remedy = "See docs/realtime.md for channel names and access."

    def __init__(self, channel: str, reason: str) -> None:
        super().__init__(channel, reason)
        self.channel, self.reason = channel, reason

    def __str__(self) -> str:
        return self.reason


class Unauthorized(SubscriptionRefused):
    """A private channel was asked for without a valid signature for this socket."""

    code = "MAG-WS-011"
    error_type = "AuthError"
    http_status = 401
    remedy = "Sign `socket_id:channel` with the app's secret (HMAC-SHA256) and send `key:hex` as `auth`."


class BadChannelName(SubscriptionRefused):
    """The channel's name holds a character that Pusher does not allow, is too long, or is not well formed."""

    code = "MAG-WS-012"
    remedy = "Use [-A-Za-z0-9_=@,.;] only; in table channels write every other byte as @hh."


class UnsupportedChannel(SubscriptionRefused):
    """The kind of channel (presence, cache) is not offered by this version."""

    code = "MAG-WS-013"
    http_status = 501
    remedy = "Use a public or a private channel."


class TooManyChannels(SubscriptionRefused):
    """The connection is subscribed to as many channels as one connection may be."""

    code = "MAG-WS-014"
    http_status = 429
    remedy = "Unsubscribe from channels, open another connection, or raise magws.max_channels."


class TableNotPublished(SubscriptionRefused):
    """The table is not listed in magws.tables, does not exist, or cannot be published."""

    code = "MAG-WS-015"
    http_status = 404
    remedy = "List the table in magws.tables; `mag status` shows why a listed table is not published."


class TableAccessMismatch(SubscriptionRefused):
    """A private table was asked for through its public channel name, or the other way round."""

    code = "MAG-WS-016"
    http_status = 403
    remedy = "Use the name with `private-` for private tables and without it for public ones."


class FilterRefused(SubscriptionRefused):
    """The filter names a column that does not exist, or whose old value the change stream does not carry."""

    code = "MAG-WS-017"
    remedy = "Filter on a key column, or give the table REPLICA IDENTITY FULL."


class TableWithdrawn(SubscriptionRefused):
    """The table left the change stream while clients were subscribed, for instance because row level security was
    switched on.
    """

    code = "MAG-WS-018"
    http_status = 410
    remedy = 'Set `rls = "ignore"` on the table in magws.tables to publish every row regardless of policies.'


class ChangesNotReady(SubscriptionRefused):
    """The change stream cannot be followed now, so no table subscription can be acknowledged."""

    code = "MAG-WS-019"
    http_status = 503
    remedy = "`mag doctor` says what the database lacks; subscribe again once it is fixed."


class SubscriptionDenied(SubscriptionRefused):
    """An extension that guards channels does not let this client have the channel."""

    code = "MAG-WS-020"
    error_type = "AuthError"
    http_status = 403
    remedy = "The named extension says why; `mag extension:show ID` shows what it guards."


class GuardSilent(SubscriptionRefused):
    """An extension that must allow the subscription does not answer, so nobody is admitted."""

    code = "MAG-WS-021"
    http_status = 503
    remedy = "Subscribe again in a moment; `mag extension:list` shows how the extension is."


class ApiRefused(MagError):
    """One call of the HTTP API was refused and changed nothing."""

    code = "MAG-WS-030"
    http_status = 400
    remedy = "Compare the call with docs/realtime.md."

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class BadSignature(ApiRefused):
    """The call is not signed by the app, is too old, or was made before."""

    code = "MAG-WS-031"
    http_status = 401
    remedy = "Sign with the app's key and secret; the caller's clock must be right to ten minutes."


class BadRequest(ApiRefused):
    """The call is signed, and its body or query is not what the API takes."""

    code = "MAG-WS-032"
    http_status = 400


class TooLarge(ApiRefused):
    """The body or the data of an event is larger than the app allows."""

    code = "MAG-WS-033"
    http_status = 413
    remedy = "Send less, or raise magws.apps[].max_event_bytes."


class ReservedChannel(ApiRefused):
    """Only the node itself may publish on table channels and reserved names; a forged change must be impossible."""

    code = "MAG-WS-034"
    http_status = 403
    remedy = "Publish on a channel of your own; change the table to publish on its channel."


class NoSuchResource(ApiRefused):
    """The path or method is not part of the HTTP API."""

    code = "MAG-WS-035"
    http_status = 404
    remedy = "Offered: POST events, batch_events; GET channels, channels/<name>."


class BroadcastDenied(ApiRefused):
    """An extension that guards messages did not let an event out on some of its channels; it went out on the others.

    `refused`: channel -> why; `retry_s`: for so long, 0 where the extension did not say.
    """

    code = "MAG-WS-036"
    http_status = 403
    remedy = "The named extension says why; `mag extension:show ID` shows what it guards and who approved that."

    def __init__(self, refused: Mapping[str, str], retry_s: float = 0.0) -> None:
        super().__init__("; ".join(f"{channel}: {reason}" for channel, reason in refused.items()))
        self.args = (refused, retry_s)
        self.refused, self.retry_s = refused, retry_s


class BroadcastDropped(ApiRefused):
    """A message did not go out: too many wait for extensions that want to see them, or one of those failed."""

    code = "MAG-WS-037"
    http_status = 503
    retryable = True
    remedy = "Send it again in a moment; `mag extension:list` shows how the extensions are."


class BroadcastUndecided(ApiRefused):
    """Extensions that must be asked about a message have not answered yet; it goes out if they allow it."""

    code = "MAG-WS-038"
    http_status = 504
    remedy = "Do not send it again; `mag extension:list` shows which extension is slow."


class NoApp(MagError):
    """No realtime app is configured, so there is no key to connect with."""

    code = "MAG-WS-040"
    http_status = 503
    remedy = "Add an entry to magws.apps with id, key and secret; `mag up` generates one when the file is missing."

    def __str__(self) -> str:
        return "no realtime app is configured"
