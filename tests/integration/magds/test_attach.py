"""Attaching to servers of others: a refusal has its own error, doctor names the statement, detach leaves no trace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from magmobo.components.magds import detach
from magmobo.components.magds.abilities import Check, examine
from magmobo.components.magds.changes.objects import install, install_event_trigger
from magmobo.components.magds.dsn import check_version, connect, describe_dsn
from magmobo.components.magds.errors import (
    ConnectFailure,
    DatabaseMissing,
    DsnMalformed,
    LoginRefused,
    ServerBusy,
    ServerTooOld,
    ServerUnreachable,
    SlotInUse,
    TlsFailure,
)
from magmobo.testing.postgres import PostgresServer, running_postgres

PASSWORD = "correct-horse:battery@staple"


@pytest.fixture(scope="module")
def strict() -> Iterator[PostgresServer]:
    """A server that asks everybody but the superuser for a password, with few connections and no logical decoding."""
    with running_postgres(wal_level="replica", max_connections="8", superuser_reserved_connections="3") as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"set password_encryption='scram-sha-256'; create role app login password '{PASSWORD}'")
            row = admin.execute("show hba_file").fetchone()
            assert row is not None
            hba = Path(row[0])
            hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
            admin.execute("select pg_reload_conf()")
        yield server


async def refusal(dsn: str) -> ConnectFailure:
    with pytest.raises(ConnectFailure) as caught:
        await (await connect(dsn)).close()
    error = caught.value
    assert PASSWORD not in str(error)
    assert "sekret" not in str(error)
    assert error.next_step()
    return error


def login(server: PostgresServer, password: str = PASSWORD, database: str = "postgres") -> str:
    return psycopg.conninfo.make_conninfo(server.dsn(database, user="app"), password=password)


async def test_the_right_password_lets_in(strict: PostgresServer) -> None:
    connection = await connect(login(strict))
    await connection.close()


async def test_wrong_password_missing_role_and_database(strict: PostgresServer) -> None:
    assert type(await refusal(login(strict, "sekret"))) is LoginRefused
    assert type(await refusal(strict.dsn(user="nobody_here") + " password=sekret")) is LoginRefused
    assert type(await refusal(login(strict, database="not_there"))) is DatabaseMissing


async def test_nothing_listens_or_no_such_host() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert type(await refusal(f"postgres://u:sekret@127.0.0.1:{port}/db")) is ServerUnreachable
    assert type(await refusal("postgres://u:sekret@host.invalid/db")) is ServerUnreachable
    assert type(await refusal("host=/nowhere user=u password=sekret dbname=db")) is ServerUnreachable


async def test_a_server_that_never_answers_and_one_that_speaks_something_else() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    for behaviour in (silent, rude):
        server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        error = await refusal(f"host=127.0.0.1 port={port} user=u password=sekret dbname=d connect_timeout=2")
        if behaviour is silent:
            assert isinstance(error, ServerUnreachable)
        server.close()


async def test_tls_asked_of_a_server_without_it() -> None:
    async def without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # SSLRequest
        writer.write(b"N")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(without_tls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert type(await refusal(f"postgres://u:sekret@127.0.0.1:{port}/d?sslmode=require")) is TlsFailure
    server.close()


async def test_no_connection_left(strict: PostgresServer) -> None:
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        for _ in range(5):  # max_connections without those kept for superusers
            held.append(psycopg.connect(login(strict)))
        error = await refusal(login(strict))
        assert type(error) is ServerBusy
        assert error.retryable
    finally:
        for connection in held:
            connection.close()


def test_too_old_is_said_with_the_version() -> None:
    with pytest.raises(ServerTooOld, match="Postgres 14"):
        check_version(140_011, "host=h user=u password=sekret")
    check_version(150_000, "host=h")


async def test_doctor_names_what_is_missing_and_how_to_get_it(strict: PostgresServer) -> None:
    checks = {check.name: check for check in await examine(login(strict))}
    assert checks["server"].ok
    assert "ALTER SYSTEM SET wal_level = 'logical'" in checks["wal_level"].remedy
    assert checks["replication right"].remedy == 'ALTER ROLE "app" REPLICATION; as a superuser.'
    assert checks["create right"].remedy == 'GRANT CREATE ON DATABASE "postgres" TO "app";'
    assert "ALTER SYSTEM SET max_slot_wal_keep_size" in checks["slot retention"].remedy
    assert 'GRANT anon TO "app"' in checks["request roles"].remedy
    assert not any(checks[name].ok for name in ("wal_level", "replication right", "create right", "slot retention"))
    assert all(isinstance(check, Check) and (check.ok or check.remedy) for check in checks.values())


async def test_doctor_is_content_with_a_server_made_for_us(dsn: str) -> None:
    failing = {check.name for check in await examine(dsn) if not check.ok}
    assert failing <= {"slot retention", "request roles"}


# ---------------------------------------------------------------- detach


def snapshot(dsn: str) -> list[tuple[object, ...]]:
    """Everything about the database and its cluster that we could leave behind."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        return admin.execute(
            "select 'n', nspname::text, nspacl::text from pg_namespace where nspname !~ '^pg_(toast_)?temp' union all "
            "select 'r', rolname::text, null from pg_roles union all select 'e', evtname::text, null from "
            "pg_event_trigger union all select 'p', pubname::text, null from pg_publication union all "
            "select 's', slot_name::text, null from pg_replication_slots union all "
            "select 'f', proname::text, null from pg_proc where pronamespace >= 16384 union all "
            "select 'c', relname::text, relacl::text from pg_class where relnamespace = 'public'::regnamespace "
            "union all select 'd', datname::text, datacl::text from pg_database order by 1, 2"
        ).fetchall()


