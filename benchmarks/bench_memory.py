"""Memory of a node that has started on loaded flights, answered one request and closed its idle connections, in
proportional set size (shared pages count in parts, so that the processes add up), beside a process with nothing but
Python and uvloop, and an idle Postgres with its own defaults and no connections.

A connection's share is what the node's process grows by, per connection, while 1,000 clients connect and subscribe to a
table's channel, beside a bare uvloop server with 1,000 TCP connections. The kernel's socket buffers are in neither.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from benchmarks.bare_postgres import BarePostgres, bare_postgres
from benchmarks.bench_fanout import fanout_server
from benchmarks.measure import Figure, Sample, compared, interleaved, median_of
from benchmarks.nodes import CHANNEL, FlightsNode, flights_folder
from benchmarks.sockets import allow_files, connected, subscribe

CLIENTS = 1_000
NODE_LIMIT_MB, POSTGRES_LIMIT_MB = 90, 25
MEGABYTE = 1e6
# Whole connections that nobody uses are closed after a minute; here after a second, so that "idle" needs no minute.
IDLE = {"MAG_MAGDS__POOL_IDLE_S": "1"}
SETTLE_S = 2.5
_BARE_PYTHON = (
    "import asyncio, sys, uvloop; uvloop.run(asyncio.to_thread(lambda: print('up', flush=True) or sys.stdin.read()))"
)
NODE, PYTHON, POSTGRES, BARE = "node", "Python with uvloop", "Postgres with its defaults", "bare uvloop server"


def run(rounds: int) -> list[Figure]:
    """Memory of the processes and of a connection."""
    allow_files(CLIENTS + 100)
    with flights_folder(**IDLE) as node, bare_postgres() as server:
        node.start()
        node.stop()
        server.make()
        samples = interleaved(
            rounds,
            {
                NODE: partial(_node, node),
                PYTHON: _python,
                POSTGRES: partial(_postgres, server),
                BARE: _bare_connections,
            },
        )
    return [
        compared(samples, NODE, PYTHON, "process_mb", "node process, idle", "MB", "lower",
                 note=_target(samples[NODE], "process_mb", NODE_LIMIT_MB)),
        compared(samples, NODE, POSTGRES, "postgres_mb", "embedded Postgres, all processes, idle", "MB", "lower",
                 note=_target(samples[NODE], "postgres_mb", POSTGRES_LIMIT_MB)),
        compared(samples, NODE, BARE, "connection_bytes", "subscribed connection", "bytes", "lower"),
    ]  # fmt: skip


def _target(samples: list[Sample], key: str, limit_mb: float) -> str:
    value_mb = median_of(samples, key)
    return f"the target is {limit_mb} MB, {'met' if value_mb <= limit_mb else 'MISSED'}: {value_mb:.1f} MB."


def _node(node: FlightsNode) -> Sample:
    node.start()
    try:
        node.first_row()
        time.sleep(SETTLE_S)
        sample = {
            "process_mb": pss_bytes(node.pid) / MEGABYTE,
            "postgres_mb": _tree_bytes(descendants(node.pid)) / MEGABYTE,
        }
        port, path = node.socket_address
        with ExitStack() as clients:
            before_bytes = private_bytes(node.pid)
            for _ in range(CLIENTS):
                subscribe(clients.enter_context(connected(port, path)), CHANNEL)
            sample["connection_bytes"] = (private_bytes(node.pid) - before_bytes) / CLIENTS
    finally:
        node.stop()
    return sample


def _python() -> Sample:
    command = [sys.executable, "-c", _BARE_PYTHON]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return {"process_mb": pss_bytes(process.pid) / MEGABYTE}


def _postgres(server: BarePostgres) -> Sample:
    server.start(tuned=False)
    try:
        time.sleep(SETTLE_S)
        return {"postgres_mb": _tree_bytes([server.pid, *descendants(server.pid)]) / MEGABYTE}
    finally:
        server.stop()


def _bare_connections() -> Sample:
    with fanout_server("bare") as server, ExitStack() as clients:
        before_bytes = private_bytes(server.pid)
        for _ in range(CLIENTS):
            clients.enter_context(connected(server.port))
        server.wait_for(CLIENTS)
        return {"connection_bytes": (private_bytes(server.pid) - before_bytes) / CLIENTS}


# ------------------------------------------------------------ /proc


def pss_bytes(pid: int) -> int:
    """Proportional set size of one process."""
    return _rollup(pid, "Pss")


def private_bytes(pid: int) -> int:
    """Memory that only this process has."""
    return _rollup(pid, "Private_Clean") + _rollup(pid, "Private_Dirty")


def _tree_bytes(pids: Iterable[int]) -> int:
    total_bytes = 0
    for pid in list(pids):
        with suppress(FileNotFoundError, ProcessLookupError):  # a server process of a connection that just ended
            total_bytes += pss_bytes(pid)
    return total_bytes


def _rollup(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1_024
    raise RuntimeError(f"no {key} in smaps_rollup")


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))
