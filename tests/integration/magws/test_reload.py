"""MagWS takes other settings while clients are connected: apps, secrets, tables, limits; or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pusher import Pusher
from pusher.errors import PusherBadAuth
from tests.integration.magws.support import (
    APP_ID,
    KEY,
    SECRET,
    Client,
    Node,
    connected,
    events,
    execute,
    ids,
    running_node,
)
from websockets.asyncio.client import connect

from magmobo.components.magws import signing
from magmobo.components.magws.config import AppConfig, MagWSConfig, TableConfig
from magmobo.contracts.errors import ConfigError
from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import Effect
from magmobo.kernel.config.effects import effect_of

TABLE = "create table {name} (id bigint generated always as identity primary key, note text)"
OTHER = AppConfig(id="43", key="other-key", secret=Secret("other-secret"))


async def take(node: Node, **changed: Any) -> None:
    """What a reload does with this component."""
    component = node.component
    await component.prepare_reload(msgspec.structs.replace(component._config, **changed), changed.keys())
    component.commit_reload()


def app(**changed: Any) -> AppConfig:
    return AppConfig(**({"id": APP_ID, "key": KEY, "secret": Secret(SECRET), "client_events": True} | changed))


def table(name: str, **changed: Any) -> TableConfig:
    return TableConfig(**({"table": name, "access": "public"} | changed))


def pusher(node: Node, secret: str = SECRET, key: str = KEY, app_id: str = APP_ID) -> Pusher:
    return Pusher(app_id=app_id, key=key, secret=secret, host="127.0.0.1", port=node.port, ssl=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def subscribe(client: Client, channel: str, secret: str, key: str = KEY) -> str:
    """The event that answers a subscription signed with `secret`."""
    auth = signing.channel_auth(key, Secret(secret), client.socket_id, channel)
    seen = len(client.messages)
    await client.send("pusher:subscribe", {"channel": channel, "auth": auth})
    await until(lambda: len(client.messages) > seen)
    return str(client.messages[seen]["event"])


async def close_code_at(url: str) -> int | None:
    async with connect(f"{url}?protocol=7&client=test") as socket:
        await socket.wait_closed()
        return socket.close_code


def test_every_key_is_live() -> None:
    for field in MagWSConfig.__struct_fields__:
        assert effect_of(MagWSConfig, field, default=Effect.COMPONENT) is Effect.LIVE, field


async def test_apps_come_and_go_and_clients_of_the_others_notice_nothing(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"))
    async with running_node(dsn, "t") as node, connected(node.url) as stays:
        await stays.subscribe("db.public.t")
        url = node.url.replace(KEY, OTHER.key)
        assert await close_code_at(url) == 4001
        await take(node, apps=(app(), OTHER))
        async with connected(url) as comes, connected(url) as too:
            await comes.send("pusher:subscribe", {"channel": "db.public.t"})
            await comes.until("pusher_internal:subscription_succeeded")
            await asyncio.to_thread(execute, dsn, "insert into t (note) values ('both')")
            assert ids(await comes.until("insert")) == ids(await stays.until("insert")) == [1]
            assert (
                await asyncio.to_thread(pusher(node, "other-secret", OTHER.key, OTHER.id).trigger, "c", "e", {}) == {}
            )
            await take(node, apps=(app(),))
            await asyncio.to_thread(execute, dsn, "insert into t (note) values ('while they go')")
            assert {await comes.closed(), await too.closed()} == {4001}
            assert any(
                message["data"]["code"] == 4001 for message in comes.messages if message["event"] == "pusher:error"
            )
        assert await close_code_at(url) == 4001
        with pytest.raises(PusherBadAuth):
            await asyncio.to_thread(pusher(node, "other-secret", OTHER.key, OTHER.id).trigger, "c", "e", {})
        assert ids(await stays.until("insert")) == [2]
        clients = node.component._plane.clients
        assert clients.by_app == {APP_ID: clients.by_app[APP_ID], OTHER.id: {}}
        await take(node, max_channels=100)
        assert set(clients.by_app) == {APP_ID}
        assert len(node.component._plane) == 1


async def test_who_has_not_left_yet_is_still_told_of_changes(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"))
    async with running_node(dsn, "t", max_connections=5) as node, connected(node.url) as client:
        await client.subscribe("db.public.t")
        asked: list[Any] = []
        node.component._plane.leavers.add = lambda *leaver: asked.append(leaver)  # type: ignore[method-assign, assignment]
        await take(node, apps=(OTHER,))
        assert [code for _, code, _ in asked] == [4001]
        await asyncio.to_thread(execute, dsn, "insert into t (note) values ('a')")
        assert ids(await client.until("insert")) == [1]
        await take(node, apps=(app(),))


async def test_a_rotated_secret_counts_at_once_for_clients_that_stay(dsn: str) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        assert await subscribe(client, "private-a", SECRET) == "pusher_internal:subscription_succeeded"
        await take(node, apps=(app(secret=Secret("rotated")),))
        assert await subscribe(client, "private-b", SECRET) == "pusher:subscription_error"
        assert await subscribe(client, "private-b", "rotated") == "pusher_internal:subscription_succeeded"
        with pytest.raises(PusherBadAuth):
            await asyncio.to_thread(pusher(node).trigger, "private-a", "old", {})
        await asyncio.to_thread(pusher(node, "rotated").trigger, "private-a", "new", {"n": 1})
        assert events(await client.until("new"))[-1] == "new"
        token = node.component.authorise(client.socket_id, "private-a")
        assert token == signing.channel_auth(KEY, Secret("rotated"), client.socket_id, "private-a")
        await take(node, apps=(app(secret=Secret("rotated"), key="moved"),))
        assert await close_code_at(node.url) == 4001
        assert node.component.app_key == "moved"
        assert await subscribe(client, "private-c", "rotated", "moved") == "pusher_internal:subscription_succeeded"


async def test_a_call_that_was_taken_stays_taken_when_something_else_changes(dsn: str) -> None:
    async with running_node(dsn) as node:
        api = node.component._api
        assert api is not None
        guard = api._guards[APP_ID]
        await take(node, apps=(app(max_event_bytes=2_000), OTHER))
        assert api._guards[APP_ID] is guard
        await take(node, apps=(app(secret=Secret("rotated")),))
        assert api._guards[APP_ID] is not guard


async def test_tables_come_go_and_change_their_access(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"), TABLE.format(name="u"))
    async with running_node(dsn, "t") as node, connected(node.url) as client:
        await client.subscribe("db.public.t")
        assert await subscribe(client, "db.public.u", SECRET) == "pusher:subscription_error"
        await take(node, tables=(table("t"), table("u")))
        await until(lambda: "db.public.u" in node.component.table_channels())
        await client.subscribe("db.public.u")
        await asyncio.to_thread(execute, dsn, "insert into u (note) values ('a')", "insert into t (note) values ('b')")
        got = await client.until("insert", 2)
        assert [message["channel"] for message in got] == ["db.public.u", "db.public.t"]
        await take(node, tables=(table("t"), table("u", access="private")))
        refused = (await client.until("pusher:subscription_error"))[-1]
        assert refused["channel"] == "db.public.u"
        await until(lambda: "private-db.public.u" in node.component.table_channels())
        await client.subscribe("private-db.public.u")
        await take(node, tables=(table("u", access="private"),))
        assert (await client.until("pusher:subscription_error"))[-1]["channel"] == "db.public.t"
        await asyncio.to_thread(execute, dsn, "insert into t (note) values ('no')", "insert into u (note) values ('c')")
        assert [message["channel"] for message in await client.until("insert")] == ["private-db.public.u"]
        assert "t" not in str((await node.component.health()).checks[1].detail)


async def test_a_table_under_row_level_security_is_withdrawn_in_the_very_turn_its_entry_says_refuse(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"), "alter table t enable row level security")
    entry = {"table": "t", "access": "public", "rls": "ignore"}
    async with running_node(dsn, entry) as node, connected(node.url) as client:
        await client.subscribe("db.public.t")
        await take(node, tables=(table("t"),))
        assert node.component.table_channels() == []  # no turn of the loop lay in between
        assert node.component._plane.registry.find(APP_ID, "db.public.t") is None
        assert [refusal.code for refusal in node.component._book.refused.values()] == ["MAG-WS-018"]
        await client.until("pusher:subscription_error")
        assert "row level security" in (await node.component.health()).checks[1].detail
        await take(node, tables=(table("t", rls="ignore"),))
        await until(lambda: node.component.table_channels() == ["db.public.t"])


async def test_a_refresh_that_is_under_way_does_not_bring_former_entries_back(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"), TABLE.format(name="u"))
    async with running_node(dsn, "t", "u") as node:
        book, changes = node.component._book, node.component._book._changes
        begun, go_on = asyncio.Event(), asyncio.Event()

        class Slow:
            async def publish(self, tables: Any) -> Any:
                begun.set()
                await go_on.wait()
                return await changes.publish(tables)

            def published(self, name: Any) -> Any:
                return changes.published(name)

        book._changes = Slow()  # type: ignore[assignment]
        book._facts = None
        refreshing = asyncio.create_task(book.refresh())
        await begun.wait()
        book._changes = changes
        await take(node, tables=(table("u"),))
        go_on.set()
        assert await refreshing is False
        assert "db.public.t" not in node.component.table_channels()
        await until(lambda: node.component.table_channels() == ["db.public.u"])
        await until(lambda: book._facts is not None)
        assert changes.published(next(iter(book._configured))) is not None


async def test_limits_hold_for_clients_that_are_connected(dsn: str) -> None:
    execute(dsn, TABLE.format(name="t"))
    async with running_node(dsn, "t") as node, connected(node.url) as client:
        await client.subscribe("private-a")
        await take(node, max_channels=1)
        assert await subscribe(client, "private-b", SECRET) == "pusher:subscription_error"
        await take(node, max_channels=10, apps=(app(client_events=False),))
        await client.send("client-x", {}, "private-a")
        assert (await client.until("pusher:error"))[-1]["data"]["code"] == 4301
        await take(node, max_connections=1)
        assert await close_code_at(node.url) == 4100
        await take(node, max_connections=10, apps=(app(max_row_bytes=1_024),))
        await client.subscribe("db.public.t")
        await asyncio.to_thread(execute, dsn, "insert into t (note) values (repeat('x', 2000))")
        assert (await client.until("insert"))[-1]["data"]["refetch"] is True


async def test_histories_are_cut_to_their_new_bounds_at_once(dsn: str) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        await client.send("mag:hello", {"resume": []})
        await client.subscribe("private-a")
        for number in range(10):
            node.component.publish(["private-a"], "e", str(number))
        log = next(iter(node.component._plane.registry)).log
        assert log is not None
        assert len(log.kept) == 10
        await take(node, history_messages=4)
        assert len(log.kept) == 4
        await take(node, history_bytes=1)
        assert not log.kept
        node.component.publish(["private-a"], "e", "x")
        assert not log.kept


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"apps": (app(), app(key="k2"))}, "apps.id: 42 occurs more than once"),
        ({"apps": (app(), app(id="44"))}, "apps.key: app-key occurs more than once"),
        ({"tables": (table("t"), table("t", access="private"))}, "tables.table: t occurs more than once"),
    ],
)
async def test_what_is_listed_twice_is_refused_and_nothing_changes(
    dsn: str, changed: dict[str, Any], problem: str
) -> None:
    async with running_node(dsn) as node, connected(node.url) as client:
        before = node.component._config
        with pytest.raises(ConfigError, match=problem):
            await take(node, max_connections=1, **changed)
        await node.component.abort_reload()
        node.component.commit_reload()  # a stray call takes nothing
        assert node.component._config is before
        assert await subscribe(client, "private-a", SECRET) == "pusher_internal:subscription_succeeded"
