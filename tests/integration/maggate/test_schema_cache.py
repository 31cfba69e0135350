"""The catalogue as the gateway sees it, and how it follows changes."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from tests.integration.maggate.support import Stack, bearer, load_schema, running_stack

from magmobo.contracts.planes import TableName


async def settle(stack: Stack, count: int) -> None:
    """Let the clock run until `keep_fresh` waits or has loaded `count` new snapshots."""
    seen = {id(stack.cache.snapshot): stack.cache.snapshot}
    async with asyncio.timeout(30):
        while len(seen) <= count:
            await stack.clock.advance(0.1)
            await asyncio.sleep(0.005)
            seen[id(stack.cache.snapshot)] = stack.cache.snapshot


async def test_the_snapshot_holds_types_keys_and_relations(dsn: str) -> None:
    load_schema(dsn)
    async with running_stack(dsn) as stack:
        tables = stack.cache.snapshot.tables

    flights = tables[TableName("public", "flights")]
    types = {column.name: column.type for column in flights.columns.values()}
    assert types["price"] == "numeric"
    assert types["mood"] == "public.mood"
    assert types["tags"] == "text[]"
    assert types["code"] == "character varying"
    assert flights.columns["data"].is_json
    assert [key.name for key in flights.references] == [
        "flights_carrier_fkey", "flights_dest_fkey", "flights_origin_fkey",
    ]  # fmt: skip
    weird = tables[TableName("public", "Weird Table")]
    assert weird.primary_key == ("Some Column", 'quote"d')
    assert tables[TableName("public", "orders")].referenced_by[0].columns == ("region", "number")
    assert tables[TableName("public", "airline_details")].references[0].unique
    assert tables[TableName("public", "flight_counts")].kind == "materialized view"
    assert TableName("public", "parts_eu") not in tables
    assert TableName("private", "items") not in tables


async def test_a_new_table_is_served_after_the_change_was_announced(dsn: str) -> None:
    load_schema(dsn)
    async with running_stack(dsn) as stack:
        keeper = asyncio.create_task(stack.cache.keep_fresh())
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                "create table fresh (id int); grant select on fresh to gate_anon; insert into fresh values (1)"
            )
        assert (await stack.get("fresh")).status == 404
        for _ in range(100):
            stack.cache.invalidate()
        await settle(stack, 1)
        assert (await stack.get("fresh")).json == [{"id": 1}]
        keeper.cancel()


async def test_a_statement_that_meets_another_catalogue_asks_for_a_new_snapshot(dsn: str) -> None:
    load_schema(dsn)
    async with running_stack(dsn) as stack:
        keeper = asyncio.create_task(stack.cache.keep_fresh())
        assert (await stack.get("airlines?carrier=eq.UA")).status == 200
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("alter table airlines rename column name to title")
        stale = await stack.get("airlines?carrier=eq.UA")
        assert (stale.status, stale.json["code"]) == (400, "42703")
        await settle(stack, 1)
        assert (await stack.get("airlines?carrier=eq.UA")).json == [{"carrier": "UA", "title": "United"}]
        keeper.cancel()


async def test_a_changed_type_is_answered_right_at_once(dsn: str) -> None:
    """Prepared statements of the old catalogue may not give wrong rows or poison a connection."""
    load_schema(dsn)
    async with running_stack(dsn, connections=1) as stack:
        for _ in range(8):
            assert (await stack.get("lines?select=id&item=eq.nut")).json == [{"id": 1}]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("alter table lines alter item type varchar(20), add column extra int")
        await stack.get("lines?select=id&item=eq.nut")
        assert (await stack.get("lines?select=id&item=eq.nut")).json == [{"id": 1}]


async def test_the_old_snapshot_serves_while_the_database_refuses_a_new_one(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_schema(dsn)
    async with running_stack(dsn) as stack:
        keeper = asyncio.create_task(stack.cache.keep_fresh())
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("revoke execute on function format_type from public")
            stack.cache.invalidate()
            async with asyncio.timeout(30):
                while not stack.cache.last_error:
                    await stack.clock.advance(0.1)
                    await asyncio.sleep(0.005)
            assert (await stack.get("airlines?select=carrier&limit=1&order=carrier")).json == [{"carrier": "AA"}]
            admin.execute("grant execute on function format_type to public")
        await settle(stack, 1)
        assert stack.cache.last_error == ""
        keeper.cancel()


async def test_a_profile_header_chooses_the_schema(dsn: str) -> None:
    load_schema(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("grant insert on shop.items to gate_user")
    async with running_stack(dsn) as stack:
        made = await stack.ask(
            "POST", "items", '{"id": 2, "name": "cap"}', bearer(role="gate_user") | {"Content-Profile": "shop"}
        )
        refused = await stack.ask("POST", "items", "{}", bearer(role="gate_user") | {"Content-Profile": "private"})
        found = await stack.get("items?id=eq.2", {"Accept-Profile": "shop"})

    assert (made.status, made.headers["content-profile"]) == (201, "shop")
    assert refused.json["details"] == "Only the following schemas are exposed: public, shop"
    assert found.json == [{"id": 2, "name": "cap"}]
