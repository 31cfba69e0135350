"""What the guard lets through, what it names, and that nothing gets around it."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from magmobo.extensions.sql import guard as guard_module
from magmobo.extensions.sql import lexer
from magmobo.extensions.sql.errors import StatementRefused, StatementTooLarge
from magmobo.extensions.sql.guard import GuardCache, Guarded, guard
from magmobo.extensions.sql.lexer import Kind
from magmobo.extensions.sql.words import listed


def query(sql: str, schema: str = "ext_one") -> Guarded:
    return guard(sql, schema=schema, allow="query")


def migration(sql: str) -> Guarded:
    return guard(sql, schema="ext_one", allow="migration")


@pytest.mark.parametrize(
    ("sql", "reads", "writes", "returns_rows"),
    [
        ("select 1", [], [], True),
        ("select * from notes", ["ext_one.notes"], [], True),
        ("select * from Notes n join public.Orders o on true", ["ext_one.notes", "public.orders"], [], True),
        ('select * from public."Orders"', ["public.Orders"], [], True),
        ("select * from a, (select * from b where exists (select 1 from c)) x",
         ["ext_one.a", "ext_one.b", "ext_one.c"], [], True),
        ("insert into notes values (1)", [], ["ext_one.notes"], False),
        ("insert into notes select * from public.t returning id", ["public.t"], ["ext_one.notes"], True),
        ("update public.t set a = (select max(a) from notes)", ["ext_one.notes"], ["public.t"], False),
        ("delete from notes using s where true returning *", ["ext_one.s"], ["ext_one.notes"], True),
        ("with x as (delete from notes returning *) select * from x", [], ["ext_one.notes"], True),
        ("with x as (select * from x) select * from x", ["ext_one.x"], [], True),
        ("with recursive x as (select * from x) select * from x", [], [], True),
        ("with x as (select 1), y as (select * from x, y) select * from y", ["ext_one.y"], [], True),
        ("select (with x as (select 1) select 1 from x), 2 from x", ["ext_one.x"], [], True),
        ("with notes as (select 1) insert into notes select * from notes", [], ["ext_one.notes"], False),
        ("select * from notes for update", ["ext_one.notes"], ["ext_one.notes"], True),
        ("select * from generate_series(1, 2) g, unnest($1) u", [], [], True),
        ("select * from public.t as x where x.id in (select id from only s)", ["ext_one.s", "public.t"], [], True),
        ("values (1), ((select max(id) from notes))", ["ext_one.notes"], [], True),
        ("select 1 union select id from notes union all (select id from s)", ["ext_one.notes", "ext_one.s"], [], True),
    ],
)  # fmt: skip
def test_tables_are_named(sql: str, reads: list[str], writes: list[str], returns_rows: bool) -> None:
    found = query(sql)
    assert [str(table) for table in found.reads] == reads
    assert [str(table) for table in found.writes] == writes
    assert found.returns_rows is returns_rows


def test_names_are_printed_exactly_and_comments_are_gone() -> None:
    found = query("select /* x */ N.Id, \"B\", t.* from Notes n, public.T t -- y\nwhere n.id = $1 and n.x <> 'a''b'")
    assert found.sql == (
        'SELECT "n"."id", "B", "t".* FROM "ext_one"."notes" AS "n", "public"."t" AS "t" '
        'WHERE "n"."id" = $1 AND "n"."x" <> \'a\'\'b\''
    )


def test_without_a_schema_of_its_own_every_table_is_named_with_one() -> None:
    assert query("select * from public.t", "").sql == 'SELECT * FROM "public"."t"'
    for sql in ("select * from notes", "insert into notes values (1)", "select 'a'::mood"):
        with pytest.raises(StatementRefused, match="without a schema"):
            query(sql, "")


REFUSED = r"""
select 1; select 2 | exactly one
; | exactly one
select pg_sleep(1) | the function pg_sleep
select PG_SLEEP(1) | the function pg_sleep
select "pg_sleep"(1) | quotes
select pg_catalog.pg_sleep(1) | a schema
select pg_catalog.lower('x') | a schema
select public.anything(1) | schema or in quotes
select set_config('a.b', 'c', false) | set_config
select current_setting('a.b') | current_setting
select query_to_xml('select 1', true, true, '') | query_to_xml
select lo_import('x') | lo_import
select dblink('x', 'y') | dblink
select nextval('s') | nextval
select version() | version
select repeat('x', 1000000000) | repeat
select lpad('x', 1000000000) | lpad
select format('%1000000000s', 'x') | format
select * from pg_authid | pg_
select * from pg_catalog.pg_authid | pg_
select * from "pg_catalog"."pg_authid" | pg_
select * from information_schema.tables | system
select * from mag.guest | system
select * from mag_migration | mag_migration
with mag_migration as (select 1) select 1 | mag_migration
select t.pg_typeof from t | pg_
select 'pg_authid'::regclass | object identifier
select x::regproc::text from t | object identifier
select x::"regclass" from t | object identifier
select x::public.mood from t | mood
select x::pg_catalog.regclass from t | REGCLASS
select 1 into x | INTO
select * into x from t | INTO
create table x (id int) | CREATE
drop table x | DROP
alter table x add y int | ALTER
truncate x | TRUNCATE
copy t to program 'id' | COPY
copy (select 1) to '/tmp/x' | COPY
do $$ begin end $$ | DO
set statement_timeout = 0 | SET
set role postgres | SET
reset role | RESET
set session authorization x | SET
show all | SHOW
listen x | LISTEN
notify x | NOTIFY
lock table t | LOCK
begin | BEGIN
commit | COMMIT
call f() | CALL
explain analyze delete from t | EXPLAIN
prepare x as select 1 | PREPARE
execute x | EXECUTE
declare c cursor for select 1 | DECLARE
fetch all from c | FETCH
vacuum | VACUUM
analyze t | ANALYZE
discard all | DISCARD
grant select on t to public | GRANT
revoke all on t from public | REVOKE
comment on table t is 'x' | COMMENT
merge into t using s on true when matched then delete | MERGE
refresh materialized view m | REFRESH
security label on table t is 'x' | SECURITY
select * from t tablesample system (1) | TABLE SAMPLE
select xmlparse(document '<a/>') |
select * from xmltable('/a' passing x columns y int) |
select * from json_table(x, '$' columns (a int)) |
select e'a' | directly before a quote
select u&'a' | directly before a quote
select b'1' | directly before a quote
select 'a' 'b' | CONCAT
select @x | operator
select 1 operator(pg_catalog.+) 2 |
select interval '1' day | inside of the quotes
select +a from t | near '+'
select array[1, 2][1] | reads differently
select current_schema | schema
select current_catalog |
select user_name() | user_name
select * from a.b.c | another database
insert into (select * from t) values (1) |
update (select 1) x set a = 1 |
delete from f(1) |
select * from t; -- x\n delete from t | exactly one
with x as (create table y (id int)) select 1 |
with x as (copy t to '/x') select 1 |
select (select 1 into x) |
select * from (insert into t values (1)) x |
select * from lateral pg_ls_dir('/') | pg_ls_dir
select * from rows from (pg_ls_dir('/')) x |
select x from t order by pg_sleep(1) | pg_sleep
select 1 limit (select pg_sleep(1)) | pg_sleep
select count(*) filter (where pg_sleep(1) is null) from t | pg_sleep
select * from t where exists (select pg_sleep(1)) | pg_sleep
insert into t values (pg_sleep(1)) | pg_sleep
insert into t values (1) on conflict (id) do update set a = pg_sleep(1) | pg_sleep
insert into t values (1) returning pg_sleep(1) | pg_sleep
select case when true then pg_sleep(1) end | pg_sleep
select array[pg_sleep(1)] | pg_sleep
select pg_sleep(1)::text | pg_sleep
select coalesce((select pg_sleep(1)), '') | pg_sleep
select * from unnest(array[1]) with ordinality as pg_class | pg_
"""


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_refused(line: str) -> None:
    sql, _, reason = line.rpartition(" |")
    with pytest.raises(StatementRefused) as caught:
        query(sql.replace("\\n", "\n"))
    assert reason.strip().lower() in str(caught.value).lower()
    assert len(str(caught.value)) < 400


MIGRATIONS = """
create table notes (id bigint generated always as identity primary key, body text not null default '', at timestamptz
    default now(), price numeric(10,2) check (price > 0), tags text[] default '{}', owner int references people (id)
    on delete cascade, unique (body, at), constraint long check (length(body) < 100))
