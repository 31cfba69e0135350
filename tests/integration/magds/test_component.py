"""MagDS in a real kernel: embedded as root and as a plain user would see it, restarts, kill -9, and a DSN."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from magmobo.components.magds.component import MagDS
from magmobo.components.magds.errors import IdentityRefused
from magmobo.components.magds.processes import serving
from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.events import DatabaseConnectionFailed, DatabaseConnectionRecovered
from magmobo.contracts.planes import Changes, Database, Identity, Statement
from magmobo.testing.harness import running_kernel


class Probe(Component):
    """Holds what a consumer sees."""

    name = "probe"
    seen: Probe

    def __init__(self, context: Context, database: Needs[Database], changes: Needs[Changes]) -> None:
        self.context, self.database, self.changes = context, database, changes
        Probe.seen = self


@pytest.fixture
def folders() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A data folder, and settings that keep root's clusters out of the real system folder."""
    scratch = Path(tempfile.mkdtemp(prefix="magds"))
    scratch.chmod(0o711)
    data_dir = scratch / "data"
    data_dir.mkdir(mode=0o700)
    yield data_dir, {"magds": {"system_dir": str(scratch / "system")}}
    shutil.rmtree(scratch)


async def make_role(database: Database, role: str) -> None:
    async with database.session() as connection:
        await connection.execute(f"create role {role} nologin; grant {role} to current_user".encode())


async def test_embedded_from_nothing_then_warm_with_all_rows(folders: tuple[Path, dict[str, Any]]) -> None:
    data_dir, config = folders
    begun_s = time.perf_counter()
    async with running_kernel(MagDS, Probe, config=config, data_dir=data_dir) as kernel:
        first_s = time.perf_counter() - begun_s
        database = Probe.seen.database
        assert database.database_name == "app"
        async with database.session() as connection:
            row = await (
                await connection.execute("select current_user::text, rolsuper from pg_roles where rolname=current_user")
            ).fetchone()
            assert row == ("mag", False)
            await connection.execute("create table kept as select generate_series(1, 100) as id")
            await connection.execute("create role reader nologin; grant select on kept to reader")
        answer = await database.run(
            Statement(b"select count(*)::text, current_user::text from kept"), Identity("reader"), read_only=True
        )
        assert answer.rows == [(b"100", b"reader")]
        for role in ("mag", "postgres", "none", "pg_read_all_data", "nobody-knows"):
            with pytest.raises(IdentityRefused):
                await database.run(Statement(b"select 1"), Identity(role), read_only=True)
        await Probe.seen.changes.caught_up()
        assert {c.name: c.state for c in kernel.status().components}["magds"] == "running"
    assert serving(_pgdata(data_dir)) == []
    begun_s = time.perf_counter()
    async with running_kernel(MagDS, Probe, config=config, data_dir=data_dir):
        print(f"\nfirst boot {first_s:.3f} s, warm boot {time.perf_counter() - begun_s:.3f} s")
        async with Probe.seen.database.session() as connection:
            assert await (await connection.execute("select count(*) from kept")).fetchone() == (100,)


async def test_postgres_killed_under_a_running_node_comes_back(folders: tuple[Path, dict[str, Any]]) -> None:
    data_dir, config = folders
    async with running_kernel(MagDS, Probe, config=config, data_dir=data_dir):
        probe, events = Probe.seen, []
        probe.context.bus.on(DatabaseConnectionFailed, lambda event: events.append("failed"))
        probe.context.bus.on(DatabaseConnectionRecovered, lambda event: events.append("recovered"))
        await make_role(probe.database, "reader")
        ask = Statement(b"select 'here'")
        assert (await probe.database.run(ask, Identity("reader"), read_only=True)).rows == [(b"here",)]
        os.kill(serving(_pgdata(data_dir))[0], signal.SIGKILL)
        async with asyncio.timeout(20):
            while "recovered" not in events:
                await asyncio.sleep(0.01)
        assert (await probe.database.run(ask, Identity("reader"), read_only=True)).rows == [(b"here",)]
        async with probe.database.session() as connection:
            assert await (await connection.execute("select 1")).fetchone() == (1,)
        assert events == ["failed", "recovered"]
        await probe.changes.caught_up()


async def test_dsn_runs_requests_only_as_granted_roles(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        for line in (
            "drop role if exists dsn_login, dsn_reader, dsn_strong, dsn_boss",
            "create role dsn_login login replication; create role dsn_reader; create role dsn_strong bypassrls",
            "create role dsn_boss; grant dsn_login to dsn_boss; grant dsn_boss to postgres",
            "grant dsn_reader, dsn_strong to dsn_login",
        ):
            admin.execute(line.encode())
        database_name = admin.info.dbname
        admin.execute(f"grant create on database {database_name} to dsn_login".encode())
    login = dsn.replace("user=postgres", "user=dsn_login")
    with tempfile.TemporaryDirectory() as scratch:
        async with running_kernel(MagDS, Probe, config={"magds": {"dsn": login}}, data_dir=Path(scratch)):
            database = Probe.seen.database
            assert database.grantable_roles() == {"dsn_reader"}
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("create role dsn_late; grant dsn_late to dsn_login")
            async with asyncio.timeout(30):
                while "dsn_late" not in database.grantable_roles():
                    await asyncio.sleep(0.02)
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("drop role dsn_late")
        assert list(Path(scratch).glob("postgres*")) == []
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("drop owned by dsn_login cascade; drop role dsn_login, dsn_reader, dsn_strong, dsn_boss")


def _pgdata(data_dir: Path) -> Path:
    from magmobo.components.magds.place import Records

    place = Records(data_dir).place()
    assert place is not None
    return place.cluster
