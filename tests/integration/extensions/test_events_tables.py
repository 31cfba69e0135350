"""Changes of tables to extensions: rows and columns they may see, nothing lost and nothing twice over restarts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.integration.extensions.event_support import (
    FakeWorker,
    binding,
    execute,
    installed,
    query,
    running_node,
    until,
)

from magmobo.extensions.events import router
from magmobo.extensions.installed import Installed
from magmobo.extensions.package.manifest import EventBinding


def follows(*tables: str, **more: Any) -> EventBinding:
    return binding("database.change", tables=list(tables), **more)


def reader(*bindings: EventBinding, tables: list[str], extension_id: str = "reader") -> Installed:
    return installed(extension_id, *bindings, grants={"database.read": {"tables": tables}})


def ids(worker: FakeWorker, name: str = "heard") -> list[int]:
    return [data["record"]["id"] for data in worker.data(name) if data["op"] == "insert"]


async def test_changes_are_told_with_their_rows(dsn: str) -> None:
    execute(dsn, "create table public.flights (id int primary key, delay int, note text)")
    async with running_node(dsn) as node:
        worker = FakeWorker(reader(follows("public.flights"), tables=["public.flights"]))
        await node.router.attach(worker)
        execute(
            dsn,
            "insert into public.flights values (1, 5, 'a'), (2, 90, null)",
            "update public.flights set delay = 7 where id = 1",
            "delete from public.flights where id = 2",
            "truncate public.flights",
        )
        await until(lambda: len(worker.told) == 5)
        seen = worker.data()
        assert [data["op"] for data in seen] == ["insert", "insert", "update", "delete", "truncate"]
        assert seen[0]["record"] == {"id": 1, "delay": 5, "note": "a"}
        assert (seen[0]["schema"], seen[0]["table"]) == ("public", "flights")
        assert seen[2]["record"]["delay"] == 7
        assert seen[3]["record"] is None
        assert [data["position"] for data in seen] == sorted(data["position"] for data in seen)


async def test_only_granted_tables_and_columns_and_a_filter_that_sees_no_more(dsn: str) -> None:
    execute(
        dsn,
        "create table public.people (id int primary key, name text, salary int)",
        "create table public.other (id int primary key)",
    )
    async with running_node(dsn) as node:
        extension = reader(
            follows("public.people", "public.other"),
            follows("public.people", name="rich", where={"data.record.salary": {"$gt": 100}}),
            follows("public.people", name="named", where={"data.record.name": "ann"}),
            tables=["public.people(id, name)"],
        )
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        execute(
            dsn,
            "insert into public.people values (1, 'ann', 1000), (2, 'bob', 2000)",
            "insert into public.other values (1)",
        )
        await until(lambda: len(worker.data()) == 2 and worker.data("named"))
        assert [data["record"] for data in worker.data()] == [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]
        assert [data["record"]["id"] for data in worker.data("named")] == [1]
        assert worker.data("rich") == [], "a condition on a hidden column is never met"
        extension.grants = reader(tables=["public.people(id)"]).grants
        execute(dsn, "insert into public.people values (3, 'cid', 1)")
        await until(lambda: len(worker.data()) == 3)
        assert worker.data()[2]["record"] == {"id": 3}
        extension.grants = {}
        execute(dsn, "insert into public.people values (4, 'dan', 1)")
        await until(lambda: query(dsn, "select min(cursor_seq) from mag.extension_subscription") == [(5,)])
        extension.grants = reader(tables=["public.people(id)"]).grants
        execute(dsn, "insert into public.people values (5, 'eve', 1)")
        await until(lambda: ids(worker)[-1:] == [5])
        assert ids(worker) == [1, 2, 3, 5], "what came by while it had no right is not told later"


async def test_a_restart_loses_nothing_and_tells_nothing_twice(dsn: str) -> None:
    execute(dsn, "create table public.t (id int primary key)", "create table public.quiet (id int primary key)")
    extension = reader(follows("public.t", "public.quiet"), tables=["public.t", "public.quiet"])
    told: list[int] = []
    for round_number in range(3):
        async with running_node(dsn) as node:
            worker = FakeWorker(extension)
            await node.router.attach(worker)
            start = round_number * 100
            execute(dsn, f"insert into public.t select generate_series({start}, {start + 49})")
            await until(lambda worker=worker, start=start: ids(worker)[-1:] == [start + 49])
            await node.router.detach("reader")
        assert worker.gaps() == []
        told += ids(worker)
        execute(dsn, f"insert into public.t select generate_series({start + 50}, {start + 99})")  # nobody reads
    assert told == [*range(250)]


async def test_a_consumer_that_was_killed_goes_on_where_the_log_ends(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "STOP_PATIENCE_S", 0.2)
    execute(dsn, "create table public.t (id int primary key)")
    extension = reader(follows("public.t"), tables=["public.t"])
    async with running_node(dsn) as node:
        first = FakeWorker(extension)
        await node.router.attach(first)
        execute(dsn, "insert into public.t values (1)")
        await until(lambda: ids(first) == [1])
        for task in node.router._tasks:  # the router dies with what it has not logged; the stream goes on
            task.cancel()
        execute(dsn, "insert into public.t select generate_series(2, 40)")
        await node.router.stop()
        await node.router.start()
        second = FakeWorker(extension)
        await node.router.attach(second)
        await until(lambda: ids(second)[-1:] == [40])
        assert list(dict.fromkeys(ids(first) + ids(second))) == [*range(1, 41)]
        assert second.gaps() == []
        logged = query(dsn, "select count(*), count(distinct id) from mag.extension_event")
        assert logged == [(40, 40)]


async def test_a_lost_slot_is_a_gap_of_the_tables_it_concerns(dsn: str) -> None:
    execute(dsn, "create table public.t (id int primary key)", "create table public.u (id int primary key)")
    extension = installed(
        "reader",
        follows("public.t"),
        follows("public.u", name="other"),
        binding("system.*", name="lives"),
        grants={"database.read": {"tables": ["public.t", "public.u"]}},
    )
    async with running_node(dsn) as node:
        worker = FakeWorker(extension)
        await node.router.attach(worker)
        execute(dsn, "insert into public.t values (1)")
        await until(lambda: ids(worker) == [1])
        with psycopg.connect(dsn, autocommit=True) as admin:
            for _ in range(200):
                admin.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
                try:
                    admin.execute(
                        "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                        "where database = current_database()"
                    )
                    break
                except psycopg.errors.ObjectInUse:
                    continue
        await until(lambda: worker.gaps() and worker.gaps("other"))
        assert worker.gaps()[0]["tables"] == ["public.t", "public.u"]
        assert worker.gaps()[0]["reason"] == "epoch_changed"
        assert worker.gaps("lives") == []
        execute(dsn, "insert into public.t values (2)")
        await until(lambda: ids(worker)[-1:] == [2])


async def test_a_table_that_left_the_stream_is_a_gap(dsn: str) -> None:
    execute(dsn, "create table public.t (id int primary key)")
    async with running_node(dsn) as node:
        worker = FakeWorker(reader(follows("public.t"), tables=["public.t"]))
        await node.router.attach(worker)
        execute(dsn, "insert into public.t values (1)")
        await until(lambda: ids(worker) == [1])
        execute(dsn, "drop table public.t")
        await until(lambda: worker.gaps())
        execute(dsn, "create table public.t (id int primary key)", "insert into public.t values (5)")
        await until(lambda: node.host.changes.published(_table("t")) is not None)
        execute(dsn, "insert into public.t values (6)")
        await until(lambda: ids(worker)[-1:] == [6])


async def test_rows_that_say_what_msgpack_cannot(dsn: str) -> None:
    execute(dsn, "create table public.t (id int primary key, n numeric, j json, big text)")
    async with running_node(dsn) as node:
        worker = FakeWorker(reader(follows("public.t"), tables=["public.t"]))
        await node.router.attach(worker)
        execute(
            dsn,
            "insert into public.t (id, n) values (1, 123456789012345678901234567890)",
            "insert into public.t (id, j) values (2, (repeat('[', 5000) || repeat(']', 5000))::json)",
            "insert into public.t (id, big) values (3, repeat('x', 400000))",
            'insert into public.t (id, j) values (4, \'{"a": "\\ud800"}\')',
            "insert into public.t (id, big) values (5, repeat('y', 200000))",
            "insert into public.t (id) values (6)",
        )
        await until(lambda: len(worker.told) == 6)
        seen = worker.data()
        assert seen[0]["record"]["n"] == "123456789012345678901234567890"
        assert seen[1]["omitted"] == ["record"]
        assert (seen[2]["record"], seen[2]["omitted"]) == (None, ["old_record", "record"])
        assert len(seen[4]["record"]["big"]) == 200_000
        assert seen[5]["record"]["id"] == 6


async def test_two_extensions_follow_one_table_and_it_leaves_with_the_last(dsn: str) -> None:
    execute(dsn, "create table public.t (id int primary key)")
    async with running_node(dsn) as node:
        one = FakeWorker(reader(follows("public.t"), tables=["public.t"], extension_id="one"))
        two = FakeWorker(reader(follows("public.t"), tables=["public.t"], extension_id="two"))
        await node.router.attach(one)
        execute(dsn, "insert into public.t values (1)")
        await until(lambda: ids(one) == [1])
        await node.router.attach(two)
        execute(dsn, "insert into public.t values (2)")
        await until(lambda: ids(two) == [2] and ids(one) == [1, 2])
        for extension_id in ("one", "two"):
            async with node.host.database.session() as connection, connection.transaction():
                await node.router.forget(connection, extension_id)
        published = "select count(*) from pg_publication_tables where tablename = 't'"
        await until(lambda: query(dsn, published) == [(0,)], timeout_s=20)


def _table(name: str) -> Any:
    from magmobo.contracts.planes import TableName

    return TableName("public", name)
