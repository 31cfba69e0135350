"""Tables are published as they can be; the user's own statements always work, and nothing of the user's is altered."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from tests.integration.magds_changes.harness import Node, execute, query, record, running, table, until

from magmobo.contracts.planes import Gap, PublishedTable, RefusedTable

MEMBERS = (
    "select p.pubname::text, c.relname::text from pg_publication p join pg_publication_rel r on r.prpubid = p.oid "
    "join pg_class c on c.oid = r.prrelid order by 2"
)


@pytest.fixture
def owner(dsn: str) -> Any:
    """A role that owns its tables, may replicate and create in the database, and is no superuser."""
    role = "owner_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    execute(
        dsn,
        f"create role {role} login replication",
        f"grant create on database {psycopg.conninfo.conninfo_to_dict(dsn)['dbname']} to {role}",
        f"create schema app authorization {role}",
    )
    yield psycopg.conninfo.make_conninfo(dsn, user=role)
    execute(dsn, f"drop owned by {role} cascade", f"drop role {role}")


async def test_what_is_published_and_what_is_refused_with_which_remedy(dsn: str) -> None:
    execute(
        dsn,
        "create table keyed (b int, a int, c text, primary key (a, b))",
        "create table bare (a int)",
        "create table whole (a int)",
        "alter table whole replica identity full",
        "create table nothing (a int primary key)",
        "alter table nothing replica identity nothing",
        "create table deferred (a int primary key deferrable)",
        "create table chosen (a int not null, b int)",
        "create unique index chosen_a on chosen (a)",
        "alter table chosen replica identity using index chosen_a",
        "create view seen as select 1 as a",
        "create unlogged table quick (a int primary key)",
        'create table "Odd "" name" ("É" int primary key)',
    )
    names = ("keyed", "bare", "whole", "nothing", "deferred", "chosen", 'Odd " name')
    async with running(dsn) as node:
        answers = await node.publish(*names, "seen", "quick", "missing", "pg_catalog.pg_class", "mag.state")
        published = [answer for answer in answers if isinstance(answer, PublishedTable)]
        assert [(str(p.table), p.columns, p.key_columns, p.inserts_only, p.identity_full) for p in published] == [
            ("public.keyed", ("b", "a", "c"), ("a", "b"), False, False),
            ("public.bare", ("a",), (), True, False),
            ("public.whole", ("a",), ("a",), False, True),
            ("public.nothing", ("a",), (), True, False),
            ("public.deferred", ("a",), (), True, False),
            ("public.chosen", ("a", "b"), ("a",), False, False),
            ('public.Odd " name', ("É",), ("É",), False, False),
        ]
        refused = [answer for answer in answers if isinstance(answer, RefusedTable)]
        assert [r.code for r in refused] == [f"MAG-DS-{n}" for n in (112, 112, 111, 112, 112)]
        assert refused[1].remedy == "ALTER TABLE public.quick SET LOGGED;"
        assert any("ALTER TABLE public.bare REPLICA IDENTITY FULL;" in notice for notice in node.service.notices())
        for name in names:
            quoted = '"' + name.replace('"', '""') + '"'
            column = query(
                dsn, f"select attname from pg_attribute where attrelid = '{quoted}'::regclass and attnum = 1"
            )
            column_name = f'"{column[0][0]}"'
            rest = ", a) select 1, 1" if name == "keyed" else ") select 1"
            execute(dsn, f"insert into {quoted} ({column_name}{rest}", f"update {quoted} set {column_name} = 2",
                    f"delete from {quoted}")  # fmt: skip
        await until(lambda: node.changes and node.changes[-1].table == 'Odd " name' and node.changes[-1].op == "delete")
    assert [c.op for c in node.changes if c.table == "bare"] == ["insert"]
    assert [c.op for c in node.changes if c.table == "whole"] == ["insert", "update", "delete"]


async def test_exactly_the_asked_tables_are_published(dsn: str) -> None:
    execute(dsn, "create table a (id int primary key)", "create table b (id int)", "create table child () inherits (a)")
    async with running(dsn) as node:
        await node.publish("a", "b")
        assert query(dsn, MEMBERS) == [("mag_changes", "a"), ("mag_inserts", "b")]
        await node.publish("b")
        assert query(dsn, MEMBERS) == [("mag_inserts", "b")]
        assert node.service.published(table("a")) is None
        await node.publish()
        assert query(dsn, MEMBERS) == []


@pytest.mark.parametrize("as_owner", [False, True], ids=["event trigger", "fingerprint"])
@pytest.mark.parametrize(
    ("loss", "recovery"),
    [
        ("alter table app.t drop constraint t_pkey", "alter table app.t add primary key (id)"),
        ("alter table app.t replica identity nothing", "alter table app.t replica identity default"),
    ],
)
async def test_a_lost_identity_never_breaks_the_users_update(
    dsn: str, owner: str, as_owner: bool, loss: str, recovery: str
) -> None:
    execute(owner, "create table app.t (id int primary key, n int)", "insert into app.t values (1, 0)")
    async with running(owner if as_owner else dsn, "app.t", watch=True) as node:
        assert node.watch.uses_event_trigger is not as_owner
        await node.service.caught_up()
        if as_owner:
            execute(owner, loss)
            await until(lambda: query(dsn, MEMBERS) == [("mag_inserts", "t")])
        else:
            execute(owner, f"do $$ begin execute '{loss}'; update app.t set n = 5; end $$")  # one transaction
        execute(
            owner, "update app.t set n = n + 1", "insert into app.t values (2, 0)", "delete from app.t where id = 2"
        )
        await until(lambda: node.lost and node.service.published(table("app.t")).inserts_only)
        await until(lambda: node.changes)
        assert [(c.op, record(c)["id"]) for c in node.changes] == [("insert", 2)]
        position = node.service.position
        execute(owner, "update app.t set n = n + 1", recovery)
        await until(lambda: len(node.lost) >= 2 and not node.service.published(table("app.t")).inserts_only)
        assert isinstance(node.service.replay(table("app.t"), node.service.epoch, position), Gap)
        execute(owner, "update app.t set n = 100")
        await until(lambda: node.changes[-1].op == "update")
        assert record(node.changes[-1]) == {"id": 1, "n": 100}


async def test_a_new_partition_without_key_moves_its_root(dsn: str) -> None:
    execute(
        dsn,
        "create table p (id int, day date) partition by range (day)",
        "create table p1 partition of p (primary key (id)) for values from ('2026-01-01') to ('2026-07-01')",
    )
    async with running(dsn, watch=True) as node:
        (answer,) = await node.publish("p")
        assert not answer.inserts_only
        execute(
            dsn,
            "create table p2 partition of p for values from ('2026-07-01') to ('2027-01-01')",
            "insert into p values (1, '2026-08-01')",
            "update p set id = 2",
            "delete from p",
        )
        await until(lambda: node.service.published(table("p")).inserts_only)
        assert query(dsn, MEMBERS) == [("mag_inserts", "p")]


async def test_generated_columns_never_break_the_users_update(dsn: str) -> None:
    execute(
        dsn,
        "create table stored (id int, twice int generated always as (id * 2) stored)",
        "alter table stored replica identity full",
        "create table virtual (id int, twice int generated always as (id * 2) virtual)",
        "alter table virtual replica identity full",
    )
    async with running(dsn) as node:
        stored, virtual = await node.publish("stored", "virtual")
        assert (stored.inserts_only, virtual.inserts_only) == (False, True)
        execute(dsn, *(f"{verb} {name} {rest}" for name in ("stored", "virtual")
                       for verb, rest in (("insert into", "values (1)"), ("update", "set id = 2"))))  # fmt: skip
        await until(lambda: len(node.changes) == 3)
    assert [record(c) for c in node.changes] == [{"id": 1, "twice": 2}, {"id": 2, "twice": 4}, {"id": 1}]


async def test_a_role_without_ownership_is_told_the_exact_grant(dsn: str, owner: str) -> None:
    execute(dsn, "create table public.theirs (id int primary key)")
    execute(owner, "create table app.ours (id int primary key)")
    async with running(owner) as node:
        theirs, ours = await node.publish("theirs", "app.ours")
        role = psycopg.conninfo.conninfo_to_dict(owner)["user"]
        assert theirs.code == "MAG-DS-113"
        assert theirs.remedy == f"GRANT postgres TO {role}; or ALTER TABLE public.theirs OWNER TO {role};"
        assert isinstance(ours, PublishedTable)
        execute(owner, "insert into app.ours values (1)")
        await until(lambda: node.changes)


async def test_renaming_and_dropping_a_table_is_said(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t", watch=True) as node:
        before = node.service.position
        execute(dsn, "insert into t values (1)")
        await until(lambda: node.changes)
        execute(dsn, "alter table t rename to t_old")
        await until(lambda: node.lost and node.service.published(table("t")) is None)
        execute(dsn, "create table t (id int primary key, note text)")
        await until(lambda: node.service.published(table("t")))
        answer = node.service.replay(table("t"), node.service.epoch, before)
        assert isinstance(answer, Gap)
        execute(dsn, "insert into t_old values (2)", "insert into t values (3, 'new')")
        await until(lambda: node.changes[-1].record and record(node.changes[-1])["id"] == 3)
        assert record(node.changes[-1]) == {"id": 3, "note": "new"}
        assert [c.table for c in node.changes] == ["t", "t"]


async def test_users_ddl_never_fails_for_us(dsn: str, owner: str) -> None:
    execute(owner, "create table app.t (id int primary key)")
    async with running(dsn, "app.t", watch=True):
        execute(dsn, "revoke all on schema mag from public")
        execute(owner, "create temp table x (a int)", "alter table app.t add b int", "drop table app.t")
    execute(dsn, "drop publication mag_changes", "drop function mag.move_tables()")
    execute(owner, "create table app.u (id int primary key)", "drop table app.u")


async def test_publishing_changes_no_table_of_the_user(dsn: str) -> None:
    execute(dsn, "create table a (id int primary key)", "create table b (id int)", "create view v as select * from a")
    catalogue = (
        "select (select md5(string_agg(c::text, '' order by oid)) from pg_class c where relnamespace = 2200), "
        "(select md5(string_agg(a::text, '' order by attrelid, attnum)) from pg_attribute a join pg_class c "
        "on c.oid = attrelid where relnamespace = 2200), (select count(*) from pg_trigger)"
    )
    before = query(dsn, catalogue)
    node = Node(dsn)
    await node.watch.start()
    await node.service.start()
    await node.publish("a", "b", "v")
    await node.service.stop(clean=True)
    await node.watch.stop()
    assert query(dsn, catalogue) == before


async def test_a_clean_end_without_a_slot_leaves_no_table_published(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t", clean=True):
        assert query(dsn, MEMBERS) == [("mag_changes", "t")]
    assert query(dsn, MEMBERS) == []
    async with running(dsn, "t") as node:
        execute(dsn, "insert into t values (1)")
        await until(lambda: node.changes)


async def test_a_table_enters_only_when_nobody_writes_to_it(dsn: str) -> None:
    """What a transaction wrote before is never published, though it commits after: that would be silence."""
    execute(dsn, "create table t (id int primary key)", "create table p (id int primary key) partition by range (id)",
            "create table p1 partition of p for values from (0) to (9)")  # fmt: skip
    async with running(dsn) as node:
        with psycopg.connect(dsn) as early:
            early.execute("insert into t values (1)")
            early.execute("insert into p1 values (1)")
            answers = await node.publish("t", "p")
            assert [(answer.code, isinstance(answer, RefusedTable)) for answer in answers] == [("MAG-DS-116", True)] * 2
            assert node.service.published(table("t")) is None
            early.commit()
        await until(lambda: node.service.published(table("t")) and node.service.published(table("p")), "tries again")
        execute(dsn, "insert into t values (2)", "insert into p values (2)")
        await until(lambda: len(node.changes) == 2)
        assert [record(change)["id"] for change in node.changes] == [2, 2]


async def test_a_table_gains_updates_only_when_nobody_writes_to_it(owner: str) -> None:
    execute(owner, "create table app.t (id int)", "insert into app.t values (1)")
    async with running(owner, "app.t", watch=True) as node:
        execute(owner, "alter table app.t replica identity full")
        with psycopg.connect(owner) as early:
            early.execute("insert into app.t values (2)")
            await node.publish("app.t")
            assert not query(owner, "select from pg_publication_tables where pubname = 'mag_changes'")
            early.commit()
        await until(lambda: query(owner, "select from pg_publication_tables where pubname = 'mag_changes'"))
        await until(lambda: node.lost)


async def test_the_node_hears_of_ddl_whose_table_could_not_be_moved(dsn: str) -> None:
    execute(dsn, "create table t (id int primary key)", "create table u (id int primary key)")
    async with running(dsn, "t", "u", watch=True) as node:
        seen = len(node.schema)
        with psycopg.connect(dsn) as hold:
            hold.execute("alter publication mag_changes set (publish_via_partition_root = true)")
            execute(dsn, "alter table t drop constraint t_pkey")
            await until(lambda: len(node.schema) > seen)
            assert node.schema[seen].reason == "notify", "at once, not when the catalogue is looked at the next time"
            hold.rollback()
        await until(lambda: query(dsn, MEMBERS) == [("mag_inserts", "t"), ("mag_changes", "u")])
        execute(dsn, "insert into t values (1)", "update t set id = 2")
