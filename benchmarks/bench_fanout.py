"""One event to 1,000 WebSockets: the listener with a minimal session, beside a bare uvloop server that writes the same
prebuilt frame to 1,000 plain TCP connections. The next event is sent once every client has the last one.

Also the memory of a connection: resident bytes of the server process, per connection, before anything was sent.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fanout_server import FRAME
from benchmarks.measure import Figure, Sample, compared, interleaved

CLIENTS = 1_000
WARM_UP_EVENTS, EVENTS = 30, 300
DEADLINE_S = 30.0
BARE = "bare uvloop server"
UPGRADE = (
    b"GET /app/key HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def run(rounds: int) -> list[Figure]:
    """Figures of the fan-out and of a connection's memory."""
    _allow_files(CLIENTS + 100)
    samples = interleaved(rounds, {"listener": partial(_sample, "product"), BARE: partial(_sample, "bare")})
    listed = partial(compared, samples, "listener", BARE)
    return [
        listed("deliveries_per_s", "deliveries, one event in flight", "1/s", "higher"),
        listed("cpu_us", "server CPU of a delivery", "us", "lower"),
        listed("connection_bytes", "memory of an idle connection", "bytes", "lower"),
    ]


def _sample(kind: str) -> Sample:
    with _server(kind) as server, ExitStack() as clients:
        empty = server.stats()
        sockets = [clients.enter_context(_connected(server.port, upgrade=kind == "product")) for _ in range(CLIENTS)]
        full = server.wait_for(CLIENTS)
        with _Everybody(sockets) as everybody:
            for _ in range(WARM_UP_EVENTS):
                everybody.deliver(server)
            before, started_s = server.stats(), time.monotonic()
            for _ in range(EVENTS):
                everybody.deliver(server)
            elapsed_s = time.monotonic() - started_s
            after = server.stats()
    deliveries = CLIENTS * EVENTS
    return {
        "deliveries_per_s": deliveries / elapsed_s,
        "cpu_us": (after["cpu_s"] - before["cpu_s"]) / deliveries * 1e6,
        "connection_bytes": (full["resident_bytes"] - empty["resident_bytes"]) / CLIENTS,
    }


class _Server:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.port = int(self._line())

    def send(self) -> None:
        self._write(b"send\n")

    def stats(self) -> dict[str, Any]:
        self._write(b"stats\n")
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def wait_for(self, connections: int) -> dict[str, Any]:
        """The statistics once so many clients are accepted."""
        give_up_s = time.monotonic() + DEADLINE_S
        while (stats := self.stats())["connections"] != connections:
            if time.monotonic() > give_up_s:
                raise RuntimeError(f"{stats['connections']} of {connections} clients are connected")
        return stats

    def _write(self, command: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command)
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server of the benchmark ended early")
        return line


class _Everybody:
    """Counts the bytes that all clients get."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._poll = select.epoll()
        self._files = len(sockets)
        for client in sockets:
            self._poll.register(client.fileno(), select.EPOLLIN)

    def __enter__(self) -> _Everybody:
        return self

    def __exit__(self, *exc: object) -> None:
        self._poll.close()

    def deliver(self, server: _Server) -> None:
        """Have one event sent and return once every client has all of it."""
        missing_bytes = self._files * len(FRAME)
        server.send()
        while missing_bytes:
            ready = self._poll.poll(DEADLINE_S, self._files)
            if not ready:
                raise RuntimeError(f"{missing_bytes} bytes were not delivered")
            for number, _ in ready:
                missing_bytes -= len(os.read(number, 65_536))


@contextmanager
def _server(kind: str) -> Iterator[_Server]:
    command = [sys.executable, "-m", "benchmarks.fanout_server", kind]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            yield _Server(process)
        finally:
            process.kill()


@contextmanager
def _connected(port: int, *, upgrade: bool) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        if upgrade:
            client.sendall(UPGRADE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(4_096)
            if not head.startswith(b"HTTP/1.1 101 "):
                raise RuntimeError(f"no WebSocket: {head[:80]!r}")
        yield client


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
