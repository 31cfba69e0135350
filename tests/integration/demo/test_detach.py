"""`mag detach` after a demo: database and roles are as before; what the user built on a demo is not torn down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.demo.support import make_demo, query

from magmobo.components.magds import detach
from magmobo.components.magds.errors import DetachRefused
from magmobo.testing.postgres import running_postgres


@pytest.fixture
def own_dsn() -> Iterator[str]:
    """A database on a server of its own: roles belong to the whole server."""
    with running_postgres() as server, server.database() as dsn:
        yield dsn


def catalogue(dsn: str) -> str:
    """A hash over everything in the database and over the server's roles."""
    rows = [
        query(dsn, f"select {columns} from {table} order by 1, 2")
        for table, columns in (
            ("pg_class where oid >= 16384 and relnamespace <> 'pg_toast'::regnamespace", "relname, relacl::text"),
            ("pg_proc where oid >= 16384", "proname, prosrc"),
            ("pg_namespace", "nspname, nspacl::text"),
            ("pg_authid", "rolname, rolsuper"),
            ("pg_auth_members", "roleid::regrole::text, member::regrole::text"),
            ("pg_policy", "polname, polrelid::text"),
            ("pg_shdescription", "description, objoid::text"),
        )
    ]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@pytest.mark.parametrize("name", ["flights", "tasks"])
async def test_nothing_of_a_demo_is_left(own_dsn: str, tmp_path: Path, name: str) -> None:
    query(own_dsn, "create table theirs (id int primary key); comment on table theirs is 'not a MagMoBo demo '")
    before = catalogue(own_dsn)
    await make_demo(own_dsn, tmp_path, name=name).boot()
    assert catalogue(own_dsn) != before
    planned = await detach.plan(own_dsn)
    assert any(line.startswith("demo table public.") for line in planned.objects)
    removed = await detach.apply(own_dsn)
    assert not removed.kept
    assert sorted(removed.objects) == sorted(planned.objects)
    assert catalogue(own_dsn) == before
    assert not (await detach.plan(own_dsn)).objects


async def test_a_view_of_the_users_on_a_demo_stops_the_detach(own_dsn: str, tmp_path: Path) -> None:
    await make_demo(own_dsn, tmp_path, name="tasks").boot()
    query(own_dsn, "create view mine as select * from teams")
    with pytest.raises(DetachRefused):
        await detach.apply(own_dsn)
    assert query(own_dsn, "select count(*) from mine") == [(5,)]
