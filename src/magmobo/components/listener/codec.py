"""RFC 6455 frames, the server's side: bytes in, events out. No I/O, no clock, no session rules.

Bounded by construction: a frame that announces more than fits is refused when its length is read, before any of its
payload is kept. Fed byte by byte or whole, the decoder gives the same events.
Source: RFC 6455 sections 5 (framing), 7.4 (close codes), 8.1 (UTF-8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

NORMAL, PROTOCOL_ERROR, UNSUPPORTED_DATA, NO_STATUS, ABNORMAL, INVALID_DATA = 1000, 1002, 1003, 1005, 1006, 1007
MESSAGE_TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART = 1009, 1011, 1012

# What an endpoint may put into a close frame; 1004, 1005, 1006 and 1015 never travel.
_STANDARD_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_MAX_CONTROL_PAYLOAD_BYTES = 125
_FIN, _RESERVED, _OPCODE, _MASKED = 0x80, 0x70, 0x0F, 0x80


class ProtocolViolation(Exception):
    """The peer broke RFC 6455; the connection must be closed with `close_code`. Never leaves this package."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code, self.reason = close_code, reason


def control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """One unmasked control frame; `payload` holds at most 125 bytes."""
    return bytes((_FIN | opcode, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. A reason that is too long for a control frame is cut between characters; 1005 sends no code."""
    if code == NO_STATUS:
        return control_frame(CLOSE)
    text = reason.encode()[: _MAX_CONTROL_PAYLOAD_BYTES - 2].decode(errors="ignore").encode()
    return control_frame(CLOSE, struct.pack("!H", code) + text)


def unmask(payload: bytes, key: bytes) -> bytes:
    """`payload` XOR the repeated 4-byte `key`. One big-integer XOR is some fifty times faster than a loop."""
    size_bytes = len(payload)
    keys = (key * (size_bytes // 4 + 1))[:size_bytes]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(size_bytes, "little")


def close_code_of(payload: bytes) -> int:
    """The code a close frame carries, `NO_STATUS` when it carries none.

    Raises: ProtocolViolation for half a code, a code that must not travel, or a reason that is not UTF-8.
    """
    if not payload:
        return NO_STATUS
    if len(payload) == 1:
        raise ProtocolViolation(PROTOCOL_ERROR, "a close code has two bytes")
    code = int.from_bytes(payload[:2], "big")
    if code not in _STANDARD_CLOSE_CODES and not 3000 <= code <= 4999:
        raise ProtocolViolation(PROTOCOL_ERROR, "this close code must not be sent")
    if not _is_utf8(payload[2:]):
        raise ProtocolViolation(INVALID_DATA, "the close reason is not UTF-8")
    return code


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


class FrameDecoder:
    """Turns a client's bytes into whole messages and control frames, in order.

    `receive` yields `(opcode, payload)` with opcode TEXT, BINARY (whole messages), CLOSE, PING or PONG. It is a
    generator so that a caller who closes half way simply stops asking; a violation is raised where it stands in
    the stream, after everything before it was yielded. After a violation the decoder must not be used again.
    """

    __slots__ = ("_buffer", "_max_message_bytes", "_message", "_message_opcode", "_needed_bytes")

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer: bytearray | None = None
        self._needed_bytes = 0
        self._message: bytearray | None = None
        self._message_opcode = 0

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Events that `data` completes.

        Raises: ProtocolViolation.
        """
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed_bytes:
                return
            data, self._buffer = bytes(self._buffer), None
        start, end = 0, len(data)
        while start < end:
            header_bytes, payload_bytes = self._frame_size(data, start, end)
            stop = start + header_bytes + payload_bytes
            if stop > end:
                self._buffer, self._needed_bytes = bytearray(data[start:]), stop - start
                return
            payload_at = start + header_bytes
            payload = unmask(data[payload_at:stop], data[payload_at - 4 : payload_at])
            first = data[start]
            start = stop
            if first == _FIN | TEXT and self._message is None:  # by far the most frequent frame
                yield TEXT, self._checked_text(payload)
            elif first & 0x08:
                yield first & _OPCODE, payload
            elif (message := self._assemble(first, payload)) is not None:
                yield message

    def _frame_size(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """Header and payload bytes of the frame at `start`; where the header is incomplete, enough of it to go on."""
        if end - start < 2:
            return 2, 0
        first, second = data[start], data[start + 1]
        opcode, length = first & _OPCODE, second & 0x7F
        if not second & _MASKED:
            raise ProtocolViolation(PROTOCOL_ERROR, "frames from a client must be masked")
        if first & _RESERVED:
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bits are set, but no extension was agreed")
        if opcode & 0x07 > 0x02:
            raise ProtocolViolation(PROTOCOL_ERROR, "unknown opcode")
        if opcode & 0x08:
            if not first & _FIN:
                raise ProtocolViolation(PROTOCOL_ERROR, "a control frame must not be fragmented")
            if length > _MAX_CONTROL_PAYLOAD_BYTES:
                raise ProtocolViolation(PROTOCOL_ERROR, "a control frame must be short")
            return 6, length
        if (opcode == CONTINUATION) != (self._message is not None):
            raise ProtocolViolation(PROTOCOL_ERROR, "fragments of a message are out of order")
        return self._data_frame_size(data, start, end, length)

    def _data_frame_size(self, data: bytes, start: int, end: int, length: int) -> tuple[int, int]:
        header_bytes = 6
        if length >= 126:
            length_bytes, smallest = (2, 126) if length == 126 else (8, 65_536)
            header_bytes += length_bytes
            if end - start < header_bytes - 4:
                return header_bytes - 4, 0
            length = int.from_bytes(data[start + 2 : start + 2 + length_bytes], "big")
            if length < smallest or length >> 63:
                raise ProtocolViolation(PROTOCOL_ERROR, "a length must take its shortest form")
        kept_bytes = 0 if self._message is None else len(self._message)
        if kept_bytes + length > self._max_message_bytes:
            raise ProtocolViolation(MESSAGE_TOO_BIG, f"a message may hold {self._max_message_bytes} bytes")
        return header_bytes, length

    def _assemble(self, first: int, payload: bytes) -> tuple[int, bytes] | None:
        """Take a data frame; the whole message once its last fragment is here."""
        if self._message is None:
            opcode = first & _OPCODE
            if first & _FIN:
                return opcode, payload
            self._message, self._message_opcode = bytearray(payload), opcode
            return None
        self._message += payload
        if not first & _FIN:
            return None
        message, self._message = bytes(self._message), None
        return self._message_opcode, self._checked_text(message) if self._message_opcode == TEXT else message

    @staticmethod
    def _checked_text(payload: bytes) -> bytes:
        if not _is_utf8(payload):
            raise ProtocolViolation(INVALID_DATA, "a text message must be UTF-8")
        return payload
