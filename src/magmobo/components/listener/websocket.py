"""One open WebSocket: moves frames between a socket and an application's session.

Boundary: framing is `codec`, the handshake is `handshake`, what messages mean is the application's. This module owns
the order of bytes, the end of the connection and its deadlines.
Invariant: `on_close` is called once, from `connection_lost`, and only after `on_open`.

Sending goes straight to the descriptor while the transport holds no byte of ours: a broadcast then costs one system
call per socket and nothing else. `_queued` says that the transport may hold bytes; every write of this class goes
through `_write`, so the two ways never overtake each other. The descriptor is forgotten in `connection_lost` at the
latest, which both event loops call before they close it, so a reused number is never written to.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from magmobo.components.listener.codec import (
    ABNORMAL,
    BINARY,
    CLOSE,
    INTERNAL_ERROR,
    PING,
    PONG,
    TEXT,
    UNSUPPORTED_DATA,
    FrameDecoder,
    ProtocolViolation,
    close_code_of,
    close_frame,
    control_frame,
)
from magmobo.components.listener.connections import Connections
from magmobo.contracts.websocket import WebSocketConnection, WebSocketSession

# States. Plain integers: the send path of every broadcast compares one, and an enum member costs as much as the rest.
_OPEN = 1
_CLOSING = 2  # our close frame is out, the peer's is awaited
_ENDED = 3  # nothing more is read or sent; the transport may still flush


class _NoSession:
    """Stands in once the connection is gone, so that connection and session do not keep each other alive."""

    def on_open(self, connection: WebSocketConnection) -> None: ...
    def on_text(self, payload: bytes) -> None: ...
    def on_close(self, code: int) -> None: ...
    def on_server_shutdown(self) -> None: ...


_NO_SESSION = _NoSession()


class WebSocketProtocol(asyncio.Protocol):
    """The asyncio protocol that takes over a transport after the handshake; it is the `WebSocketConnection`."""

    __slots__ = (
        "_close_code",
        "_connections",
        "_decoder",
        "_fd",
        "_log",
        "_queued",
        "_session",
        "_state",
        "_transport",
    )

    def __init__(
        self,
        session: WebSocketSession,
        transport: asyncio.Transport,
        *,
        connections: Connections,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._session, self._transport = session, transport
        self._connections, self._log = connections, log
        self._decoder = FrameDecoder(connections.config.max_message_bytes)
        self._state = _OPEN
        self._close_code = 0
        self._queued = False
        # Behind TLS the descriptor carries ciphertext: only the transport may write to it.
        encrypted = transport.get_extra_info("sslcontext") is not None
        self._fd = -1 if encrypted else transport.get_extra_info("socket").fileno()

    def begin(self, handshake_response: bytes, early_bytes: bytes) -> None:
        """Answer the handshake, open the session, then take the frames that came along with the request."""
        self._connections.websockets.add(self)
        self._queue(handshake_response)
        try:
            self._session.on_open(self)
        except Exception:
            self._session_failed("on_open")
        if early_bytes:
            self.data_received(early_bytes)

    # ------------------------------------------------------------ what the application calls

    def send_frames(self, frames: bytes) -> None:
        """Send complete frames; dropped silently once the connection is closing."""
        if self._state == _OPEN:
            self._write(frames)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel's socket buffer had no room for yet."""
        return self._transport.get_write_buffer_size() if self._queued else 0

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame; the peer has `close_timeout_s` to answer, then the connection is dropped."""
        if self._state != _OPEN:
            return
        self._write(close_frame(code, reason))
        if self._state == _OPEN:  # the write itself may have found the peer gone
            self._state, self._close_code = _CLOSING, code
            self._connections.deadlines.set(self, self._connections.config.close_timeout_s)

    def abort(self) -> None:
        """Drop the connection; `on_close` follows in a later loop turn."""
        self._state, self._fd = _ENDED, -1
        self._transport.abort()

    # ------------------------------------------------------------ what the event loop calls

    def data_received(self, data: bytes) -> None:
        if self._state == _ENDED:
            return None
        try:
            for opcode, payload in self._decoder.receive(data):
                if opcode == TEXT:
                    if self._state == _OPEN:
                        self._session.on_text(payload)
                elif opcode == PING:
                    if self._state == _OPEN:
                        self._write(control_frame(PONG, payload))
                elif opcode == CLOSE:
                    return self._peer_closes(payload)
                elif opcode == BINARY:
                    return self._fail(UNSUPPORTED_DATA, "only text messages are served here")
                if self._state == _ENDED:
                    return None
        except ProtocolViolation as violation:
            self._fail(violation.close_code, violation.reason)
        except Exception:
            self._session_failed("on_text")
        return None

    def eof_received(self) -> None:
        """The peer sends no more; the transport closes itself after flushing, for which it has a deadline."""
        self._state = _ENDED
        self._connections.deadlines.set(self, self._connections.config.close_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state, self._fd, self._queued = _ENDED, -1, False
        session, self._session = self._session, _NO_SESSION
        self._connections.deadlines.clear(self)
        self._connections.websockets.discard(self)
        try:
            session.on_close(self._close_code or ABNORMAL)
        except Exception:
            self._log.exception("websocket_session_failed", hook="on_close")
        self._connections.moved()

    # ------------------------------------------------------------ what the port calls

    def on_deadline(self) -> None:
        """The peer did not answer our close, or does not take the last bytes."""
        self.abort()

    def server_shutdown(self) -> None:
        """Tell the session that the port is about to close."""
        try:
            self._session.on_server_shutdown()
        except Exception:
            self._session_failed("on_server_shutdown")

    # ------------------------------------------------------------ inside

    def _write(self, frames: bytes) -> None:
        if self._queued and not self._transport.get_write_buffer_size():
            self._queued = False
        if self._queued or self._fd < 0:
            return self._queue(frames)
        try:
            sent_bytes = os.write(self._fd, frames)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:  # the peer is gone; what it did not read cannot be delivered
            return self.abort()
        if sent_bytes < len(frames):
            self._queue(frames[sent_bytes:])
        return None

    def _queue(self, frames: bytes) -> None:
        self._transport.write(frames)
        self._queued = True
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes > self._connections.config.max_unsent_bytes:
            self._log.warning("websocket_client_too_slow", unsent_bytes=unsent_bytes)
            self.abort()

    def _peer_closes(self, payload: bytes) -> None:
        code = close_code_of(payload)
        if self._state == _OPEN:
            self._write(close_frame(code))
            self._close_code = code
        if self._state != _ENDED:
            self._state = _ENDED
            self._connections.deadlines.set(self, self._connections.config.close_timeout_s)
            self._transport.close()

    def _fail(self, code: int, reason: str) -> None:
        """Close because the peer, or our side, broke the rules.

        Only our half is closed at once: to close a socket with unread bytes resets it, and the peer would lose the
        close frame that tells it why.
        """
        self.close(code, reason)
        if self._state == _CLOSING:
            self._state = _ENDED
            self._transport.write_eof()

    def _session_failed(self, hook: str) -> None:
        self._log.exception("websocket_session_failed", hook=hook)
        self._fail(INTERNAL_ERROR, "the server failed")
