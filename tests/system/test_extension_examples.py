"""Each of the examples on a real node: packed, signed, installed, approved, and seen doing its work.

Beside them stands what an operator meets on the way: what is refused, and what is said then.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from tests.integration.magws.support import connected
from tests.system.extension_shell import Shell, example, packed, trusted, until

from magmobo.testing.node import NodeProcess, running_node

SECRET = "correct-horse-battery-staple"
FLIGHT = {
    "year": 2013, "month": 1, "day": 1, "sched_dep_time": 515, "dep_delay": 90, "sched_arr_time": 819, "carrier": "AA",
    "flight": 4711, "origin": "JFK", "dest": "SEA", "distance": 1400, "hour": 5, "minute": 15,
    "time_hour": "2013-01-01T05:00:00Z",
}  # fmt: skip
TASK = "insert into public.tasks (team_id, title) values (1, 'Water the plants') returning id"


async def fetched(url: str, body: Any = None) -> Any:
    """What a GET, or a POST of JSON, is answered; None for nothing."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})

    def ask() -> bytes:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
            return found

    text = await asyncio.to_thread(ask)
    return json.loads(text) if text else None


async def insert_task(operator: Shell) -> int:
    """As an application would that has the database to itself; the task's id."""
    dsn = (await operator.mag("magds:dsn")).strip()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        row = await (await connection.execute(TASK)).fetchone()
    assert row is not None
    return int(row[0])


