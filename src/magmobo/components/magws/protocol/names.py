"""Channel names: which are well formed, what kind they are, which belong to the node alone.

Source: pusher-js and Pusher's server libraries, which all use the class `[-A-Za-z0-9_=@,.;]` and 200 characters. Table
channels may be longer, because an escaped identifier takes up to three characters a byte.
"""

from __future__ import annotations

import re
from enum import Enum

from magmobo.components.magws.errors import BadChannelName

MAX_NAME, MAX_TABLE_NAME = 200, 1024
_ALLOWED = re.compile(r"[-A-Za-z0-9_=@,.;]+\Z")
_SOCKET_ID = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}\Z")
_UNSUPPORTED = ("presence-", "cache-", "private-cache-")
PRIVATE = "private-"


class Kind(Enum):
    """What a subscription to a channel asks for."""

    PUBLIC = "public"
    PRIVATE = "private"
    UNSUPPORTED = "unsupported"


def kind_of(channel: str) -> Kind:
    """The kind of a channel.

    Raises: BadChannelName when the name is not one a Pusher client could subscribe to.
    """
    limit = MAX_TABLE_NAME if is_table_channel(channel) else MAX_NAME
    if len(channel) > limit or not _ALLOWED.match(channel):
        raise BadChannelName(channel, "the channel name is empty, too long or holds a forbidden character")
    if channel.startswith(_UNSUPPORTED):
        return Kind.UNSUPPORTED
    return Kind.PRIVATE if channel.startswith(PRIVATE) else Kind.PUBLIC


def is_table_channel(channel: str) -> bool:
    """Whether the name belongs to a table, well formed or not."""
    return channel.removeprefix(PRIVATE).startswith("db.")


def is_reserved(channel: str) -> bool:
    """Whether only the node itself may publish on this channel."""
    return is_table_channel(channel) or channel.removeprefix(PRIVATE).startswith("mag.")


def is_reserved_event(event: str) -> bool:
    """Whether the event name belongs to the protocol, so that no publisher may use it."""
    return event.startswith(("pusher:", "pusher_internal:", "mag:"))


def is_socket_id(text: str) -> bool:
    """Whether the text has the shape `n.n` of a socket id."""
    return _SOCKET_ID.match(text) is not None
