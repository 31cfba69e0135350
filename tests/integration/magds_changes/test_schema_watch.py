"""DDL by anybody is seen within a second, with and without an event trigger."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.integration.magds_changes.harness import Node, execute, query, record, running, table, until

from magmobo.components.magds import schema_watch
from magmobo.testing.postgres import running_postgres

DDL = (
    "create table t (id int primary key)",
    "alter table t add a text",
    "alter table t rename a to b",
    "alter table t alter b type varchar(9)",
    "alter table t add constraint c check (id > 0)",
    "comment on column t.b is 'note'",
    "create function f() returns int language sql as 'select 1'",
    "create policy p on t using (true)",
    "grant select on t to public",
    "create view v as select * from t",
    "drop view v",
    "create type mood as enum ('sad')",
    "alter type mood add value 'glad'",
    "create role r_{0}",
    "grant r_{0} to current_user",
    "revoke r_{0} from current_user",
    "drop role r_{0}",
    "drop table t",
    "create schema s",
)


@pytest.mark.parametrize("superuser", [True, False], ids=["event trigger", "fingerprint"])
async def test_every_ddl_is_seen_within_a_second(dsn: str, superuser: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in looks, two of which take no second: how long one takes here is this machine's."""
    assert 2 * schema_watch._POLL_S <= 1
    monkeypatch.setattr(schema_watch, "_POLL_S", 0.1)  # for the sake of the suite's time
    looks, look = 0, schema_watch.SchemaWatch._look

    async def counted(self: schema_watch.SchemaWatch, *args: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        return await look(self, *args, **more)

    monkeypatch.setattr(schema_watch.SchemaWatch, "_look", counted)
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    execute(dsn, f"create role plain_{name} login")
    node = Node(dsn if superuser else psycopg.conninfo.make_conninfo(dsn, user=f"plain_{name}"))
    await node.watch.start()
    assert node.watch.uses_event_trigger is superuser
    for statement in DDL:
        seen, before = len(node.schema), looks
        execute(dsn, statement.format(name))
        await until(lambda seen=seen: len(node.schema) > seen, statement)
        assert looks - before <= 2, statement
    await node.watch.stop()
    execute(dsn, f"drop role plain_{name}")


async def test_a_burst_is_one_event_and_temporary_tables_none(dsn: str) -> None:
    node = Node(dsn)
    await node.watch.start()
    execute(dsn, "create temp table x (a int)", "create temp table y as select 1")
    with psycopg.connect(dsn, autocommit=True) as client, client.pipeline():
        for number in range(30):
            client.execute(f"create table t{number} (id int)".encode())
    await until(lambda: node.schema)
    assert [event.reason for event in node.schema] == ["notify"] * len(node.schema)
    assert len(node.schema) <= 3
    await node.watch.stop()


async def test_the_watch_comes_back_and_says_so(dsn: str) -> None:
    node = Node(dsn)
    await node.watch.start()
    query(dsn, "select pg_terminate_backend(pid) from pg_stat_activity where query ~ 'pg_auth_members|from ours' "
               "and datname = current_database() and pid <> pg_backend_pid()")  # fmt: skip
    await until(lambda: node.schema)
    assert [event.reason for event in node.schema] == ["reconnect"]
    execute(dsn, "create table t (id int)")
    await until(lambda: len(node.schema) == 2)
    await node.watch.stop()


async def test_ddl_may_be_part_of_a_prepared_transaction() -> None:
    with running_postgres(max_prepared_transactions="2") as server, server.database() as dsn:
        async with running(dsn, watch=True) as node:
            assert not node.watch.uses_event_trigger
            execute(dsn, "begin; create table t (id int); prepare transaction 'x'")
            seen = len(node.schema)
            execute(dsn, "commit prepared 'x'")
            await until(lambda: len(node.schema) > seen)


async def test_a_table_made_anew_behind_a_dropped_trigger_is_a_gap(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t", watch=True) as node:
        await node.service.caught_up()
        execute(
            dsn,
            "drop schema mag cascade",
            "drop table t",
            "create table t (id int primary key)",
            "create index concurrently on t (id)",
            "insert into t values (1)",
        )
        await until(lambda: node.lost)
        await until(lambda: node.service.published(table("t")) and node.watch.uses_event_trigger)
        execute(dsn, "insert into t values (2)")
        await until(lambda: [record(change)["id"] for change in node.changes] == [2])


async def test_ddl_past_the_trigger_is_seen_all_the_same(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magmobo.components.magds.schema_watch._POLL_S", 0.05)
    node = Node(dsn)
    await node.watch.start()
    execute(dsn, "set event_triggers = off; create table t (id int)")
    await until(lambda: len(node.schema) == 1)
    execute(dsn, "alter event trigger mag_ddl disable")
    await until(lambda: not node.watch.uses_event_trigger)
    seen = len(node.schema)
    execute(dsn, "drop table t")
    await until(lambda: len(node.schema) > seen)
    assert query(dsn, "select evtenabled from pg_event_trigger") == [("D",)]
    await node.watch.stop()
