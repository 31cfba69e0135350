"""Every committed change once, in commit order, as it was written."""

from __future__ import annotations

import threading

import psycopg
from tests.integration.magds_changes.harness import execute, old_record, record, running, until

from magmobo.contracts.events import DatabaseChange


def brief(changes: list[DatabaseChange]) -> list[tuple[object, ...]]:
    return [(change.table, change.op, record(change), old_record(change)) for change in changes]


async def test_insert_update_delete_and_truncate_arrive_in_order(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, name text)")
    async with running(dsn, "t") as node:
        await node.service.caught_up()
        execute(
            dsn,
            "insert into t values (1, 'a'), (2, 'é\"\\')",
            "update t set name = 'b' where id = 1",
            "update t set id = 9 where id = 1",
            "delete from t where id = 2",
            "truncate t",
        )
        await until(lambda: len(node.changes) == 6)
    assert brief(node.changes) == [
        ("t", "insert", {"id": 1, "name": "a"}, None),
        ("t", "insert", {"id": 2, "name": 'é"\\'}, None),
        ("t", "update", {"id": 1, "name": "b"}, None),
        ("t", "update", {"id": 9, "name": "b"}, {"id": 1}),
        ("t", "delete", None, {"id": 2}),
        ("t", "truncate", None, None),
    ]
    positions = [change.position for change in node.changes]
    assert positions == sorted(set(positions))
    assert not any(change.replayed for change in node.changes)
    assert {(change.source, change.schema) for change in node.changes} == {("test", "public")}
    assert all(change.commit_time.endswith("+00:00") for change in node.changes)
    assert node.service.position > positions[-1]


async def test_transactions_appear_whole_and_in_commit_order(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table u (id int primary key)")
    async with running(dsn, "t", "u") as node:
        with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
            first.execute("insert into t values (1)")
            second.execute("insert into t values (2)")
            second.execute("insert into u values (3)")
            first.execute("insert into u values (4)")
            second.commit()
            first.commit()
        await until(lambda: len(node.changes) == 4)
    assert [(c.table, record(c)["id"]) for c in node.changes] == [("t", 2), ("u", 3), ("t", 1), ("u", 4)]
    assert [c.position[-8:] for c in node.changes] == ["00000001", "00000002"] * 2


async def test_what_was_rolled_back_is_never_seen(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t") as node:
        with psycopg.connect(dsn) as client:
            client.execute("insert into t values (1)")
            client.rollback()
            client.execute("insert into t values (2)")
            client.execute("savepoint s")
            client.execute("insert into t values (3)")
            client.execute("rollback to s")
            client.execute("insert into t values (4)")
            client.commit()
        await until(lambda: len(node.changes) == 2)
    assert [record(c)["id"] for c in node.changes] == [2, 4]


async def test_many_writers_and_a_big_transaction_lose_and_repeat_nothing(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, writer int)")

    def write(writer: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as client:
            for number in range(150):
                client.execute("insert into t values (%s, %s)", (writer * 1000 + number, writer))

    async with running(dsn, "t") as node:
        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
        for thread in threads:
            thread.start()
        execute(dsn, "insert into t select g, 9 from generate_series(100000, 119999) g")
        await until(lambda: len(node.changes) == 20450, "all rows")
        for thread in threads:
            thread.join()
    positions = [c.position for c in node.changes]
    assert positions == sorted(set(positions))
    for writer in (0, 1, 2, 9):
        ids = [record(c)["id"] for c in node.changes if record(c)["writer"] == writer]
        assert ids == sorted(set(ids))
    assert len({record(c)["id"] for c in node.changes}) == 20450


async def test_untouched_large_values_come_from_the_old_row_or_are_left_out(dsn: str) -> None:
    execute(
        dsn,
        "create table keyed (id int primary key, big text, n int)",
        "create table whole (id int primary key, big text, n int)",
        "alter table whole replica identity full",
        "alter table keyed alter big set storage external",
        "alter table whole alter big set storage external",
    )
    big = "x" * 20_000
    async with running(dsn, "keyed", "whole") as node:
        for name in ("keyed", "whole"):
            execute(dsn, f"insert into {name} values (1, '{big}', 1)", f"update {name} set n = 2")
        await until(lambda: len(node.changes) == 4)
    assert brief(node.changes)[1] == ("keyed", "update", {"id": 1, "n": 2}, None)
    assert brief(node.changes)[3] == ("whole", "update", {"id": 1, "big": big, "n": 2}, {"id": 1, "big": big, "n": 1})


async def test_ddl_in_mid_stream_shapes_the_rows_that_follow(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key, a text)")
    async with running(dsn, "t", watch=True) as node:
        execute(
            dsn,
            "insert into t values (1, 'x')",
            "alter table t add b int default 7",
            "insert into t values (2, 'y', 8)",
            "alter table t drop a",
            "insert into t values (3, 9)",
            "create type mood as enum ('sad', 'glad')",
            "create domain small as int check (value < 10)",
            "alter table t add m mood[], add s small",
            "insert into t values (4, 1, '{sad,glad}', 5)",
        )
        await until(lambda: len(node.changes) == 4)
    assert [record(c) for c in node.changes] == [
        {"id": 1, "a": "x"},
        {"id": 2, "a": "y", "b": 8},
        {"id": 3, "b": 9},
        {"id": 4, "b": 1, "m": ["sad", "glad"], "s": 5},
    ]


async def test_partitions_speak_as_their_root(dsn: str) -> None:
    execute(
        dsn,
        "create table p (id int, day date, primary key (id, day)) partition by range (day)",
        "create table p1 partition of p for values from ('2026-01-01') to ('2026-07-01')",
        "create table p2 partition of p for values from ('2026-07-01') to ('2027-01-01')",
    )
    async with running(dsn) as node:
        root, leaf = await node.publish("p", "p1")
        assert (root.inserts_only, root.key_columns) == (False, ("id", "day"))
        assert leaf.code == "MAG-DS-114"
        execute(dsn, "insert into p values (1, '2026-02-03')", "update p set day = '2026-08-01'", "truncate p2")
        await until(lambda: len(node.changes) >= 3)
    assert {c.table for c in node.changes} == {"p"}
    assert [c.op for c in node.changes] == ["insert", "delete", "insert"]


async def test_a_table_that_was_not_asked_for_stays_silent(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table quiet (id int primary key)")
    async with running(dsn, "t") as node:
        execute(dsn, "insert into quiet values (1)", "insert into t values (2)")
        await until(lambda: node.changes)
    assert [c.table for c in node.changes] == ["t"]