class Receiver:
    """A server that takes webhooks, and answers with `status`."""

    def __init__(self) -> None:
        self.status, self.port = 200, 0
        self.posts: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        writer.write(f"HTTP/1.1 {self.status} As told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        writer.close()
        self.posts.put_nowait((headers, body))

    async def post(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(30):
            return await self.posts.get()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver


async def alerts_of(node: NodeProcess) -> list[dict[str, Any]]:
    found = await fetched(f"{node.base_url}/ext/delay-alerts/alerts?limit=100")
    return [one for one in found if one["flight"] == FLIGHT["flight"]]


async def test_delay_alerts_keeps_an_alert_and_tells_who_listens(data_dir: Path) -> None:
    package = await example(Shell(data_dir.parent), "delay-alerts")
    async with running_node(data_dir, "--demo", "flights") as node:
        operator = Shell(data_dir.parent, node)
        await trusted(operator)
        await operator.mag("extension:install", package, "--approve", "--enable", "--yes")
        async with connected(node.status.urls["realtime"]) as client:
            await client.send("pusher:subscribe", {"channel": "delay-alerts"})
            await client.until("pusher_internal:subscription_succeeded")
            await fetched(f"{node.base_url}/rest/v1/flights", FLIGHT)
            told: dict[str, Any] = {}
            while "AA 4711" not in told.get("text", ""):  # the demo's own departures are late as well
                told = (await client.until("late"))[-1]["data"]
        assert told == {"text": "AA 4711 from JFK to SEA leaves 90 minutes late", "minutes": 90}
        [kept] = await until(lambda: alerts_of(node))
        assert (kept["carrier"], kept["origin"], kept["dest"], kept["delay_minutes"]) == ("AA", "JFK", "SEA", 90)
        shown = await operator.answer("extension:show", "delay-alerts")
        assert (shown["info"]["health"], shown["info"]["signer_name"]) == ("healthy", "the author")
        assert shown["dead"] == 0


async def test_slow_query_log_keeps_what_took_long(data_dir: Path) -> None:
    package = await example(Shell(data_dir.parent), "slow-query-log")
    slow = {"MAG_MAGDS__SLOW_QUERY_S": "0.001"}  # sorting 336,776 flights takes longer anywhere
    async with running_node(data_dir, "--demo", "flights", environment=slow) as node:
        operator = Shell(data_dir.parent, node)
        await trusted(operator)
        await operator.mag("extension:install", package, "--approve", "--enable", "--yes")

        async def worst() -> list[dict[str, Any]]:
            await fetched(f"{node.base_url}/rest/v1/flights?tailnum=neq.N0-0NE&order=dest,tailnum&limit=1")
            found: list[dict[str, Any]] = (await operator.answer("extension:run", "slow-query-log", "top"))["result"]
            return [one for one in found if '"flights"' in one["sql"]]

        kept, *_ = await until(worst)
        assert kept["times"] >= 1
        assert 0 < kept["worst_s"] <= kept["total_s"]
        assert "N0-0NE" not in kept["sql"]
        refused = await operator.refused("extension:run", "slow-query-log", "top", '{"limit": "x"}')
        assert "raised ValueError" in refused
        logged = await operator.mag("extension:logs", "slow-query-log")
        assert 'return await ext.db.fetch(TOP, int(arguments.get("limit", 10)))' in logged


async def test_migration_guard_refuses_what_would_lose_data(data_dir: Path) -> None:
    author = Shell(data_dir.parent)
    guard, alerts = await example(author, "migration-guard"), await example(author, "slow-query-log")
    migrations = author.folder / "slow-query-log" / "migrations"
    (migrations / "0002_gone.up.sql").write_text("drop table slow_queries;", encoding="utf-8")
    (migrations / "0002_gone.down.sql").write_text("create table slow_queries (sql text);", encoding="utf-8")
    manifest = author.folder / "slow-query-log" / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("1.0.0", "1.1.0"), encoding="utf-8")
    worse = await packed(author, "slow-query-log")
    async with running_node(data_dir) as node:
        operator = Shell(author.folder, node)
        await trusted(operator)
        waits, then = await operator.both("extension:install", guard, "--approve", "--enable", "--yes")
        assert "migration-guard 1.0.0 is installed" in waits
        assert "extension:approve migration-guard" in then
        critical = await operator.refused("extension:approve", "migration-guard", "--yes", exit_code=6)
        assert "database.admin, which is critical" in critical
        for wrong in ("guard", "MIGRATION-GUARD"):
            await operator.refused("extension:approve", "migration-guard", "--yes", "--confirm", wrong, exit_code=6)
        await operator.mag("extension:approve", "migration-guard", "--yes", "--confirm", "migration-guard")
        again = await operator.mag("extension:approve", "migration-guard", "--yes")
        assert "nothing that migration-guard asks for waits" in again
        await operator.mag("extension:enable", "migration-guard")

        await operator.mag("extension:install", alerts, "--approve", "--enable", "--yes")
        assert "migration ran" in await operator.mag("extension:logs", "migration-guard")
        refused = await operator.refused("extension:upgrade", worse, "--yes")
        assert "migration-guard denied it: 0002 gone drops a table" in refused
        shown = await operator.answer("extension:show", "slow-query-log")
        assert (shown["info"]["version"], shown["info"]["health"]) == ("1.0.0", "healthy")

        await operator.mag("extension:configure", "migration-guard", 'allowed=["0002"]')
        # What it keeps is gone with its table, so its upgrade passes the guard and fails no check of its own.
        await operator.mag("extension:upgrade", worse, "--yes")
        shown = await operator.answer("extension:show", "slow-query-log")
        assert shown["info"]["version"] == "1.1.0"


async def test_webhook_sender_posts_signed_until_it_is_taken(data_dir: Path) -> None:
    author = Shell(data_dir.parent)
    loopback = {"MAG_EXTENSIONS__HTTP_NETWORKS": '["127.0.0.0/8"]'}
    async with receiving() as receiver:
        place = f"localhost:{receiver.port}"
        changes = {"public.flights": "public.tasks", "hooks.example.com": place}
        package = await example(author, "webhook-sender", changes=changes)
        async with running_node(data_dir, "--demo", "tasks", environment=loopback) as node:
            operator = Shell(author.folder, node)
            await trusted(operator)
            refused = await operator.refused("extension:install", package, "--approve", "--enable", "--yes")
            assert "there must be secret" in refused
            short = await operator.refused("extension:configure", "webhook-sender", "secret=short", exit_code=5)
            assert "does not satisfy minLength: 24 (at $.secret)" in short
            said = await operator.mag(
                "extension:configure", "webhook-sender", "secret=-", f"url=http://{place}/hook", typed=f"{SECRET}\n"
            )
            assert said == "webhook-sender 1.0.0 configured\n"
            await operator.mag("extension:enable", "webhook-sender")

            receiver.status = 503
            task_id = await insert_task(operator)
            first = await receiver.post()
            receiver.status = 200
            second = await receiver.post()
            assert first[0]["webhook-id"] == second[0]["webhook-id"]
            headers, body = second
            change = json.loads(body)["data"]
            assert (change["op"], change["table"], change["record"]["id"]) == ("insert", "tasks", task_id)
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
            assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"

            logged = await operator.mag("extension:logs", "webhook-sender")
            assert "changes could not take an event: NotTaken" in logged
            everything = logged + json.dumps(await operator.answer("extension:show", "webhook-sender")) + node.printed
            assert SECRET not in everything
            assert "a setting of the extension webhook-sender" in await operator.mag("vault:list")
            assert await operator.mag("extension:events", "webhook-sender") == "every event was taken\n"


async def test_what_an_operator_gets_wrong_is_said_and_changes_nothing(data_dir: Path) -> None:
    author = Shell(data_dir.parent)
    package = await example(author, "slow-query-log")
    good = (author.folder / package).read_bytes()
    async with running_node(data_dir) as node:
        operator = Shell(author.folder, node)
        assert "which is not trusted here" in await operator.refused("extension:install", package, "--yes", exit_code=6)
        assert "not confirmed" in await operator.refused("extension:trust", "--add", "author.key.pub")
        assert "private key" in await operator.refused("extension:trust", "--add", "author.key", "--yes", exit_code=5)
        await trusted(operator)
        for place in range(6):  # more than the node keeps at a time
            at = len(good) // 7 * (place + 1)
            (author.folder / "bad.magx").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert "MAG-EXT-16" in (await operator.both("extension:install", "bad.magx", "--yes", exit_code=5))[1]
        await operator.mag("extension:install", package, "--yes")
        needed = await operator.refused("extension:enable", "slow-query-log")
        assert "needs approval for database.schema, system.cron_schedule" in needed
        await operator.mag("extension:approve", "slow-query-log", "--yes")
        await operator.mag("extension:enable", "slow-query-log")

        assert "MAG-EXT-301" in await operator.refused("extension:show", "nobody")
        assert "MAG-EXT-301" in await operator.refused("extension:run", "nobody", "top")
        assert "it offers top" in await operator.refused("extension:run", "slow-query-log", "pot")
        assert "1.0.0 is installed" in await operator.refused("extension:upgrade", package, "--yes", exit_code=6)
        assert "no version before" in await operator.refused("extension:rollback", "slow-query-log", "--yes")
        assert "cannot be removed" in await operator.refused("extension:uninstall", "slow-query-log", "--yes")
        wrong = await operator.refused("extension:revoke", "slow-query-log", "realtime.brodcast", exit_code=2)
        assert "did you mean realtime.broadcast?" in wrong
        wrong = await operator.refused("extension:configure", "slow-query-log", "keep_days=many", exit_code=5)
        assert 'does not satisfy type: "integer" (at $.keep_days)' in wrong
        assert "KEY=VALUE" in await operator.refused("extension:configure", "slow-query-log", exit_code=2)

        await operator.mag("extension:revoke", "slow-query-log", "database.schema")
        denied = await operator.refused("extension:run", "slow-query-log", "top")
        assert "ApiError" in denied
        await operator.mag("extension:grant", "slow-query-log", "database.schema")
        bounds = ("--budget", "1000", "--hours", "09:00-17:00", "--ttl", "8h")
        await operator.mag("extension:grant", "slow-query-log", "realtime.broadcast", *bounds)
        shown = await operator.mag("extension:show", "slow-query-log")
        assert "1000 a day; at 09:00-17:00 UTC; until 20" in shown
        assert (await operator.answer("extension:run", "slow-query-log", "top"))["result"] == []