create table if not exists notes (id serial primary key, n bigserial, u uuid default gen_random_uuid(),
    total int generated always as (a + b) stored, mood mood)
create table copies as select * from public.orders
create unlogged table x (id int)
create unique index if not exists i on notes (at desc, lower(body)) include (id) where body is not null
create index on notes using gin (data jsonb_path_ops)
create view v as select * from notes join public.orders using (id)
create or replace view v (a) as select 1
create sequence s start with 5
create type mood as enum ('good', 'bad')
alter table notes add column x int not null default 0, drop column y, add constraint c unique (x)
alter table notes alter column x type bigint using x::bigint
alter table notes alter column x set not null
alter table notes alter column x drop default
alter table notes rename to other
alter table notes rename column a to b
alter table if exists notes drop constraint if exists c
alter table notes add foreign key (a) references people (id)
drop table if exists notes, people
drop index i
drop view v
drop type mood
comment on table notes is 'it''s'
comment on column notes.body is 'x'
insert into notes (body) values ('a'); update notes set body = 'b'; delete from notes; drop table notes
"""


@pytest.mark.parametrize("sql", MIGRATIONS.replace("\n    ", " ").strip().splitlines())
def test_definitions_in_migrations(sql: str) -> None:
    found = migration(sql)
    assert migration(found.sql) == found
    assert all(table.schema == "ext_one" for table in found.writes)
    assert found.returns_rows is False


@pytest.mark.parametrize(
    "sql",
    [
        "create table public.x (id int)",
        "create table ext_two.x (id int)",
        "create schema x",
        "create temp table x (id int)",
        "create table x (id int) tablespace y",
        "create table x (id int) with (autovacuum_enabled = false)",
        "create table x () inherits (public.orders)",
        "create table x partition of public.orders default",
        "create table x (id pg_catalog.regclass)",
        "create table x (id int default pg_sleep(1))",
        "create table x (id int check (pg_sleep(1) is null))",
        "create table mag_migration (id int)",
        "alter table mag_migration add x int",
        "alter table notes rename to mag_migration",
        "drop table mag_migration",
        "insert into mag_migration values ('x')",
        "update ext_one.mag_migration set down = 'x'",
        "create index concurrently i on notes (a)",
        "create index i on public.orders (a)",
        "create index i on notes (pg_sleep(1))",
        "create view public.v as select 1",
        "create view v as select pg_sleep(1)",
        "create materialized view m as select pg_sleep(1)",
        "create function f() returns int language sql as 'select 1'",
        "create function f() returns int language sql return 1",
        "create procedure p() language sql as 'select 1'",
        "create trigger t before insert on notes for each row execute function f()",
        "create rule r as on insert to notes do nothing",
        "create policy p on notes using (true)",
        "create extension hstore",
        "create role x superuser",
        "create database x",
        "create event trigger e on ddl_command_end execute function f()",
        "create foreign table x (id int) server s",
        "create server s foreign data wrapper w",
        "create publication p for all tables",
        "create subscription s connection 'x' publication p",
        "create aggregate a (int) (sfunc = int4pl, stype = int)",
        "create operator + (function = f)",
        "create cast (int as text) with function f(int)",
        "create domain d as int check (pg_sleep(1) is null)",
        "alter table notes owner to postgres",
        "alter table notes set schema public",
        "alter table notes enable row level security",
        "alter table notes disable trigger all",
        "alter table notes replica identity full",
        "alter table public.orders add x int",
        "alter table notes attach partition public.orders default",
        "alter role x superuser",
        "alter system set x = 1",
        "alter database x set y = 1",
        "alter default privileges grant all on tables to public",
        "drop table public.orders",
        "drop table notes, public.orders",
        "drop table notes cascade",
        "alter table notes drop column a cascade",
        "drop schema ext_one cascade",
        "drop schema public",
        "drop owned by x",
        "drop function f",
        "comment on column public.orders.id is 'x'",
        "comment on database x is 'y'",
        "truncate notes",
        "grant all on notes to public",
        "create table x (id int); commit; drop table y",
        "do $$ begin end $$",
        "set search_path = public",
        "copy notes from '/etc/passwd'",
    ],
)
def test_refused_in_migrations(sql: str) -> None:
    with pytest.raises(StatementRefused):
        migration(sql)


WORDS = st.sampled_from(
    sorted(
        listed("""
            select insert into update delete from where t public.orders x ( ) ( ) , 1 'a' $1 * as join on true and or
            not in is null union all lateral count sum (select 1) = :: int [ ] order by group having returning set
            q values with exists any case when then else end over partition using default for share only ext_two.t
            pg_class table "pg_catalog" . row interval between like limit offset distinct filter within array mag.guest
            pg_sleep(1) set_config create drop do conflict nothing constraint cast extract substring ; -- /* */ $$
            e'x' || -> ? @> recursive materialized generate_series pg_ls_dir('/') current_user grouping sets window
        """)
    )
)


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=50), st.sampled_from(["query", "migration"]))
@example("select " + "(" * 400 + "1" + ")" * 400, "query")
@example("select " + "array[" * 200 + "1" + "]" * 200, "query")
@example("select x::" + "numeric(" * 200, "query")
@example("select " + "case when " * 200, "query")
def test_any_text_is_refused_or_stable(text: str, allow: guard_module.Allow) -> None:
    try:
        found = guard(text, schema="ext_one", allow=allow)
    except StatementRefused:
        return
    assert guard(found.sql, schema="ext_one", allow=allow) == found
    printed = lexer.tokens(found.sql, strict=True)
    words = {token.text for token in printed if token.kind is Kind.WORD}
    assert words <= guard_module._WORDS[allow]
    assert not words & {"pg_sleep", "pg_ls_dir", "set_config", "copy", "execute", "function"}
    names = {token.text for token in printed if token.kind is Kind.NAME}
    assert not any(name.startswith("pg_") for name in names)


def test_reading_is_bounded() -> None:
    for sql in ("select 1" + " " * 40_000, "select " + "1, " * 20_000 + "1", "select " + "(" * 5_000):
        with pytest.raises(StatementTooLarge):
            query(sql)
    with pytest.raises(StatementTooLarge):
        migration("select 1;" * 40_000)
    for unit in ("numeric(", "array[", "cast(", "case when ", "(select ", "f(", "not ", "interval ", "x::int[", "row("):
        for depth in (10, 20, 40, 100, 400, 3_000):
            with pytest.raises(StatementRefused):
                query(f"select x::{unit * depth}" if unit == "numeric(" else f"select {unit * depth}")


@pytest.mark.parametrize("sql", [f"select {'array[' * 16}1{']' * 16}", f"select x::{'numeric(' * 17}1{')' * 17}"])
def test_what_the_parser_reads_again_and_again_is_given_up(sql: str) -> None:
    """Each level doubles the time; these would be read in seconds, a few levels more in hours."""
    with pytest.raises(StatementTooLarge, match="nested"):
        query(sql)


def test_nothing_of_a_statement_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for sql in (
            "create policy secret_policy on notes using (true)",
            "select secret_word 'x' 'y'",
            "with x as (vacuum secret) select 1",
        ):
            with pytest.raises(StatementRefused):
                migration(sql)
    assert "secret" not in caplog.text


async def test_the_cache_is_bounded_and_keeps_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "CACHE_ENTRIES", 3)
    read: list[str] = []

    def decide(sql: str, schema: str) -> Guarded | StatementRefused:
        read.append(sql)
        return StatementRefused("no") if sql == "bad" else Guarded(sql, (), (), True)

    monkeypatch.setattr(guard_module, "_decide", decide)
    cache = GuardCache()
    for sql in ("a", "b", "c", "a", "d", "a", "b"):
        assert (await cache.query(sql, "ext_one")).sql == sql
    assert read == ["a", "b", "c", "d", "b"]
    assert len(await asyncio.gather(*(cache.query("e", "ext_one") for _ in range(5)))) == 5
    assert read.count("e") == 1
    for _ in range(2):
        with pytest.raises(StatementRefused) as caught:
            await cache.query("bad", "ext_one")
        assert caught.value.__context__ is None
    assert read.count("bad") == 1
    assert (await cache.query("a", "ext_two")).sql == "a"
    monkeypatch.setattr(guard_module, "CACHE_CHARACTERS", 100)
    for number in range(5):
        await cache.query("x" * 40 + str(number), "ext_one")
    assert cache._characters <= 150
    assert cache._characters == sum(guard_module._weight(key) for key in cache._known)


def test_the_parser_is_loaded_when_the_first_statement_comes() -> None:
    import subprocess

    code = (
        "import sys, magmobo.extensions.sql.methods, magmobo.extensions.sql.migrations\n"
        "assert not {'sqlglot', 'psycopg'} & set(sys.modules), 'too early'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
