"""Whether a client may have a channel, by the channel's name and the client's signature. No I/O."""

from __future__ import annotations

from magmobo.components.magws import signing
from magmobo.components.magws.connection import Client
from magmobo.components.magws.errors import Unauthorized, UnsupportedChannel
from magmobo.components.magws.protocol import names
from magmobo.components.magws.protocol.messages import Subscribe


def check_right(client: Client, wish: Subscribe) -> None:
    """Raises: BadChannelName, UnsupportedChannel; Unauthorized when a private channel is not signed for this socket."""
    name, app = wish.channel, client.app
    kind = names.kind_of(name)
    if kind is names.Kind.UNSUPPORTED:
        raise UnsupportedChannel(name, "presence and cache channels are not offered")
    if kind is names.Kind.PRIVATE:
        expected = signing.channel_auth(app.key, app.secret, client.socket_id, name, wish.channel_data)
        if not signing.same(wish.auth or "", expected):
            raise Unauthorized(name, "the signature does not admit this socket to this channel")
