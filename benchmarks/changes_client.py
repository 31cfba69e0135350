"""One subscriber in a process of its own: `python -m benchmarks.changes_client`.

Reads its orders from stdin as one JSON line, prints `ready` when it is subscribed, and after the last message one JSON
list of [seconds, flight number]. Seconds are of the machine's monotonic clock, which every process shares. `socket`
follows a channel of the node; `notify` is a bare psycopg connection that listens.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.nodes import CHANNEL
from benchmarks.sockets import READ_BYTES, Frames, connected, subscribe

LISTEN_ON = "bench"


def main() -> None:
    """Obey one order."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    received = _over_socket(order) if order["kind"] == "socket" else _by_notify(order)
    print(json.dumps(list(received)), flush=True)


def _over_socket(order: dict[str, Any]) -> Iterator[tuple[float, int]]:
    frames, arrived = Frames(), list[tuple[float, bytes]]()
    with connected(order["port"], order["path"]) as client:
        subscribe(client, CHANNEL)
        print("ready", flush=True)
        while len(arrived) < order["count"]:
            data = client.recv(READ_BYTES)
            now_s = time.monotonic()
            arrived += [(now_s, payload) for payload in frames.feed(data)]
    for at_s, payload in arrived:
        yield at_s, json.loads(json.loads(payload)["data"])["record"]["flight"]


def _by_notify(order: dict[str, Any]) -> Iterator[tuple[float, int]]:
    with psycopg.connect(order["dsn"], autocommit=True) as connection:
        connection.execute(f"listen {LISTEN_ON}".encode())
        print("ready", flush=True)
        for count, notice in enumerate(connection.notifies(), 1):
            yield time.monotonic(), int(notice.payload)
            if count == order["count"]:
                return


if __name__ == "__main__":
    main()
