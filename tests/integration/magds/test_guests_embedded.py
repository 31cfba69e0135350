"""Guests of an embedded node: the login has no superuser's rights and the server asks for passwords."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from magmobo.components.magds.access import embedded_access
from magmobo.components.magds.component import MagDS
from magmobo.components.magds.errors import IdentityRefused
from magmobo.components.magds.guests.errors import GuestsRefused
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.guests import Guests, Migration, Migrations, TableRight
from magmobo.contracts.planes import Database, Identity, Statement, TableName
from magmobo.testing.harness import running_kernel


class Plane(Component):
    """Asks for what the mediation plane asks of storage."""

    name = "plane"
    seen: Plane

    def __init__(
        self, context: Context, database: Needs[Database], guests: Needs[Guests], migrations: Needs[Migrations]
    ) -> None:
        self.database, self.guests, self.migrations = database, guests, migrations
        Plane.seen = self


@pytest.fixture
def place() -> Iterator[tuple[Path, dict[str, Any]]]:
    scratch = Path(tempfile.mkdtemp(prefix="magds"))
    scratch.chmod(0o711)
    data_dir = scratch / "data"
    data_dir.mkdir(mode=0o700)
    yield data_dir, {"magds": {"system_dir": str(scratch / "system")}}
    shutil.rmtree(scratch)


async def test_a_guest_logs_in_with_its_password_and_is_gone_without_a_trace(
    place: tuple[Path, dict[str, Any]],
) -> None:
    data_dir, config = place
    async with running_kernel(MagDS, Plane, config=config, data_dir=data_dir):
        plane = Plane.seen
        await plane.guests.check()
        async with plane.database.session() as connection:
            await connection.execute("create table public.orders (id serial, note text)")
            async with connection.transaction():
                await plane.guests.ensure(connection, "shop", schema=True)
                await plane.guests.grant(
                    connection, "shop", [TableRight(TableName("public", "orders"), ("select", "insert"))]
                )
        role = plane.guests.role_of("shop")
        steps = [Migration("1", "notes", "create table notes (id int)", "drop table notes")]
        assert await plane.migrations.up("shop", steps, guest="shop") == ["1"]
        assert await plane.migrations.up("own", [Migration("1", "t", "create table mag.own (id int)")]) == ["1"]
        async with plane.guests.session("shop") as connection:
            await connection.execute("insert into public.orders (note) values ('x'); insert into notes values (1)")
            row = await (
                await connection.execute("select session_user::text, current_setting('is_superuser')")
            ).fetchone()
            assert row == (role, "off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("select password from mag.guest")
        with pytest.raises(IdentityRefused):
            await plane.database.run(Statement(b"select 1"), Identity(role), read_only=True)
        dsn = embedded_access(data_dir).dsn
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(dsn, user=role, password="guessed")
        async with plane.guests.session("shop") as held, plane.database.session() as connection:
            await connection.execute(f"alter role {role} password 'another'".encode())
            await connection.execute("update mag.guest set password = 'another'")
            async with plane.guests.session(
                "shop"
            ) as fresh:  # by a login of its own, with the password that counts now
                assert fresh.info.backend_pid != held.info.backend_pid
            await connection.execute("update mag.guest set password = 'not this one'")
        await plane.guests.forget("shop")
        with pytest.raises(GuestsRefused, match=r"pg_hba|lets"):
            async with plane.guests.session("shop"):
                pass
        async with plane.database.session() as connection, connection.transaction():
            await plane.guests.drop(connection, "shop", keep_schema=False)
        async with plane.database.session() as connection:
            left = await connection.execute(
                "select count(*) from pg_roles where rolname like 'mag_ext_%%' union all "
                "select count(*) from pg_namespace where nspname like 'ext_%%' union all "
                "select count(*) from pg_auth_members m where m.member = 'mag'::regrole and not admin_option"
            )
            assert await left.fetchall() == [(0,), (0,), (0,)]
