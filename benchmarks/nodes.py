"""A whole node with the flights demo, started the way a user starts it, for benchmarks that are not coroutines.

Everything is on loopback and in one temporary folder; nothing outlives the block. The replay is off, so that the only
changes are those of the benchmark.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.offline import embedded_access
from magmobo.testing.node import NodeProcess, disposable_system_dir, start_node

CHANNEL = "db.public.departures"
ROLE = "mag_demo_anon"
# One more departure of the first flight of the year, without a lookup; %s is its flight number, which tells them apart.
DEPART = (
    "insert into public.departures (carrier, flight, origin, dest, dep_delay, dep_at, sched_at, flight_id) "
    "values ('UA', %s, 'EWR', 'IAH', 2, '2013-01-01 10:17Z', '2013-01-01 10:15Z', 1)"
)
_START = ("--demo", "flights", "--speed", "0")


class FlightsNode:
    """One data folder, and at most one node on it at a time."""

    def __init__(self, runner: asyncio.Runner, folder: Path, settings: Mapping[str, str]) -> None:
        self._runner, self.data_dir, self._settings = runner, folder / "data", settings
        self._process: NodeProcess | None = None

    def start(self) -> None:
        """Return when the node serves. Raises: RuntimeError when a component that is measured did not come up."""
        self._process = self._runner.run(start_node(self.data_dir, *_START, environment=self._settings))
        status = self._process.status
        if missing := {"rest", "realtime"} - status.urls.keys():
            raise RuntimeError(f"the node is {status.state}, without {', '.join(missing)}\n{self._process.printed}")

    def stop(self) -> None:
        """End the node in order, by force when it does not; without a node nothing happens."""
        process, self._process = self._process, None
        if process is not None:
            self._runner.run(_end(process))

    @property
    def pid(self) -> int:
        """The node's own process; Postgres is its child."""
        return self._running.process.pid

    @property
    def rest_url(self) -> str:
        """`http://host:port/rest/v1/`."""
        return self._running.status.urls["rest"]

    @property
    def socket_address(self) -> tuple[int, str]:
        """Port and path of the realtime plane."""
        parts = urlsplit(self._running.status.urls["realtime"])
        assert parts.port is not None
        return parts.port, f"{parts.path}?protocol=7"

    @property
    def dsn(self) -> str:
        """The embedded database as the node's own role. It holds a password."""
        return embedded_access(DataFolder(self.data_dir))[0]

    def first_row(self) -> dict[str, Any]:
        """One flight, by primary key, over HTTP."""
        with urllib.request.urlopen(f"{self.rest_url}flights?id=eq.1", timeout=30) as answer:
            rows: list[dict[str, Any]] = json.load(answer)
        return rows[0]

    @property
    def _running(self) -> NodeProcess:
        if self._process is None:
            raise RuntimeError("no node runs")
        return self._process


@contextmanager
def flights_folder(**settings: str) -> Iterator[FlightsNode]:
    """An empty data folder; whatever runs on it at the end of the block is stopped. `settings`: MAG_… variables."""
    with (
        tempfile.TemporaryDirectory(prefix="mag-bench-") as folder,
        disposable_system_dir(),
        asyncio.Runner() as runner,
    ):
        node = FlightsNode(runner, Path(folder), settings)
        try:
            yield node
        finally:
            node.stop()


@contextmanager
def flights_node(**settings: str) -> Iterator[FlightsNode]:
    """A node that is ready, with the flights loaded."""
    with flights_folder(**settings) as node:
        node.start()
        yield node


async def _end(process: NodeProcess) -> None:
    try:
        await process.stop()
    finally:
        await process.kill()
