"""The promise about loss, under kill -9: every committed row once and in order, or inside an explicit gap."""

from __future__ import annotations

import asyncio
import random
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from msgspec import json
from tests.conformance.pusher.node_client import NodeClient, pusher_js
from tests.crash.support import CHANNEL, TABLE, Writer, judge, publish_events, realtime_of

from magmobo.admin.data_folder import DataFolder
from magmobo.admin.offline import embedded_access
from magmobo.testing.node import NodeProcess, start_node

BULK = "select 0 from generate_series(1, 20000)"


def is_row(line: dict[str, Any]) -> bool:
    return line.get("channel") == CHANNEL and line.get("event") == "insert"


def is_answer(line: dict[str, Any]) -> bool:
    return "resumed" in line or "gap" in line


def has_row(row: int) -> Any:
    return lambda line: is_row(line) and line["data"]["record"]["id"] >= row


async def kill_while_booting(data_dir: Path, dsn: str, port: int, after_s: float) -> None:
    """One more crash, at a moment nobody chose, before the node is ready."""
    starting = asyncio.create_task(start_node(data_dir, dsn, port=port))
    await asyncio.wait([starting], timeout=after_s)
    if starting.done():
        await starting.result().kill()
    else:
        starting.cancel()  # start_node kills the process when it is cancelled
        await asyncio.wait([starting])


async def survive(
    data_dir: Path, dsn: str, writer: Writer, *, kills: int, while_dead: Callable[[], None] = lambda: None
) -> NodeClient:
    """Kill the node `kills` times under writes while one client stays; returns the client with all it saw."""
    chance = random.Random(kills)
    node = await start_node(data_dir, dsn)
    where, key = realtime_of(node)
    try:
        async with pusher_js(where, key=key) as client:
            await client.subscribe(CHANNEL)
            writer.start()
            for number in range(1, kills + 1):
                rows = sum(map(is_row, client.lines))
                await client.until(is_row, rows + chance.randint(1, 60))
                await node.kill()
                while_dead()
                if number % 5 == 0:
                    await kill_while_booting(data_dir, dsn, where.port, chance.uniform(0.02, 0.3))
                node = await start_node(data_dir, dsn, port=where.port)
                await client.until(is_answer, number)
            rows = sum(map(is_row, client.lines))
            await client.until(is_row, rows + 1)  # after a gap: it is live again
            await client.until(has_row(writer.end()[-1]))
            return client
    finally:
        writer.end()
        await node.stop()
        await node.kill()


async def test_twenty_kills_of_the_node_lose_nothing(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
    publish_events(data_dir)
    writer = Writer(dsn, seed=1)
    client = await survive(data_dir, dsn, writer, kills=20)
    gaps = judge(client.lines, writer.committed)
    assert gaps == 0, "the window of five minutes covers every outage of this test"
    assert len(writer.committed) > 100


async def advance(writer: Writer, rows: int) -> None:
    """Return once the writer has committed so many rows more."""
    wanted = len(writer.committed) + rows
    async with asyncio.timeout(60):
        while len(writer.committed) < wanted:
            await asyncio.sleep(0.02)


async def test_a_client_that_was_away_when_the_node_died_misses_nothing(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
    publish_events(data_dir)
    writer = Writer(dsn, seed=3)
    node = await start_node(data_dir, dsn)
    where, key = realtime_of(node)
    try:
        async with pusher_js(where, key=key) as client:
            await client.subscribe(CHANNEL)
            writer.start()
            for number in range(1, 4):
                await client.until(is_row, sum(map(is_row, client.lines)) + 1)
                await client.do("disconnect")
                # seconds of work, in which a node that confirmed what it only has read would let the log go
                await advance(writer, 1_000)
                await node.kill()
                node = await start_node(data_dir, dsn, port=where.port)
                await client.do("connect")
                await client.until(is_answer, number)
            await client.until(has_row(writer.end()[-1]))
        assert judge(client.lines, writer.committed) == 0
    finally:
        writer.end()
        await node.stop()
        await node.kill()


async def test_a_window_too_small_is_told_as_a_gap(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLE)
    publish_events(data_dir, "[magds]\nhistory_bytes = 1048576\n")
    bulk: list[int] = []

    def more_than_the_window() -> None:
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(f"insert into public.events (batch) {BULK} returning id").fetchall()
        bulk.extend(row[0] for row in rows)

    writer = Writer(dsn, seed=2)
    client = await survive(data_dir, dsn, writer, kills=2, while_dead=more_than_the_window)
    assert judge(client.lines, sorted(writer.committed + bulk)) > 0


def post(url: str, batch: int) -> list[int]:
    """One row through REST; its id when the answer came, nothing when the node died meanwhile."""
    request = urllib.request.Request(
        f"{url}/rest/v1/events",
        data=json.encode({"batch": batch}),
        headers={"content-type": "application/json", "prefer": "return=representation"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [row["id"] for row in json.decode(answer.read())]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return []


async def post_until(node: NodeProcess, committed: list[int], stop: asyncio.Event) -> None:
    while not stop.is_set():
        committed += await asyncio.to_thread(post, node.base_url, len(committed))


WEB_ROLE = "create role web; grant web to mag; grant select, insert on public.events to web"
EMBEDDED = """
[maggate]
anonymous_role = "web"
"""


async def test_the_embedded_database_and_its_node_die_together_and_lose_nothing(data_dir: Path) -> None:
    publish_events(data_dir)
    node = await start_node(data_dir)
    committed: list[int] = []
    try:
        with psycopg.connect(embedded_access(DataFolder(data_dir))[0], autocommit=True) as connection:
            connection.execute(f"{TABLE}; {WEB_ROLE}")
        await node.stop()
        publish_events(data_dir, EMBEDDED)
        node = await start_node(data_dir)
        where, key = realtime_of(node)
        async with pusher_js(where, key=key) as client:
            await client.subscribe(CHANNEL)
            for number in range(1, 6):
                stop = asyncio.Event()
                posting = asyncio.create_task(post_until(node, committed, stop))
                rows = sum(map(is_row, client.lines))
                await client.until(is_row, rows + 20)
                await node.kill()
                stop.set()
                await posting
                node = await start_node(data_dir, port=where.port)
                await client.until(is_answer, number)
            committed += await asyncio.to_thread(post, node.base_url, 0)
            await client.until(has_row(committed[-1]))
        with psycopg.connect(embedded_access(DataFolder(data_dir))[0]) as connection:
            kept = {row[0] for row in connection.execute("select id from public.events")}
        assert set(committed) <= kept, "a row that REST had confirmed is gone"
        assert judge(client.lines, committed) == 0
    finally:
        await node.stop()
        await node.kill()
