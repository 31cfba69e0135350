"""Roles and the application database of the embedded server, made at the first start, checked at every one.

`postgres` is the superuser: supervision, the change reader and the schema watch, all of them fixed SQL of ours. `mag`
is the node's own role, for sessions and under requests: owner of the database `app`, may replicate and make roles, is
no superuser, so nothing that escapes a request's role reaches the operating system. Requests run as neither.
Schema `mag` belongs to `postgres`: functions in it run with its rights, so `mag` may add to it but replace nothing.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from magmobo.components.magds.supervisor import PostgresServer

NODE_ROLE = "mag"
DATABASE = "app"


async def bootstrap(server: PostgresServer, *, node_password: str) -> None:
    """Make what is missing. An interrupted first start is finished by the next one.

    Raises: psycopg.Error when the superuser's password no longer fits or the disk is full.
    """
    async with await psycopg.AsyncConnection.connect(server.conninfo(), autocommit=True) as admin:
        has_role, has_database = await _what_exists(admin)
        if not has_role:
            await _make_role(admin, node_password)
        if not has_database:
            await admin.execute(sql.SQL("create database {} owner {}").format(_name(DATABASE), _name(NODE_ROLE)))
    async with await psycopg.AsyncConnection.connect(server.conninfo(database=DATABASE), autocommit=True) as admin:
        await admin.execute("set client_min_messages = warning; create schema if not exists mag")
        await admin.execute(sql.SQL("grant usage, create on schema mag to {}").format(_name(NODE_ROLE)))


async def _what_exists(admin: psycopg.AsyncConnection[Any]) -> tuple[bool, bool]:
    cursor = await admin.execute(
        "select exists (select from pg_roles where rolname = %s and rolcanlogin), "
        "exists (select from pg_database where datname = %s)",
        (NODE_ROLE, DATABASE),
    )
    row = await cursor.fetchone()
    return (bool(row[0]), bool(row[1])) if row else (False, False)


async def _make_role(admin: psycopg.AsyncConnection[Any], password: str) -> None:
    async with admin.transaction():
        # The hash is made here, so the password is in no statement that the server might log.
        hashed = admin.pgconn.encrypt_password(password.encode(), NODE_ROLE.encode(), b"scram-sha-256").decode()
        await admin.execute(
            sql.SQL("create role {} login replication createrole password {}").format(_name(NODE_ROLE), hashed)
        )
        # The default, "$user", public, would put its tables into our schema, which has the same name.
        await admin.execute(sql.SQL("alter role {} set search_path = public").format(_name(NODE_ROLE)))
        if admin.info.server_version >= 160_000:
            # Roles that it makes are then its own to hand to requests.
            await admin.execute(sql.SQL("alter role {} set createrole_self_grant = 'set'").format(_name(NODE_ROLE)))


def _name(identifier: str) -> sql.Identifier:
    return sql.Identifier(identifier)
