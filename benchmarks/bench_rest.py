"""Reads over HTTP: the whole node with wrk (1 thread, 16 connections) beside pgbench (5 connections, 1 thread) running
the very SQL of the gateway on the same server, each read in a transaction that sets role and claims.

The rows are flights by random primary keys, and the 100 most delayed flights to Seattle. pgbench is run in two ways:
statement by statement, as most drivers would, and pipelined. It parses no HTTP, no query and no token. Load generator,
node and server share the machine's cores.
"""

from __future__ import annotations

import random
import secrets
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from benchmarks.gateway_sql import gateway_script
from benchmarks.loads import pgbench, wrk
from benchmarks.measure import QUICK_ROUNDS, Figure, Sample, figure, interleaved, median_of
from benchmarks.nodes import ROLE, FlightsNode, flights_node

HTTP_CONNECTIONS, BENCH_CONNECTIONS = 16, 5
WARM_UP_S, DURATION_S, QUICK_DURATION_S = 1, 2, 1
FLIGHTS, KEYS, SEED = 336_776, 4_096, 20130101
KEY_QUERY, DRAW_KEY = "id=eq.1", f"\\set v1 random(1, {FLIGHTS})"
PAGE_QUERY = "dest=eq.SEA&order=dep_delay.desc.nullslast&limit=100"
KEY, KEY_TOKEN, PAGE = "row by primary key", "row by primary key, with a token", "list of 100 rows"
ONE_BY_ONE, PIPELINED = "pgbench", "pgbench pipelined"


def run(rounds: int) -> list[Figure]:
    """Requests per second beside transactions per second."""
    secret = secrets.token_urlsafe(32)
    settings = {"MAG_MAGGATE__JWT__SECRET": secret}
    with tempfile.TemporaryDirectory(prefix="mag-bench-") as folder, flights_node(**settings) as node:
        loads = _http_loads(node, secret, Path(folder)) | _bench_loads(node.dsn, Path(folder))
        for load in loads.values():
            load(duration_s=WARM_UP_S)
        duration_s = DURATION_S if rounds > QUICK_ROUNDS else QUICK_DURATION_S
        samples = interleaved(rounds, {name: partial(load, duration_s=duration_s) for name, load in loads.items()})
    return [
        _figure(samples, subject, read, mode)
        for subject, read in ((KEY, KEY), (KEY_TOKEN, KEY), (PAGE, PAGE))
        for mode in (ONE_BY_ONE, PIPELINED)
    ]


def _http_loads(node: FlightsNode, secret: str, folder: Path) -> dict[str, Callable[..., Sample]]:
    url, chosen = urlsplit(node.rest_url), random.Random(SEED)
    keys = [f"{url.path}flights?id=eq.{chosen.randint(1, FLIGHTS)}" for _ in range(KEYS)]
    claims = {"role": ROLE, "sub": "1", "exp": int(time.time()) + 3_600}
    token = jwt.encode(claims, secret, algorithm="HS256")
    load = partial(wrk, f"http://{url.netloc}", folder=folder, connections=HTTP_CONNECTIONS)
    return {
        KEY: partial(load, keys),
        KEY_TOKEN: partial(load, keys, token=token),
        PAGE: partial(load, [f"{url.path}flights?{PAGE_QUERY}"]),
    }


def _bench_loads(dsn: str, folder: Path) -> dict[str, Callable[..., Sample]]:
    loads: dict[str, Callable[..., Sample]] = {}
    for mode in (ONE_BY_ONE, PIPELINED):
        script = partial(gateway_script, dsn, "flights", role=ROLE, pipelined=mode == PIPELINED)
        for read, query, draw in ((KEY, KEY_QUERY, DRAW_KEY), (PAGE, PAGE_QUERY, "")):
            loads[f"{mode}, {read}"] = partial(
                pgbench, dsn, script(query, draw=draw), folder=folder, connections=BENCH_CONNECTIONS
            )
    return loads


def _figure(samples: dict[str, list[Sample]], subject: str, read: str, mode: str) -> Figure:
    p50_ms, p99_ms = (median_of(samples[subject], key) for key in ("p50_ms", "p99_ms"))
    note = f"latency p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms." if mode == ONE_BY_ONE else ""
    return figure(
        subject,
        "1/s",
        "higher",
        [sample["per_s"] for sample in samples[subject]],
        yardstick=mode,
        yardstick_values=[sample["per_s"] for sample in samples[f"{mode}, {read}"]],
        note=note,
    )
