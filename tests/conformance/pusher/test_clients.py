"""Stock clients against the real node: pusher-js in node, pysher in Python."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pysher
from msgspec import json
from tests.conformance.pusher.node_client import JS, ROOT, installed, pusher_js
from tests.integration.magws.support import KEY, SECRET, announcement, execute, running_node

TABLE = "create table t (id bigint generated always as identity primary key, kind text)"
CHANNEL = "db.public.t"


async def insert(dsn: str, count: int = 1) -> None:
    await asyncio.to_thread(execute, dsn, f"insert into t (kind) select 'a' from generate_series(1, {count})")


def test_mag_resume_on_its_own() -> None:
    installed()
    ran = subprocess.run(["node", "--test", "test/"], cwd=JS, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout


async def test_pusher_js_sees_every_change_once_over_broken_connections(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, pusher_js(node) as client:
        await client.subscribe(CHANNEL)
        await insert(dsn)
        await client.until(lambda line: line.get("event") == "insert")
        for round_ in range(1, 4):
            await client.do("drop")
            await insert(dsn, 10)
            await client.until(lambda line: "resumed" in line, round_)
            await insert(dsn)
            await client.until(lambda line: line.get("event") == "insert", 1 + 11 * round_)
        assert client.records(CHANNEL) == list(range(1, 35))
        assert not [line for line in client.lines if "gap" in line]


async def test_order_of_frames_on_a_resume(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, pusher_js(node) as client:
        await client.subscribe(CHANNEL)
        await insert(dsn)
        await client.until(lambda line: line.get("event") == "insert")
        await client.do("disconnect")
        await client.until(lambda line: line.get("state") == "disconnected")
        await insert(dsn, 2)
        start = len(client.lines)
        await client.do("connect")
        await client.until(lambda line: "resumed" in line)
        await insert(dsn)
        await client.until(lambda line: line.get("event") == "insert", 4)
        got = [line.get("event") or next(iter(line)) for line in client.lines[start:] if "state" not in line]
        assert got == ["pusher:subscription_succeeded", "insert", "insert", "resumed", "insert"]


async def test_pusher_js_private_tables_and_resume_with_a_new_signature(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, {"table": "t", "access": "private"}) as node, pusher_js(node) as client:
        await client.subscribe("private-db.public.t")
        await client.do("drop")
        await client.authorise("private-db.public.t", 2)
        await insert(dsn)
        await client.until(lambda line: line.get("event") == "insert")
        await client.do("subscribe", channel="private-db.public.other")
        await client.authorise("private-db.public.other")
        [refused] = await client.until(lambda line: line.get("event") == "pusher:subscription_error")
        assert refused["data"]["code"] == "MAG-WS-015"


async def test_pusher_js_resumes_ordinary_channels(dsn: str) -> None:
    async with running_node(dsn) as node, pusher_js(node) as client, pusher_js(node, plain=True) as other:
        for one in (client, other):
            await one.subscribe("private-room")
        await client.until(lambda line: line.get("state") == "connected")
        await other.do("trigger", channel="private-room", event="client-note", data={"n": 1})
        await client.until(lambda line: line.get("event") == "client-note")
        await client.do("disconnect")
        await client.until(lambda line: line.get("state") == "disconnected")
        await other.do("trigger", channel="private-room", event="client-note", data={"n": 2})
        await other.do("trigger", channel="private-room", event="client-note", data={"n": 3})
        await client.do("connect")
        await client.authorise("private-room", 2)
        await client.until(lambda line: "resumed" in line or "gap" in line)
        await client.until(lambda line: line.get("event") == "client-note", 3)
        notes = [line["data"]["n"] for line in client.lines if line.get("event") == "client-note"]
        assert notes == [1, 2, 3]
        assert not [line for line in other.lines if str(line.get("event", "")).startswith("mag:")]


async def test_pusher_js_is_told_of_a_gap_it_cannot_resume(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, pusher_js(node) as client:
        await client.subscribe(CHANNEL)
        await client.do("send", event="mag:hello", data={"resume": [{"channel": CHANNEL, "epoch": "x", "serial": "y"}]})
        [line] = await client.until(lambda line: "gap" in line)
        assert line["gap"]["reason"] == "epoch_changed"
        assert line["gap"]["refetch"] == {"schema": "public", "table": "t"}
        await insert(dsn)
        await client.until(lambda line: line.get("event") == "insert")


async def test_pusher_js_stays_away_or_comes_back_as_the_close_code_says(dsn: str) -> None:
    async with running_node(dsn) as node:
        async with pusher_js(node, key="wrong") as client:
            [line] = await client.until(lambda line: "error" in line)
            assert line["error"]["code"] == 4001
            await client.until(lambda line: line.get("state") == "disconnected")
        async with pusher_js(node) as client:
            await node.kernel.stop_component("magws")
            await client.until(lambda line: line.get("error") and line["error"].get("code") == 4200)
            await node.kernel.start_component("magws")
            await client.until(lambda line: line.get("state") == "connected", 2)


async def test_pysher_follows_a_table(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, {"table": "t", "access": "private"}) as node:
        subscribed, seen = threading.Event(), []
        client = pysher.Pusher(KEY, secret=SECRET, custom_host="127.0.0.1", port=node.port, secure=False)

        def follow(_: str) -> None:
            channel = client.subscribe("private-db.public.t")
            channel.bind("pusher_internal:subscription_succeeded", lambda _: subscribed.set())
            channel.bind("insert", lambda data: seen.append(json.decode(data)["record"]["id"]))

        client.connection.bind("pusher:connection_established", follow)
        client.connect()
        try:
            assert await asyncio.to_thread(subscribed.wait, 10)
            await insert(dsn, 20)
            async with asyncio.timeout(30):
                while len(seen) < 20:
                    await asyncio.sleep(0.01)
            assert seen == list(range(1, 21))
        finally:
            await asyncio.to_thread(client.disconnect, 5)


async def test_the_announced_line_works_as_pasted(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node:
        [line] = [example for example in announcement(node).examples if "subscribe.py" in example]
        script, url, channel = line.replace("'", "").split()[1:]
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, url, channel, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                assert b"subscribed" in await process.stdout.readline()
                await insert(dsn)
                told = await process.stdout.readline()
            assert told.startswith(b"insert ")
            assert b'"kind":"a"' in told
        finally:
            process.terminate()
            await process.wait()


def test_the_example_is_a_file_of_the_project() -> None:
    assert (ROOT / "examples" / "subscribe.py").is_file()
    assert Path(JS / "mag-resume.js").is_file()
