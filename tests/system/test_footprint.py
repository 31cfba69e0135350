"""Attaching leaves the user's schemas as they were; detaching leaves the database and the cluster as they were."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from magmobo.testing.node import running_node
from magmobo.testing.postgres import pg_binary

USER_SCHEMA = """
create table public.orders (id bigint primary key, customer text, total numeric(10,2));
create table public.no_key (note text, at timestamptz default now());
create table public.nothing (id int primary key, note text);
alter table public.nothing replica identity nothing;
create schema sales;
create table sales.lines (order_id bigint references public.orders, position int, primary key (order_id, position));
create view sales.totals as select order_id, count(*) from sales.lines group by 1;
create function public.touch() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger touch before update on public.orders for each row execute function public.touch();
insert into public.orders values (1, 'ada', 12.5), (2, 'bob', 7);
insert into public.no_key values ('a'), ('b');
insert into public.nothing values (1, 'x'), (2, 'y');
"""
CONFIG = """
[[magws.tables]]
table = "public.orders"
[[magws.tables]]
table = "public.no_key"
[[magws.tables]]
table = "public.nothing"
[[magws.tables]]
table = "sales.lines"
"""
CLUSTER = """
select 'role', rolname::text, concat(rolsuper, rolreplication, rolcreaterole, rolconfig) from
pg_roles
union all select 'member', roleid::regrole::text, member::regrole::text from pg_auth_members
union all select 'slot', slot_name::text, plugin::text from pg_replication_slots where database = current_database()
union all select 'setting', setdatabase::text, setrole::text || setconfig::text from pg_db_role_setting
union all select 'publication', pubname::text, puballtables::text from pg_publication
union all select 'event trigger', evtname::text, evtevent::text from pg_event_trigger
union all select 'schema', nspname::text, coalesce(nspacl::text, '') from pg_namespace where nspname !~
'^pg_(toast|temp)'
union all select 'database', datname::text, coalesce(datacl::text, '') from pg_database where datname =
current_database()
order by 1, 2, 3
"""
RELATIONS = """
select c.oid::text, n.nspname || '.' || c.relname, concat(c.relkind, c.relreplident, c.relrowsecurity,
       c.relacl, c.reloptions, c.relowner)
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'sales')
union all select oid::text, tgname::text, concat(tgfoid, tgenabled) from pg_trigger
union all select p.oid::text, p.proname::text, md5(prosrc) from pg_proc p where pronamespace = 'public'::regnamespace
order by 1, 2, 3
"""


def dump(dsn: str, schema: str) -> str:
    """The schema's definition as pg_dump writes it, without the random \\restrict lines."""
    text = subprocess.run(
        [pg_binary("pg_dump"), "-s", "-n", schema, "-d", dsn], check=True, capture_output=True, text=True
    ).stdout
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def catalogue(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def mag(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "magmobo.cli.main", *arguments], capture_output=True, text=True)


@pytest.fixture
def attached(dsn: str, data_dir: Path) -> str:
    """A user's database with a configuration that publishes all its tables."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(USER_SCHEMA)
    (data_dir.parent / "mag.toml").write_text(CONFIG, encoding="utf-8")
    return dsn


async def test_attach_leaves_user_schemas_and_detach_leaves_everything_as_it_was(attached: str, data_dir: Path) -> None:
    before = [dump(attached, schema) for schema in ("public", "sales")]
    relations, cluster = catalogue(attached, RELATIONS), catalogue(attached, CLUSTER)
    async with running_node(data_dir, attached):
        assert [dump(attached, schema) for schema in ("public", "sales")] == before
        assert catalogue(attached, RELATIONS) == relations
        assert catalogue(attached, CLUSTER) != cluster, "the node created nothing: this test could not fail"
    planned = await asyncio.to_thread(mag, "detach", attached, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "mag_changes" in planned.stdout
    detached = await asyncio.to_thread(mag, "detach", attached, "--yes")
    assert detached.returncode == 0, detached.stderr
    assert [dump(attached, schema) for schema in ("public", "sales")] == before
    assert catalogue(attached, RELATIONS) == relations
    assert catalogue(attached, CLUSTER) == cluster


@pytest.mark.parametrize("table", ["public.orders", "public.no_key", "public.nothing"])
async def test_the_users_own_writes_keep_working(attached: str, data_dir: Path, table: str) -> None:
    column = {"public.orders": "customer"}.get(table, "note")
    async with running_node(data_dir, attached):
        with psycopg.connect(attached, autocommit=True) as connection:
            assert connection.execute(f"update {table} set {column} = 'changed'").rowcount == 2
            connection.execute("delete from sales.lines")
            assert connection.execute(f"delete from {table}").rowcount == 2


async def test_writes_keep_working_when_the_user_drops_a_primary_key(attached: str, data_dir: Path) -> None:
    async with running_node(data_dir, attached):
        with psycopg.connect(attached, autocommit=True) as connection:
            connection.execute("alter table sales.lines drop constraint lines_pkey")
            connection.execute("insert into sales.lines values (1, 1)")
            connection.execute("alter table public.orders replica identity nothing")
            assert connection.execute("update public.orders set customer = 'eve'").rowcount == 2
            assert connection.execute("update sales.lines set position = 2").rowcount == 1


async def test_a_role_that_may_not_replicate_still_gets_rest(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create role plain login")
        connection.execute("create table public.things (id int primary key)")
        connection.execute("grant all on public.things to plain")
        connection.execute(f"grant create on database {connection.info.dbname} to plain")
    try:
        async with running_node(data_dir, dsn.replace("user=postgres", "user=plain")) as node:
            assert "note" in node.printed
            assert "replication" in node.printed.lower(), node.printed
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("drop owned by plain")
            connection.execute("drop role plain")
