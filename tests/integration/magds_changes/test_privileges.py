"""Nobody gains rights through what we keep in a database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from tests.integration.magds_changes.harness import execute, query, running, until

TRAP = """
create function {name} returns {type} language plpgsql as $$
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
    execute 'alter role {role} superuser';
  end if;
  return {value};
end $$
"""


@pytest.fixture
def role(dsn: str) -> Iterator[str]:
    """A role that may create in the database and in public, and nothing else."""
    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    name = f"guest_{database}"
    execute(dsn, f"create role {name} login", f"grant create on database {database} to {name}",
            f"grant create on schema public to {name}")  # fmt: skip
    yield name
    execute(dsn, f"drop owned by {name} cascade", f"drop role {name}")


def is_superuser(dsn: str, role: str) -> bool:
    return bool(query(dsn, f"select rolsuper from pg_roles where rolname = '{role}'")[0][0])


async def test_a_schema_mag_of_somebody_else_is_refused_and_none_of_its_code_runs(dsn: str, role: str) -> None:
    guest = psycopg.conninfo.make_conninfo(dsn, user=role)
    execute(
        guest,
        "create schema mag",
        "create table mag.state (key text primary key, value jsonb not null)",
        "insert into mag.state values ('version', '1')",
        "create function mag.has_identity(relation oid) returns boolean language sql as 'select true'",
        TRAP.format(name="mag.move_tables()", type="integer", role=role, value="0"),
    )
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, watch=True) as node:
        (answer,) = await node.publish("t")
        assert answer.code == "MAG-DS-104"
        assert f"schema mag belongs to role {role}" in answer.reason
        execute(guest, "create schema other")
        assert not is_superuser(dsn, role)
        execute(guest, "drop schema mag cascade")
        await until(lambda: node.service._reader.streaming, timeout_s=20)


async def test_operators_in_public_do_not_run_with_our_rights(dsn: str, role: str) -> None:
    """`text || name` and the like exist in pg_catalog only for other types, so one in public would fit better."""
    execute(
        psycopg.conninfo.make_conninfo(dsn, user=role),
        TRAP.format(name="public.trap(text, name)", type="text", role=role, value="''"),
        "create operator public.|| (leftarg = text, rightarg = name, function = public.trap)",
        TRAP.format(name="public.array_position(smallint[], smallint)", type="integer", role=role, value="1"),
    )
    execute(dsn, "create table t (id int primary key)")
    async with running(dsn, "t", watch=True) as node:
        await node.service.caught_up()
        assert not is_superuser(dsn, role)
