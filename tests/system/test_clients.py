"""Stock clients on a whole node: inserts by REST and by another Postgres client arrive once each, in order."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pysher
import pytest
from msgspec import json
from tests.conformance.pusher.node_client import pusher_js
from tests.crash.support import CHANNEL, TABLE, publish_events, realtime_of

from magmobo.testing.node import NodeProcess, running_node

ROLE = "mag_test_web"
Post = Callable[[Any], list[int]]


@pytest.fixture
def table(dsn: str, data_dir: Path) -> Any:
    """A published table that everybody may read and add to."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"{TABLE}; create role {ROLE}; grant select, insert on public.events to {ROLE}")
        publish_events(data_dir, f'[maggate]\nanonymous_role = "{ROLE}"\n')
        yield dsn
        connection.execute(f"drop owned by {ROLE}; drop role {ROLE}")


def post(node: NodeProcess, rows: Any) -> list[int]:
    """Insert through REST; the ids that came back."""
    request = urllib.request.Request(
        f"{node.base_url}/rest/v1/events?select=id",
        data=json.encode(rows),
        headers={"content-type": "application/json", "prefer": "return=representation"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201
        return [row["id"] for row in json.decode(answer.read())]


def insert(dsn: str, count: int) -> list[int]:
    """Insert as any other program would."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "insert into public.events (batch) select 0 from generate_series(1, %s) returning id", (count,)
        )
        return [row[0] for row in rows]


def write_by_turns(node: NodeProcess, dsn: str) -> list[int]:
    """Ids in the order of commits: one through REST, some by another client, several through REST, …"""
    written: list[int] = []
    for turn in range(1, 6):
        written += post(node, {"batch": turn})
        written += insert(dsn, turn)
        written += post(node, [{"batch": turn}, {"batch": turn}])
    return written


async def test_pusher_js(table: str, data_dir: Path) -> None:
    async with running_node(data_dir, table) as node:
        where, key = realtime_of(node)
        async with pusher_js(where, key=key, plain=True) as client:
            await client.subscribe(CHANNEL)
            written = await asyncio.to_thread(write_by_turns, node, table)
            await client.until(lambda line: line.get("event") == "insert", len(written))
            assert client.records(CHANNEL) == written


@asynccontextmanager
async def following_with_pysher(node: NodeProcess) -> AsyncIterator[list[int]]:
    """Ids that pysher has seen so far; subscribed when the block begins."""
    where, key = realtime_of(node)
    subscribed, seen = threading.Event(), []
    client = pysher.Pusher(key, custom_host="127.0.0.1", port=where.port, secure=False)

    def follow(_: str) -> None:
        channel = client.subscribe(CHANNEL)
        channel.bind("pusher_internal:subscription_succeeded", lambda _: subscribed.set())
        channel.bind("insert", lambda data: seen.append(json.decode(data)["record"]["id"]))

    client.connection.bind("pusher:connection_established", follow)
    client.connect()
    try:
        assert await asyncio.to_thread(subscribed.wait, 20)
        yield seen
    finally:
        await asyncio.to_thread(client.disconnect, 5)


async def test_pysher(table: str, data_dir: Path) -> None:
    async with running_node(data_dir, table) as node, following_with_pysher(node) as seen:
        written = await asyncio.to_thread(write_by_turns, node, table)
        async with asyncio.timeout(20):
            while len(seen) < len(written):
                await asyncio.sleep(0.01)
        assert seen == written
