"""Connections that the server ends: what was not begun goes on over another one, what may have run is not repeated."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from tests.integration.extensions.sql_node import sql_node

from magmobo.contracts.errors import Unavailable
from magmobo.contracts.guests import Migration
from magmobo.extensions.sql import methods
from magmobo.extensions.sql.errors import StatementFailed
from magmobo.testing.postgres import PostgresServer

NOTES = Migration("0001", "notes", "create table notes (id int primary key)", "drop table notes")
ENDLESS = "with recursive r(n) as (values (1) union all select n from r) select count(*) from r"


def end(postgres: PostgresServer, role: str, *, wait_ms: int = 0) -> None:
    """As an operator would, or a server that goes down."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        ended = "select pg_terminate_backend(pid, %s) from pg_stat_activity where usename = %s"
        admin.execute(ended, (wait_ms, role))


@pytest.mark.parametrize(("wait_ms", "times"), [(5000, 5), (0, 40)])
async def test_a_connection_that_was_ended_while_idle_costs_no_statement(
    dsn: str, postgres: PostgresServer, wait_ms: int, times: int
) -> None:
    """Without waiting, the end is often still on its way when the statement is sent."""
    async with sql_node(dsn) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        role = node.guests.role_of("one")
        for number in range(times):
            end(postgres, role, wait_ms=wait_ms)
            assert await one.execute("insert into notes values ($1)", number) == 1
        assert await one.value("select count(*) from notes") == times, "each ran, and ran once"


async def test_all_connections_may_have_been_ended(dsn: str, postgres: PostgresServer) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        role = node.guests.role_of("one")
        for _ in range(5):
            await asyncio.gather(*(one.value("select 1") for _ in range(12)))
            end(postgres, role)
            assert await asyncio.gather(*(one.value("select 1") for _ in range(12))) == [1] * 12


async def test_a_session_that_the_server_found_idle_for_too_long_costs_no_statement(dsn: str) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        role = node.guests.role_of("one")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"alter role {role} set idle_session_timeout = '30ms'".encode())
        for number in range(60):
            assert await one.value("select $1::int", number) == number
            await asyncio.sleep(0.0275 + number % 6 * 0.001)  # as close to the end as may be


async def test_what_may_have_run_is_not_run_again(dsn: str, postgres: PostgresServer) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        role = node.guests.role_of("one")
        task = asyncio.ensure_future(one.value(ENDLESS))
        active = "select count(*) from pg_stat_activity where usename = %s and state = 'active'"
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            async with asyncio.timeout(30):
                while admin.execute(active, (role,)).fetchone() != (1,):
                    await asyncio.sleep(0.01)
            end(postgres, role, wait_ms=5000)
            async with asyncio.timeout(30):
                with pytest.raises(Unavailable):
                    await task
            assert admin.execute(active, (role,)).fetchone() == (0,)


@pytest.mark.parametrize("state", ["57P01", "57P05"])
async def test_a_trigger_that_speaks_as_a_server_that_ends_is_heard_once(dsn: str, state: str) -> None:
    """What it did outside of the transaction would be done again, too."""
    async with sql_node(dsn) as node:
        one = await node.author("one")
        await one.migrate(NOTES)
        schema = node.guests.schema_of("one")
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("create sequence public.tries")
            admin.execute(
                f"""
                create function public.refuse() returns trigger language plpgsql security definer as $$
                begin
                  perform nextval('public.tries');
                  raise exception 'no' using errcode = '{state}';
                end $$
            """.encode()
            )
            trigger = f"create trigger refuse before insert on {schema}.notes execute function public.refuse()"
            admin.execute(trigger.encode())
            with pytest.raises(StatementFailed, match=state):
                await one.execute("insert into notes values (1)")
            assert admin.execute("select last_value from public.tries").fetchone() == (1,)
        assert await one.value("select count(*) from notes") == 0


async def test_a_server_that_ends_every_connection_is_said_to_be_away(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sql_node(dsn) as node:
        one = await node.author("one")
        tried = 0

        async def end_it(*_: object) -> None:
            nonlocal tried
            tried += 1
            raise methods.NotTaken

        monkeypatch.setattr(methods.execution, "run", end_it)
        with pytest.raises(Unavailable):
            await one.value("select 1")
        assert tried == 4
