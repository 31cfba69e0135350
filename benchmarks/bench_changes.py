"""From a commit to a client: rows inserted by another Postgres client arrive at one WebSocket of the node.

Latency: single inserts, 300 a second; the clock runs from the moment the insert is sent to the moment its frame is
read, beside the insert's own round trip in the same run and beside a bare connection that LISTENs while each insert
also NOTIFYs. Bursts: 20,000 transactions of one row as fast as the server commits them (synchronous_commit off),
beside the rate of the writer itself; and 20,000 rows in one transaction, from its commit, beside Postgres alone
decoding the same rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.changes_client import LISTEN_ON
from benchmarks.measure import Figure, Sample, compared, figure, interleaved, median_of, percentile
from benchmarks.nodes import DEPART, FlightsNode, flights_node

INSERTS, PER_S = 600, 300
WARM_UP = 50
BURST = 20_000
NOTIFY = f"with departed as ({DEPART} returning flight) select pg_notify('{LISTEN_ON}', flight::text) from departed"
_LITERAL = DEPART.replace("%s", "number")
_DECODE = (
    "select count(*) from pg_logical_slot_get_binary_changes(%s, null, null, "
    "'proto_version', '1', 'publication_names', 'mag_changes')"
)
_SLOT = "mag_bench"
SOCKET, LISTEN = "one WebSocket", "bare LISTEN"

Connection = psycopg.Connection[tuple[Any, ...]]


def run(rounds: int) -> list[Figure]:
    """Latency of single inserts, and how fast bursts arrive."""
    with flights_node() as node, psycopg.connect(node.dsn, autocommit=True) as connection:
        latency = interleaved(
            rounds,
            {
                SOCKET: partial(_latency, node, connection, "socket"),
                LISTEN: partial(_latency, node, connection, "notify"),
            },
        )
        bursts = interleaved(rounds, {"many": partial(_many, node, connection), "one": partial(_one, node, connection)})
    return [*_latency_figures(latency), *_burst_figures(bursts)]


def _latency_figures(samples: dict[str, list[Sample]]) -> list[Figure]:
    ours = samples[SOCKET]
    note = (
        f"the insert's round trip in the same seconds: p50 {median_of(ours, 'trip_p50_ms'):.2f} ms, "
        f"p99 {median_of(ours, 'trip_p99_ms'):.2f} ms; from the answer to the insert to the frame: "
        f"p50 {median_of(ours, 'after_p50_ms'):.2f} ms, p99 {median_of(ours, 'after_p99_ms'):.2f} ms."
    )
    return [
        _beside_trip(ours, "p50", note),
        compared(samples, SOCKET, LISTEN, "p50_ms", "insert to frame, p50", "ms", "lower"),
        _beside_trip(ours, "p99", ""),
        compared(samples, SOCKET, LISTEN, "p99_ms", "insert to frame, p99", "ms", "lower"),
    ]


def _beside_trip(samples: list[Sample], percent: str, note: str) -> Figure:
    return figure(
        f"insert to frame, {percent}",
        "ms",
        "lower",
        [sample[f"{percent}_ms"] for sample in samples],
        yardstick=f"insert's round trip, {percent}",
        yardstick_values=[sample[f"trip_{percent}_ms"] for sample in samples],
        note=note,
    )


def _burst_figures(samples: dict[str, list[Sample]]) -> list[Figure]:
    return [
        figure(
            name, "rows/s", "higher",
            [sample["rows_per_s"] for sample in samples[kind]],
            yardstick=yardstick,
            yardstick_values=[sample["yardstick_per_s"] for sample in samples[kind]],
        )
        for kind, name, yardstick in (
            ("many", "20,000 transactions of one row", "the writer itself"),
            ("one", "20,000 rows in one transaction", "Postgres decoding alone"),
        )
    ]  # fmt: skip


# ------------------------------------------------------------ one round


def _latency(node: FlightsNode, connection: Connection, kind: str) -> Sample:
    statement = DEPART if kind == "socket" else NOTIFY
    sent_s: dict[int, float] = {}
    answered_s: dict[int, float] = {}
    with _subscriber(node, kind, WARM_UP + INSERTS) as client:
        began_s = time.monotonic()
        for number in range(WARM_UP + INSERTS):
            time.sleep(max(0.0, began_s + number / PER_S - time.monotonic()))
            sent_s[number] = time.monotonic()
            connection.execute(statement, (number,), prepare=True)
            answered_s[number] = time.monotonic()
        received = client.received()
    if [number for _, number in received] != list(range(WARM_UP + INSERTS)):
        raise RuntimeError("the rows did not arrive once each, in order")
    measured = received[WARM_UP:]
    sample = _percentiles("", [at_s - sent_s[number] for at_s, number in measured])
    sample |= _percentiles("trip_", [answered_s[number] - sent_s[number] for _, number in measured])
    return sample | _percentiles("after_", [at_s - answered_s[number] for at_s, number in measured])


def _percentiles(prefix: str, seconds: list[float]) -> dict[str, float]:
    return {f"{prefix}p{percent}_ms": percentile(seconds, percent) * 1e3 for percent in (50, 99)}


def _many(node: FlightsNode, connection: Connection) -> Sample:
    with _subscriber(node, "socket", BURST) as client:
        began_s = time.monotonic()
        connection.execute(
            f"do $$ begin set synchronous_commit = off; for number in 1..{BURST} loop {_LITERAL}; commit; end loop; "
            "reset synchronous_commit; end $$".encode()
        )
        written_s = time.monotonic() - began_s
        arrived_s = client.received()[-1][0] - began_s
    return {"rows_per_s": BURST / arrived_s, "yardstick_per_s": BURST / written_s}


def _one(node: FlightsNode, connection: Connection) -> Sample:
    connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (_SLOT,))
    try:
        with _subscriber(node, "socket", BURST) as client:
            with connection.transaction():
                connection.execute(f"do $$ begin for number in 1..{BURST} loop {_LITERAL}; end loop; end $$".encode())
                sent_s = time.monotonic()
            arrived_s = client.received()[-1][0] - sent_s
        began_s = time.monotonic()
        connection.execute(_DECODE, (_SLOT,)).fetchone()
        decoded_s = time.monotonic() - began_s
    finally:
        connection.execute("select pg_drop_replication_slot(%s)", (_SLOT,))
    return {"rows_per_s": BURST / arrived_s, "yardstick_per_s": BURST / decoded_s}


class _Client:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def received(self) -> list[tuple[float, int]]:
        """Seconds and flight number of every message, once all have come."""
        messages: list[tuple[float, int]] = [(at_s, number) for at_s, number in json.loads(self.line())]
        return messages

    def line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("the subscriber ended early")
        return line


@contextmanager
def _subscriber(node: FlightsNode, kind: str, count: int) -> Iterator[_Client]:
    port, path = node.socket_address
    order = {"kind": kind, "count": count, "port": port, "path": path, "dsn": node.dsn}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.changes_client"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parent.parent,
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            client = _Client(process)
            if client.line() != "ready\n":
                raise RuntimeError("the subscriber did not subscribe")
            yield client
        finally:
            process.kill()
