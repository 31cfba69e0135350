"""Servers and roles that cannot give changes: start works, and the reason and the remedy are exact."""

from __future__ import annotations

import psycopg
import pytest
from tests.integration.magds_changes.harness import execute, running, until

from magmobo.components.magds.changes import errors
from magmobo.contracts.planes import Gap
from magmobo.testing.postgres import PostgresServer, running_postgres


async def refused(dsn: str, error: type[errors.ChangesUnavailable]) -> str:
    async with running(dsn) as node:
        with pytest.raises(error) as caught:
            await node.service.caught_up()
        assert caught.value.code == error.code
        assert any(error.code in notice for notice in node.service.notices())
        (answer,) = await node.publish("t")
        assert answer.code == error.code
        assert isinstance(node.service.replay(answer.table, "", ""), Gap)
        return caught.value.next_step()


async def test_a_server_without_logical_decoding() -> None:
    with running_postgres(wal_level="replica") as server, server.database() as dsn:
        execute(dsn, "create table t (id int primary key)")
        assert "ALTER SYSTEM SET wal_level = 'logical'" in await refused(dsn, errors.LogicalDecodingOff)
        execute(dsn, "update t set id = 1")


async def test_a_server_whose_slots_are_used_up() -> None:
    with running_postgres(max_replication_slots="1", max_wal_senders="2") as server, server.database() as dsn:
        execute(dsn, "select pg_create_physical_replication_slot('theirs')")
        assert "max_replication_slots" in await refused(dsn, errors.NoFreeSlot)
        execute(dsn, "select pg_drop_replication_slot('theirs')")


async def test_a_role_that_may_not_replicate(postgres: PostgresServer, dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    execute(dsn, f'create role "weak-{name}" login', f'grant create on database {name} to "weak-{name}"')
    step = await refused(psycopg.conninfo.make_conninfo(dsn, user=f"weak-{name}"), errors.ReplicationRightMissing)
    assert f'ALTER ROLE "weak-{name}" WITH REPLICATION;' in step
    execute(dsn, f'drop owned by "weak-{name}" cascade', f'drop role "weak-{name}"')


async def test_a_role_that_may_not_create(dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    execute(dsn, f"create role poor_{name} login replication")
    step = await refused(psycopg.conninfo.make_conninfo(dsn, user=f"poor_{name}"), errors.DatabaseRightMissing)
    assert f"GRANT CREATE ON DATABASE {name} TO poor_{name};" in step
    execute(dsn, f"drop role poor_{name}")


async def test_a_server_whose_commits_would_wait_for_us() -> None:
    with (
        running_postgres(synchronous_standby_names="*", synchronous_commit="local") as server,
        server.database() as dsn,
    ):
        assert "no *" in await refused(dsn, errors.WouldBlockCommits)


async def test_a_server_told_to_let_commits_wait_for_us_loses_its_reader_instead() -> None:
    with running_postgres(synchronous_commit="local") as server, server.database() as dsn:
        execute(dsn, "create table t (id int primary key)")
        async with running(dsn, "t") as node:
            await node.service.caught_up()
            execute(dsn, "alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
            await until(lambda: isinstance(node.service._reader.reason, errors.WouldBlockCommits))


async def test_changes_come_once_the_server_allows_them(dsn: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    execute(dsn, f"create role late_{name} login", f"grant create on database {name} to late_{name}",
            f"create table t (id int primary key); alter table t owner to late_{name}")  # fmt: skip
    async with running(psycopg.conninfo.make_conninfo(dsn, user=f"late_{name}")) as node:
        (answer,) = await node.publish("t")
        assert answer.code == "MAG-DS-103"
        execute(dsn, f"alter role late_{name} replication")
        await until(lambda: node.service.published(answer.table))
        await node.service.caught_up()
        assert not any("MAG-DS-103" in notice for notice in node.service.notices())
    execute(dsn, f"drop owned by late_{name} cascade", f"drop role late_{name}")