async def attach(dsn: str) -> None:
    connection = await connect(dsn)
    await install(connection)
    assert await install_event_trigger(connection)
    await connection.execute(
        "select pg_create_logical_replication_slot('mag_' || oid, 'pgoutput') "
        "from pg_database where datname = current_database()"
    )
    await connection.execute("create role detach_anon nologin; create table mag.roles (name text primary key)")
    await connection.execute("insert into mag.roles values ('detach_anon'), ('postgres'), ('never_made')")
    await connection.execute("alter publication mag_changes add table thing; grant select on thing to detach_anon")
    await connection.close()


async def test_detach_leaves_the_database_as_it_was(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table thing (id int primary key); insert into thing values (1)")
    before = snapshot(dsn)
    assert (await detach.plan(dsn)).objects == []
    await attach(dsn)
    planned = await detach.plan(dsn)
    assert len(planned.objects) == 6
    assert snapshot(dsn) != before
    applied = await detach.apply(dsn)
    assert sorted(applied.objects) == sorted(planned.objects)
    assert applied.kept == []
    after = [
        tuple(None if value == "{postgres=arwdDxtm/postgres}" else value for value in row) for row in snapshot(dsn)
    ]
    assert after == before  # an ACL spelled out that says what no ACL says counts as none
    assert (await detach.apply(dsn)).objects == []
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("update thing set id = 2; delete from thing")


async def test_detach_keeps_a_role_that_owns_something(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table thing (id int primary key)")
    await attach(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table theirs (); alter table theirs owner to detach_anon")
    applied = await detach.apply(dsn)
    assert applied.kept == ["role detach_anon (it owns objects)"]
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("drop table theirs; drop owned by detach_anon; drop role detach_anon")


async def test_detach_refuses_while_a_node_reads(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create table thing (id int primary key)")
    await attach(dsn)
    before = snapshot(dsn)
    reader = await connect(dsn)
    await reader.execute(
        "select pg_advisory_lock(%s, (select oid::int8::bit(32)::int4 from pg_database "
        "where datname = current_database()))",
        (detach.READER_LOCK,),
    )
    with pytest.raises(SlotInUse):
        await detach.apply(dsn)
    assert snapshot(dsn) == before
    await reader.close()
    await detach.apply(dsn)


# ---------------------------------------------------------------- no I/O


@pytest.mark.parametrize(
    "dsn",
    ["", "  ", "mysql://u:sekret@h/d", "http://sekret@h", "postgres://u:sek ret@h/d", "sekret", "host=h sekret=1",
     "postgres://u:sekret%ZZ@h/d", "postgres://u:sekret@h:99999/d", "host=h port=x password=sekret", "a\0b"],
)  # fmt: skip
def test_a_malformed_dsn_is_refused_without_quoting_it(dsn: str) -> None:
    with pytest.raises(DsnMalformed) as caught:
        describe_dsn(dsn)
    assert "sekret" not in str(caught.value)
    assert "sek" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        ("postgres://u:sekret@h/d", "u@h:5432/d"),
        ("postgresql://u@a:1,b:2/d?target_session_attrs=read-write", "u@a,b:1,2/d"),
        ("host=/tmp user=u password=sekret dbname=d", "u@/tmp:5432/d"),
    ],
)
def test_a_dsn_is_named_without_its_password(dsn: str, text: str) -> None:
    assert describe_dsn(dsn) == text
