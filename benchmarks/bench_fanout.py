"""One event to 1,000 WebSockets: the listener with a minimal session, and the whole path from a committed insert,
beside a bare uvloop server that writes the same prebuilt frame to 1,000 plain TCP connections.

The next event is sent once every client has the last one. The whole path begins when another Postgres client sends its
insert: round trip, commit to disk, decoding, and delivery to 1,000 subscribers of the table's channel. A burst is 100
rows in one transaction. The memory of a connection is that of the listener alone; with subscriptions: see memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import psycopg

from benchmarks.measure import Figure, Sample, compared, figure, interleaved, median_of, percentile
from benchmarks.nodes import CHANNEL, DEPART, FlightsNode, flights_node
from benchmarks.sockets import DEADLINE_S, Everybody, allow_files, connected, subscribe

CLIENTS = 1_000
WARM_UP_EVENTS, EVENTS = 30, 300
WARM_UP_INSERTS, INSERTS = 10, 200
BURSTS, BURST_ROWS = 5, 100
LISTENER, WHOLE, BARE = "listener", "whole path", "bare uvloop server"
BURST = f"do $$ begin for number in 1..{BURST_ROWS} loop {DEPART.replace('%s', 'number')}; end loop; end $$"

Connection = psycopg.Connection[tuple[Any, ...]]


def run(rounds: int) -> list[Figure]:
    """Figures of the listener alone, then those of the whole path."""
    allow_files(CLIENTS + 100)
    with flights_node() as node, psycopg.connect(node.dsn, autocommit=True) as connection:
        samples = interleaved(
            rounds,
            {
                LISTENER: partial(_alone, "product"),
                WHOLE: partial(_whole, node, connection),
                BARE: partial(_alone, "bare"),
            },
        )
    listed, whole = partial(compared, samples, LISTENER, BARE), samples[WHOLE]
    return [
        listed("deliveries_per_s", "listener: deliveries, one event in flight", "1/s", "higher"),
        listed("cpu_us", "listener: server CPU of a delivery", "us", "lower"),
        listed("connection_bytes", "listener: memory of an idle connection", "bytes", "lower"),
        compared(
            samples, WHOLE, BARE, "deliveries_per_s", "whole path: deliveries, one insert in flight", "1/s", "higher",
            note=f"insert to the last of 1,000 sockets: p50 {median_of(whole, 'last_p50_ms'):.1f} ms.",
        ),
        compared(samples, WHOLE, BARE, "last_p99_ms", "whole path: insert to the last socket, p99", "ms", "lower"),
        figure(
            "whole path: deliveries, bursts of 100 rows", "1/s", "higher",
            [sample["burst_per_s"] for sample in whole],
            yardstick=f"{BARE}, one event in flight",
            yardstick_values=[sample["deliveries_per_s"] for sample in samples[BARE]],
        ),
    ]  # fmt: skip


# ------------------------------------------------------------ the whole node


def _whole(node: FlightsNode, connection: Connection) -> Sample:
    port, path = node.socket_address
    with ExitStack() as clients:
        sockets = [clients.enter_context(connected(port, path)) for _ in range(CLIENTS)]
        for client in sockets:
            subscribe(client, CHANNEL)
        with Everybody(sockets) as everybody:
            seconds = [_insert(connection, everybody, number) for number in range(WARM_UP_INSERTS + INSERTS)]
            began_s = time.perf_counter()
            for _ in range(BURSTS):
                connection.execute(BURST.encode())
                everybody.receive(BURST_ROWS)
            burst_s = time.perf_counter() - began_s
    seconds = seconds[WARM_UP_INSERTS:]
    return {
        "deliveries_per_s": CLIENTS * INSERTS / sum(seconds),
        "last_p50_ms": percentile(seconds, 50) * 1e3,
        "last_p99_ms": percentile(seconds, 99) * 1e3,
        "burst_per_s": CLIENTS * BURSTS * BURST_ROWS / burst_s,
    }


def _insert(connection: Connection, everybody: Everybody, number: int) -> float:
    """Seconds from sending the insert until every client has its frame."""
    began_s = time.perf_counter()
    connection.execute(DEPART, (number,), prepare=True)
    everybody.receive(1)
    return time.perf_counter() - began_s


# ------------------------------------------------------------ the listener, and a bare server


def _alone(kind: str) -> Sample:
    path = "/app/key" if kind == "product" else None
    with fanout_server(kind) as server, ExitStack() as clients:
        empty = server.stats()
        sockets = [clients.enter_context(connected(server.port, path)) for _ in range(CLIENTS)]
        full = server.wait_for(CLIENTS)
        seconds, cpu_s = _deliver(server, sockets)
    return {
        "deliveries_per_s": CLIENTS * EVENTS / sum(seconds),
        "last_p99_ms": percentile(seconds, 99) * 1e3,
        "cpu_us": cpu_s / (CLIENTS * EVENTS) * 1e6,
        "connection_bytes": (full["resident_bytes"] - empty["resident_bytes"]) / CLIENTS,
    }


def _deliver(server: FanoutServer, sockets: Sequence[socket]) -> tuple[list[float], float]:
    """Seconds of each event, and the server's CPU seconds of all."""
    with Everybody(sockets) as everybody:
        for _ in range(WARM_UP_EVENTS):
            _send(server, everybody)
        before = server.stats()
        seconds = [_send(server, everybody) for _ in range(EVENTS)]
        return seconds, server.stats()["cpu_s"] - before["cpu_s"]


def _send(server: FanoutServer, everybody: Everybody) -> float:
    began_s = time.perf_counter()
    server.send()
    everybody.receive(1)
    return time.perf_counter() - began_s


class FanoutServer:
    """A process of `benchmarks.fanout_server`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.port = int(self._line())

    def send(self) -> None:
        """Have one event sent to everybody."""
        self._write(b"send\n")

    def stats(self) -> dict[str, Any]:
        """CPU seconds, resident bytes and connections of the process."""
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


@contextmanager
def fanout_server(kind: str) -> Iterator[FanoutServer]:
    """A server of the kind `product` or `bare`, killed at the end of the block."""
    command = [sys.executable, "-m", "benchmarks.fanout_server", kind]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        try:
            yield FanoutServer(process)
        finally:
            process.kill()
