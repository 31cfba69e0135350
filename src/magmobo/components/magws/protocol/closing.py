"""Close codes of the Pusher protocol, as data.

The range is an order to the client: 4000-4099 stay away, 4100-4199 come back later, 4200-4299 come back now.
4300-4399 never close: they are the `code` of a `pusher:error` about one request.
Source: Pusher Channels protocol 7, "Connection closure"; pusher-js `protocol.ts` `getCloseAction`.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Codes this server sends."""

    UNKNOWN_APP = 4001
    OVER_QUOTA = 4004
    NO_SUCH_PATH = 4005
    BAD_VERSION_FORMAT = 4006
    UNSUPPORTED_VERSION = 4007
    NO_VERSION = 4008
    OVER_CAPACITY = 4100
    RECONNECT = 4200
    NO_PONG = 4201


CLIENT_EVENT_REFUSED = 4301
NOT_SUPPORTED = 4303


def client_action(code: int) -> str:
    """What a client does with this close code: `stay_away`, `back_off`, `reconnect`, or `none` outside the ranges."""
    for low, action in ((4000, "stay_away"), (4100, "back_off"), (4200, "reconnect")):
        if low <= code < low + 100:
            return action
    return "none"
