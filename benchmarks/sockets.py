"""Plain sockets as WebSocket clients, so that measuring costs little beside what is measured."""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

DEADLINE_S = 30.0
READ_BYTES = 1 << 18
_LENGTH_16, _LENGTH_64 = 126, 127
_TEXT_FINAL, _MASKED = 0x81, 0x80


@contextmanager
def connected(port: int, path: str | None = None) -> Iterator[socket.socket]:
    """A TCP connection to loopback; with `path` one that is a WebSocket and has read nothing beyond the handshake."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        if path is not None:
            client.sendall(
                b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
            )
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := client.recv(1)):  # never a byte of the first frame
                    raise RuntimeError(f"no WebSocket: {head[:80]!r}")
                head += byte
            if not head.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"no WebSocket: {head[:80]!r}")
        yield client


def subscribe(client: socket.socket, channel: str) -> None:
    """Follow a public channel; returns when the server said that it succeeded."""
    send_event(client, "pusher:subscribe", {"channel": channel})
    frames = Frames()
    while True:
        for payload in frames.feed(client.recv(READ_BYTES)):
            event = json.loads(payload)["event"]
            if event == "pusher_internal:subscription_succeeded":
                return
            if event != "pusher:connection_established":
                raise RuntimeError(f"not subscribed: {payload[:200]!r}")


def send_event(client: socket.socket, event: str, data: dict[str, Any]) -> None:
    """One Pusher event, as one masked frame (the mask is zero: it hides nothing on loopback)."""
    payload = json.dumps({"event": event, "data": data}).encode()
    if len(payload) >= _LENGTH_16:
        raise ValueError("the event is too long for a benchmark")
    client.sendall(bytes([_TEXT_FINAL, _MASKED | len(payload), 0, 0, 0, 0]) + payload)


class Frames:
    """Cuts bytes of a server into the payloads of its text frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now. Raises: RuntimeError when the server left or said something else."""
        if not data:
            raise RuntimeError("the server closed the connection")
        data, start, payloads = self._rest + data, 0, []
        while (bounds := _payload(data, start)) is not None:
            begin, end = bounds
            payloads.append(data[begin:end])
            start = end
        self._rest = data[start:]
        return payloads


def _payload(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `start` begins and ends; None while some of it is missing."""
    if len(data) < start + 2:
        return None
    if data[start] != _TEXT_FINAL:
        raise RuntimeError(f"not a text frame: {data[start : start + 80]!r}")
    begin, size_bytes = start + 2, data[start + 1]
    if size_bytes == _LENGTH_16:
        if len(data) < (begin := start + 4):
            return None
        (size_bytes,) = struct.unpack_from("!H", data, start + 2)
    elif size_bytes == _LENGTH_64:
        if len(data) < (begin := start + 10):
            return None
        (size_bytes,) = struct.unpack_from("!Q", data, start + 2)
    end = begin + size_bytes
    return (begin, end) if len(data) >= end else None


class Everybody:
    """Many clients that are sent the same bytes, and when the last of them has got all of it."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._first, *others = sockets
        self._frames = Frames()
        self._poll = select.epoll()
        self._others = len(others)
        for client in others:
            self._poll.register(client.fileno(), select.EPOLLIN)

    def __enter__(self) -> Everybody:
        return self

    def __exit__(self, *exc: object) -> None:
        self._poll.close()

    def receive(self, frames: int) -> None:
        """Return once every client has got so many frames more; the first client's tell how long they are."""
        size_bytes = 0
        while frames > 0:
            data = self._first.recv(READ_BYTES)
            size_bytes += len(data)
            frames -= len(self._frames.feed(data))
        missing_bytes = size_bytes * self._others
        while missing_bytes > 0:
            ready = self._poll.poll(DEADLINE_S, self._others)
            if not ready:
                raise RuntimeError(f"{missing_bytes} bytes were not delivered")
            for number, _ in ready:
                missing_bytes -= len(os.read(number, READ_BYTES))
        if missing_bytes or frames:
            raise RuntimeError("clients got more than was sent to them")


def allow_files(count: int) -> None:
    """Raise this process's limit of open files to `count`, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
