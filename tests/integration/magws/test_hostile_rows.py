"""What Postgres accepts as json and a filter cannot read reaches every subscriber all the same."""

from __future__ import annotations

from tests.integration.magws.support import connected, events, execute, running_node


async def test_json_that_postgres_takes_and_we_cannot_read_silences_nobody(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, doc json)", "alter table t replica identity full")
    async with running_node(dsn, "t") as node, connected(node.url) as whole, connected(node.url) as filtered:
        await whole.subscribe("db.public.t")
        await filtered.subscribe("db.public.t;doc=1")
        execute(
            dsn,
            "insert into t values (1, (repeat('[', 3000) || repeat(']', 3000))::json)",
            """insert into t values (2, '"\\ud800"')""",
            "insert into t values (3, '1')",
        )
        for client in (whole, filtered):
            assert events(await client.until("insert", 3)) == ["insert"] * 3
