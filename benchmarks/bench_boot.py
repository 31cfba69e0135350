"""From nothing to the first row: `mag up --demo flights` on an empty data folder and on a loaded one, up to one flight
read over HTTP, beside the same server program without a node.

The first start makes the cluster, loads 367,687 rows with keys, indexes and statistics, and opens every door; its
yardstick is initdb, a server start, and psycopg copying the same files into the same tables. The second start's
yardstick is that server's start up to `select 1`. `mag --help` is what every command pays before it does anything.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import resources

import psycopg

from benchmarks.bare_postgres import BarePostgres, bare_postgres
from benchmarks.measure import Figure, Sample, compared, interleaved, median_of
from benchmarks.nodes import ROLE, FlightsNode, flights_folder
from magmobo.components.demo.dataset import locate
from magmobo.components.demo.flights import COLUMNS

FIRST_LIMIT_S, SECOND_LIMIT_S = 15.0, 5.0
COPY_BLOCK_BYTES = 1 << 20
BARE_FIRST, BARE_SECOND, PYTHON = "initdb, start, COPY", "server start, select 1", "python -c pass"


def run(rounds: int) -> list[Figure]:
    """Seconds of the first start, of the second one, and of a command."""
    first = interleaved(rounds, {"node": _first_start, BARE_FIRST: _bare_first_start})
    with ExitStack() as stack:
        node, server = stack.enter_context(flights_folder()), stack.enter_context(bare_postgres())
        node.start()
        node.stop()
        server.make()
        second = interleaved(
            rounds, {"node": lambda: _second_start(node), BARE_SECOND: lambda: _bare_second_start(server)}
        )
    command = interleaved(rounds, {"mag": lambda: _command("-m", "magmobo.cli.main", "--help"), PYTHON: _python})
    return [
        compared(
            first, "node", BARE_FIRST, "start_s", "first start to the first row", "s", "lower",
            note=_met(first["node"], FIRST_LIMIT_S),
        ),
        compared(
            second, "node", BARE_SECOND, "start_s", "second start to the first row", "s", "lower",
            note=_met(second["node"], SECOND_LIMIT_S),
        ),
        compared(command, "mag", PYTHON, "start_s", "mag --help", "s", "lower"),
    ]  # fmt: skip


def _met(samples: list[Sample], limit_s: float) -> str:
    slowest_s = max(sample["start_s"] for sample in samples)
    verdict = "met by every round" if slowest_s <= limit_s else "NOT met by every round"
    median_s = median_of(samples, "start_s")
    return f"the limit is {limit_s:g} s, {verdict}: median {median_s:.2f} s, slowest {slowest_s:.2f} s."


def _first_start() -> Sample:
    with flights_folder() as node:
        return _second_start(node)


def _second_start(node: FlightsNode) -> Sample:
    """Any start: what is in the folder decides which one it is."""
    began_s = time.perf_counter()
    node.start()
    node.first_row()
    elapsed_s = time.perf_counter() - began_s
    node.stop()
    return {"start_s": elapsed_s}


def _bare_first_start() -> Sample:
    with bare_postgres() as server:
        began_s = time.perf_counter()
        server.make()
        server.start()
        with psycopg.connect(server.dsn) as connection:
            _load(connection)
            connection.commit()
            connection.execute("select row_to_json(f) from public.flights f where id = 1").fetchone()
        return {"start_s": time.perf_counter() - began_s}


def _load(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    scripts = resources.files("magmobo.components.demo") / "sql"
    connection.execute(f"create role {ROLE}".encode())
    connection.execute((scripts / "flights_tables.sql").read_bytes())
    for table, columns in COLUMNS.items():
        names = ", ".join(columns.split())
        command = f"copy public.{table} ({names}) from stdin (format csv, header match, null 'NA', freeze)"
        with locate(table).open() as file, connection.cursor().copy(command.encode()) as copy:
            while block := file.read(COPY_BLOCK_BYTES):
                copy.write(block)
    connection.execute((scripts / "flights_finish.sql").read_bytes())


def _bare_second_start(server: BarePostgres) -> Sample:
    began_s = time.perf_counter()
    server.start()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("select 1").fetchone()
    elapsed_s = time.perf_counter() - began_s
    server.stop()
    return {"start_s": elapsed_s}


def _python() -> Sample:
    return _command("-c", "pass")


def _command(*arguments: str) -> Sample:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return {"start_s": time.perf_counter() - began_s}
