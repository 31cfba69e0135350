"""The seam between the one public port and those who speak over WebSockets.

The listener owns sockets and RFC 6455; an application (MagWS) sees whole text messages and sends ready-made frames. A
frame
from a server is not masked, so one built by `text_frame` serves every recipient.
Source: RFC 6455 section 5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct


def text_frame(payload: bytes) -> bytes:
    """One unfragmented, unmasked text frame holding `payload` (UTF-8)."""
    size_bytes = len(payload)
    if size_bytes < 126:
        return bytes((0x81, size_bytes)) + payload
    if size_bytes < 65_536:
        return struct.pack("!BBH", 0x81, 126, size_bytes) + payload
    return struct.pack("!BBQ", 0x81, 127, size_bytes) + payload


class Upgrade(Struct, frozen=True):
    """The HTTP request that asked for a WebSocket. `path` is percent-decoded, header names are lower case,
    `client` is the peer's address.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str


class WebSocketConnection(Protocol):
    """One open WebSocket, as the application sees it. All calls are non-blocking and safe after it closed."""

    def send_frames(self, frames: bytes) -> None:
        """Send one or more complete frames joined together. Order is kept across all sends on this connection."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """Bytes accepted but not yet taken by the kernel's socket buffer: how slow this client is."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, then end; the peer has a few seconds to answer. `on_close` follows once."""
        ...

    def abort(self) -> None:
        """Drop the connection at once."""
        ...


class WebSocketSession(Protocol):
    """The application's side of one connection."""

    def on_open(self, connection: WebSocketConnection) -> None:
        """The handshake is done; frames may be sent."""
        ...

    def on_text(self, payload: bytes) -> None:
        """One whole text message. It may be any bytes: UTF-8 and JSON are the application's to check."""
        ...

    def on_close(self, code: int) -> None:
        """The connection ended with this close code (1006 when there was none). Called exactly once after `on_open`."""
        ...

    def on_server_shutdown(self) -> None:
        """The port is about to close: begin to close politely."""
        ...


WebSocketFactory = Callable[[Upgrade], WebSocketSession]
