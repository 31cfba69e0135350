"""`mag detach` and guests: roles and schemas go, what others built on them stays, notes of strangers do not count."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from magmobo.components.magds import detach
from magmobo.components.magds.dsn import connect
from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.pool import Pool
from magmobo.contracts.guests import TableRight
from magmobo.contracts.planes import TableName

EVERYTHING = """
select 'role', rolname::text, '' from pg_roles
union all select 'schema', nspname::text, coalesce(nspacl::text, '') from pg_namespace
          where nspname !~ '^pg_(toast|temp)'
union all select 'table', relname::text, coalesce(relacl, acldefault('r', relowner))::text from pg_class
          where relnamespace = 'public'::regnamespace
union all select 'setting', setrole::text, setconfig::text from pg_db_role_setting
union all select 'member', roleid::regrole::text, member::regrole::text from pg_auth_members
union all select 'database', datname::text, coalesce(datacl::text, '') from pg_database
          where datname = current_database()
order by 1, 2, 3
"""


@pytest.fixture(params=["superuser", "login"])
def login(request: pytest.FixtureRequest, dsn: str) -> Iterator[str]:
    with psycopg.connect(dsn, autocommit=True) as admin:
        name = admin.info.dbname
        if request.param == "login":
            admin.execute(f"create role detach_{name} login createrole".encode())
            admin.execute(f"alter database {name} owner to detach_{name}".encode())
    own = dsn if request.param == "superuser" else dsn.replace("user=postgres", f"user=detach_{name}")
    with psycopg.connect(own, autocommit=True) as admin:
        admin.execute("create table public.orders (id int); create schema mag; drop schema mag")
    yield own
    with psycopg.connect(dsn, autocommit=True) as admin:
        if request.param == "login":
            admin.execute(f"alter database {name} owner to postgres".encode())
            admin.execute(f"drop owned by detach_{name} cascade; drop role detach_{name}".encode())


def state(dsn: str) -> list[tuple[str, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(EVERYTHING.encode()).fetchall()


async def make_guests(dsn: str, *guests: str) -> None:
    with psycopg.connect(dsn) as admin:
        row = admin.execute("select oid::int8 from pg_database where datname = current_database()").fetchone()
    assert row is not None
    pool = Pool(partial(connect, dsn), size=2, idle_s=60)
    service = GuestService(dsn, partial(pool.lease, timeout_s=5), database_oid=row[0], acquire_timeout_s=5)
    for guest in guests:
        async with pool.lease(timeout_s=5) as connection, connection.transaction():
            await service.ensure(connection, guest, schema=True)
            await service.grant(connection, guest, [TableRight(TableName("public", "orders"), ("select",))])
        async with service.session(guest) as connection:
            await connection.execute("create table notes (id serial primary key)")
    async with pool.lease(timeout_s=5) as connection, connection.transaction():
        await service.drop(connection, guests[-1], keep_schema=True)  # uninstalled; its data stayed
    await service.close()
    await pool.close()


async def test_nothing_of_guests_is_left(login: str) -> None:
    before = state(login)
    await make_guests(login, "one", "two", "gone")
    assert state(login) != before
    planned = await detach.plan(login)
    assert {"schema ext_one", "schema ext_two", "schema ext_gone", "schema mag"} <= set(planned.objects)
    assert sum(line.startswith("role mag_ext_") for line in planned.objects) == 2
    done = await detach.apply(login)
    assert sorted(done.objects) == sorted(planned.objects)
    assert not done.kept
    assert state(login) == before
    assert not (await detach.apply(login)).objects


async def test_what_others_built_stays_with_what_it_needs(login: str) -> None:
    await make_guests(login, "one", "gone")
    with psycopg.connect(login, autocommit=True) as own:
        own.execute("create view public.report as select * from ext_gone.notes")
    done = await detach.apply(login)
    assert any("public.report" in line for line in done.kept)
    assert "schema ext_one" in done.objects
    with psycopg.connect(login, autocommit=True) as own:
        assert own.execute("select count(*) from public.report").fetchone() == (0,)


async def test_a_note_of_a_stranger_removes_nothing(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        name = admin.info.dbname
        stranger = f"stranger_{name}"
        admin.execute(
            f"create role {stranger} login; create schema mag authorization {stranger}; create schema ext_precious;"
            "create table ext_precious.kept (id int);"
            "create table mag.guest (guest text, role text, password text, has_schema boolean);"
            f"alter table mag.guest owner to {stranger}; create role mag_ext_victim_{name};"
            f"insert into mag.guest values ('precious', 'mag_ext_victim_{name}', 'x', true);"
            "insert into mag.guest values ('x', 'postgres', 'x', true)".encode()
        )
    try:
        done = await detach.apply(dsn)
        assert not any("precious" in line or "victim" in line or "role postgres" in line for line in done.objects)
        with psycopg.connect(dsn, autocommit=True) as admin:
            assert admin.execute("select count(*) from ext_precious.kept").fetchone() == (0,)
            assert admin.execute(
                f"select count(*) from pg_roles where rolname = 'mag_ext_victim_{name}'".encode()
            ).fetchone() == (1,)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                f"drop role mag_ext_victim_{name}; drop owned by {stranger} cascade; drop role {stranger}".encode()
            )
