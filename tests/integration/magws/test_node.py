from __future__ import annotations

import asyncio

import pytest
from msgspec import json
from pusher import Pusher
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherForbidden
from tests.integration.magws.support import (
    APP_ID,
    KEY,
    SECRET,
    Node,
    announcement,
    connected,
    events,
    execute,
    ids,
    running_node,
)
from websockets.asyncio.client import connect

from magmobo.components.listener.component import ListenerComponent
from magmobo.components.magds.component import MagDS
from magmobo.components.magws.component import MagWS
from magmobo.testing.harness import check_component

TABLE = "create table t (id bigint generated always as identity primary key, kind text, note text)"


async def insert(dsn: str, *statements: str) -> None:
    await asyncio.to_thread(execute, dsn, *statements)


async def test_a_commit_reaches_every_subscriber_once_in_order(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, connected(node.url) as a, connected(node.url) as b:
        await a.subscribe("db.public.t")
        await b.subscribe("db.public.t;id=2")
        await insert(
            dsn,
            "insert into t (kind, note) select 'a', 'é \"' || n from generate_series(1, 50) n",
            "update t set note = 'new' where id = 2",
            "delete from t where id = 2",
            "truncate t",
        )
        got = await a.until("truncate")
        assert ids(got) == [*range(1, 51), 2]
        assert events(got)[-3:] == ["update", "delete", "truncate"]
        assert got[0]["data"]["record"] == {"id": 1, "kind": "a", "note": 'é "1'}
        serials = [message["data"]["serial"] for message in got]
        assert serials == sorted(set(serials))
        assert events(await b.until("truncate")) == ["insert", "update", "delete", "truncate"]


async def test_a_client_that_comes_back_gets_what_it_missed_and_a_restart_changes_nothing(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node:
        async with connected(node.url) as client:
            await client.send("mag:hello", {"resume": []})
            await client.subscribe("db.public.t")
            [position] = await client.until("mag:position")
        await insert(dsn, "insert into t (kind) select 'a' from generate_series(1, 3000)")
        await node.kernel.stop_component("magws")
        await node.kernel.start_component("magws")
        async with connected(node.url) as client:
            await client.send("mag:hello", {"resume": [position["data"]]})
            await client.subscribe("db.public.t")
            missed = await client.until("mag:resumed")
            assert ids(missed) == list(range(1, 3001))
            await insert(dsn, "insert into t (kind) values ('live')")
            assert ids(await client.until("insert")) == [3001]


async def test_subscribers_stay_and_miss_nothing_while_storage_restarts(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, connected(node.url) as client:
        await client.subscribe("db.public.t")
        await insert(dsn, "insert into t (kind) values ('before')")
        await client.until("insert")
        await node.kernel.stop_component("magds")
        await insert(dsn, "insert into t (kind) values ('meanwhile')")
        await node.kernel.start_component("magds")
        await insert(dsn, "insert into t (kind) values ('after')")
        assert ids(await client.until("insert", 2)) == [2, 3]


async def test_a_client_that_sleeps_through_a_bulk_load_gets_all_of_it(dsn: str) -> None:
    execute(dsn, TABLE)
    async with (
        running_node(dsn, "t") as node,
        connected(node.url) as awake,
        connect(f"{node.url}?protocol=7", max_queue=4) as sleeper,
    ):
        await awake.subscribe("db.public.t;id=30001")
        await sleeper.recv()
        await sleeper.send('{"event":"pusher:subscribe","data":{"channel":"db.public.t"}}')
        assert "subscription_succeeded" in str(await sleeper.recv())
        await insert(dsn, "insert into t (note) select repeat('x', 300) from generate_series(1, 30000)")
        await insert(dsn, "insert into t (note) values ('last')")
        await awake.until("insert")
        async with asyncio.timeout(30):
            got = [json.decode(json.decode(await sleeper.recv())["data"])["record"]["id"] for _ in range(30_001)]
        assert got == list(range(1, 30_002))
        assert (await node.component.health()).checks[0].detail.split(", ")[2] != "0 slow"


async def test_unpublished_tables_and_row_security(dsn: str) -> None:
    execute(dsn, TABLE, "create table hidden (id int primary key)", "alter table hidden enable row level security")
    async with running_node(dsn, "t", "hidden", "nowhere") as node, connected(node.url) as client:
        for channel in ("db.public.hidden", "db.public.nowhere", "db.public.pg_class"):
            await client.send("pusher:subscribe", {"channel": channel})
            [refusal] = await client.until("pusher:subscription_error")
            assert refusal["data"]["code"] == "MAG-WS-015"
        notices = "\n".join(announcement(node).notices)
        assert "row level security is on for table public.hidden" in notices
        assert "public.nowhere" in notices
        await client.subscribe("db.public.t")
        await insert(dsn, "alter table t enable row level security")
        [refusal] = await client.until("pusher:subscription_error")
        assert refusal["data"]["code"] == "MAG-WS-018"
        await insert(dsn, "alter table t disable row level security")
        await retry_subscribe(client, "db.public.t")
        await insert(dsn, "insert into t (kind) values ('again')")
        assert len(await client.until("insert")) == 1


async def retry_subscribe(client: object, channel: str) -> None:
    """DDL by others is noticed within a second."""
    async with asyncio.timeout(30):
        while True:
            await client.send("pusher:subscribe", {"channel": channel})  # type: ignore[attr-defined]
            before = len(client.messages)  # type: ignore[attr-defined]
            while len(client.messages) == before:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            if client.messages[-1]["event"] == "pusher_internal:subscription_succeeded":  # type: ignore[attr-defined]
                client._read = len(client.messages)  # type: ignore[attr-defined]
                return


async def test_hostile_frames_over_a_real_socket(dsn: str) -> None:
    async with running_node(dsn) as node:
        for text, code in (("[" * 50_000, 4200), ("no json", 4200), ("x" * 300_000, 1009)):
            async with connected(node.url) as client:
                await client.send_raw(text)
                assert await client.closed() == code
        async with connected(node.url) as client:
            await client.send("pusher:ping")
            await client.until("pusher:pong")


async def test_stopping_asks_clients_to_come_back(dsn: str) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        await node.kernel.stop_component("magws")
        assert await client.closed() == 4200


async def test_announcement_names_address_and_line_to_paste(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node:
        told = announcement(node)
        assert told.urls["realtime"] == f"ws://127.0.0.1:{node.port}/app/{KEY}"
        assert f"examples/subscribe.py {told.urls['realtime']} 'db.public.t'" in "\n".join(told.examples)
        assert SECRET not in repr(told)


def pusher(node: Node, **changes: str) -> Pusher:
    keys = {"app_id": APP_ID, "key": KEY, "secret": SECRET} | changes
    return Pusher(**keys, ssl=False, host="127.0.0.1", port=node.port)


async def test_the_pusher_library_publishes(dsn: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, connected(node.url) as a, connected(node.url) as b:
        for client in (a, b):
            await client.subscribe("room")
            await client.subscribe("private-room")
        server = pusher(node)
        await asyncio.to_thread(server.trigger, ["room", "private-room"], "said", {"a": "é"})
        await asyncio.to_thread(server.trigger, "room", "said", {"a": "é"}, a.socket_id)
        batch = [{"channel": "room", "name": "one", "data": {}}, {"channel": "room", "name": "two", "data": "{}"}]
        assert await asyncio.to_thread(server.trigger_batch, batch) == {}
        assert events(await a.until("two")) == ["said", "said", "one", "two"]
        assert events(await b.until("two")) == ["said", "said", "said", "one", "two"]
        info = await asyncio.to_thread(server.channel_info, "room", ["subscription_count"])
        assert info == {"occupied": True, "subscription_count": 2}
        assert await asyncio.to_thread(server.channels_info, "private-") == {"channels": {"private-room": {}}}
        assert await asyncio.to_thread(server.channel_info, "empty") == {"occupied": False}


@pytest.mark.parametrize("channel", ["db.public.t", "private-db.public.t", "db.public.t;id=1", "mag.status"])
async def test_a_change_cannot_be_forged(dsn: str, channel: str) -> None:
    execute(dsn, TABLE)
    async with running_node(dsn, "t") as node, connected(node.url) as client:
        await client.subscribe("db.public.t")
        await client.subscribe("room")
        with pytest.raises(PusherForbidden, match="MAG-WS-034"):
            await asyncio.to_thread(pusher(node).trigger, ["room", channel], "insert", {})
        with pytest.raises(PusherBadRequest):
            await asyncio.to_thread(pusher(node).trigger, "room", "mag:gap", {})
        await client.send("client-insert", {}, channel)
        assert events(await client.until("pusher:error")) == ["pusher:error"]


async def test_wrong_keys_and_large_data_are_refused(dsn: str) -> None:
    async with running_node(dsn) as node:
        for changes in ({"secret": "x"}, {"key": "x"}, {"app_id": "1"}):
            with pytest.raises(PusherBadAuth):
                await asyncio.to_thread(pusher(node, **changes).trigger, "room", "said", {})
        with pytest.raises(Exception, match="413"):
            await asyncio.to_thread(pusher(node).trigger, "room", "said", "x" * 11_000)


async def test_the_component_leaves_nothing_behind(dsn: str) -> None:
    execute(dsn, TABLE)
    config = {
        "listener": {"port": 0},
        "magds": {"dsn": dsn},
        "magws": {"apps": [{"id": "1", "key": "k", "secret": "s"}], "tables": [{"table": "t"}]},
    }
    await check_component(MagWS, beside=(ListenerComponent, MagDS), config=config)
