"""A WebSocket that lives in memory, for tests of applications that speak through `contracts.websocket`.

It keeps every frame it was given, in order. `take_bytes` is how much the imagined peer accepts; what is beyond counts
as unsent until `drain` is called, so a slow client is one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from msgspec import json

from magmobo.contracts.websocket import Upgrade, WebSocketFactory, WebSocketSession


class MemoryConnection:
    """Implements `WebSocketConnection`; `open` plays the client's side of the handshake."""

    def __init__(self, *, take_bytes: int | None = None) -> None:
        self.session: WebSocketSession | None = None
        self.received = bytearray()
        self.closed_with: int | None = None
        self.take_bytes = take_bytes
        self._unsent_bytes = 0
        self._read = 0

    def open(self, factory: WebSocketFactory, path: str, query: dict[str, str]) -> MemoryConnection:
        """Connect to the application."""
        self.session = factory(Upgrade(path, query, {}, "127.0.0.1"))
        self.session.on_open(self)
        return self

    # ------------------------------------------------------------ the application's side

    def send_frames(self, frames: bytes) -> None:
        if self.closed_with is not None:
            return
        self.received += frames
        if self.take_bytes is not None:
            taken = min(self.take_bytes, len(frames))
            self.take_bytes -= taken
            self._unsent_bytes += len(frames) - taken

    @property
    def unsent_bytes(self) -> int:
        return self._unsent_bytes

    def close(self, code: int, reason: str = "") -> None:
        if self.closed_with is None:
            self._end(code)

    def abort(self) -> None:
        if self.closed_with is None:
            self._end(1006)

    def _end(self, code: int) -> None:
        self.closed_with, self._unsent_bytes = code, 0
        if self.session is not None:
            self.session.on_close(code)

    # ------------------------------------------------------------ the client's side

    def send(self, message: dict[str, Any] | bytes) -> None:
        """Send one text message, an object or raw bytes."""
        if self.session is not None and self.closed_with is None:
            self.session.on_text(message if isinstance(message, bytes) else json.encode(message))

    def leave(self, code: int = 1001) -> None:
        """The client goes away."""
        if self.closed_with is None:
            self._end(code)

    def drain(self) -> None:
        """The client reads everything."""
        self._unsent_bytes = 0

    def read(self) -> list[dict[str, Any]]:
        """Messages since the last call, decoded; `data` that is a JSON string is decoded too where it can be."""
        return list(self._messages())

    def _messages(self) -> Iterator[dict[str, Any]]:
        while self._read < len(self.received):
            size_bytes, head = self.received[self._read + 1], 2
            if size_bytes > 125:
                head = 4 if size_bytes == 126 else 10
                size_bytes = int.from_bytes(self.received[self._read + 2 : self._read + head], "big")
            start = self._read + head
            message: dict[str, Any] = json.decode(bytes(self.received[start : start + size_bytes]))
            self._read = start + size_bytes
            if isinstance(message.get("data"), str):
                with suppress(ValueError, RecursionError):  # plain text is data too
                    message["data"] = json.decode(message["data"])
            yield message
