"""Puts a demo's tables into the database: all of them or none, once.

Invariant: everything happens in one transaction, so a node killed at any moment leaves either no trace or a complete
demo. What belongs to a demo is marked with a comment (`MagMoBo demo NAME, version N`); a table or role without it is
somebody else's and is never touched.
"""

from __future__ import annotations

import asyncio
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import psycopg
from psycopg import AsyncConnection, sql

from magmobo.components.demo.dataset import CsvFile
from magmobo.components.demo.errors import DatasetUnexpected, DemoIncomplete, DemoNotAllowed, NameTaken
from magmobo.components.demo.progress import Progress

Connection = AsyncConnection[tuple[Any, ...]]

BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True)
class DemoSchema:
    """Names a demo owns: tables of schema public, and cluster-wide roles without login."""

    name: str
    version: int
    tables: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def table_mark(self) -> str:
        """Comment that tells our tables from anybody else's."""
        return f"MagMoBo demo {self.name}, version {self.version}"

    @property
    def role_mark(self) -> str:
        """Comment that tells our roles from anybody else's."""
        return f"MagMoBo demo {self.name}"


class Fill(Protocol):
    """Creates and fills the tables, inside the transaction it is given."""

    async def __call__(self, connection: Connection, progress: Progress) -> None: ...


async def is_loaded(connection: Connection, schema: DemoSchema) -> bool:
    """Whether the demo is in this database, whole.

    Raises: NameTaken when a table of that name is somebody else's; DemoIncomplete when only some are there.
    """
    cursor = await connection.execute(
        "select c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), '') from pg_class c"
        " where c.relnamespace = to_regnamespace('public') and c.relname = any(%s) order by 1",
        (list(schema.tables),),
    )
    marks = {str(name): str(mark) for name, mark in await cursor.fetchall()}
    prefix = f"MagMoBo demo {schema.name},"
    if foreign := tuple(f"public.{name}" for name, mark in marks.items() if not mark.startswith(prefix)):
        raise NameTaken("table", foreign)
    if not marks:
        return False
    if len(marks) < len(schema.tables) or set(marks.values()) != {schema.table_mark}:
        raise DemoIncomplete(schema.name, tuple(f"public.{name}" for name in marks))
    return True


async def load_once(connection: Connection, schema: DemoSchema, fill: Fill, progress: Progress) -> bool:
    """Create and fill the demo unless it is there. Returns whether it did.

    Raises: NameTaken, DemoIncomplete, DatasetUnexpected, DemoNotAllowed; the database is then as it was.
    """
    try:
        async with connection.transaction():
            # Two nodes starting on one database must not load twice; the lock ends with the transaction.
            await connection.execute("select pg_advisory_xact_lock(hashtextextended('magmobo.demo', 0))")
            await connection.execute("set local statement_timeout = 0")
            if await is_loaded(connection, schema):
                return False
            await _create_roles(connection, schema)
            await fill(connection, progress)
            for table in schema.tables:
                await connection.execute(
                    sql.SQL("comment on table public.{} is {}").format(sql.Identifier(table), schema.table_mark)
                )
    except psycopg.errors.InsufficientPrivilege as error:
        raise DemoNotAllowed(error.diag.message_primary or "permission denied") from error
    return True


async def run_script(connection: Connection, name: str) -> None:
    """Run one of the SQL files of this package; many statements in one go."""
    script = resources.files(__package__).joinpath("sql", f"{name}.sql").read_bytes()
    await connection.execute(script)


async def copy_csv(
    connection: Connection, table: str, columns: Sequence[str], file: CsvFile, progress: Progress
) -> int:
    """Stream a CSV into a table made in this transaction; `NA` becomes null. Returns the number of rows.

    Raises: DatasetUnexpected when the header or a value does not fit, or the archive is broken.
    """
    # `header match` lets Postgres check the file's columns; `freeze` spares the later rewrite by vacuum.
    command = sql.SQL("copy public.{} ({}) from stdin (format csv, header match, null 'NA', freeze)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    async with connection.cursor() as cursor:
        try:
            with file.open() as stream:
                async with cursor.copy(command) as copy:
                    while block := await asyncio.to_thread(stream.read, BLOCK_BYTES):
                        await copy.write(block)
                        progress.advance(table, len(block))
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise DatasetUnexpected(table, error.diag.message_primary or type(error).__name__) from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DatasetUnexpected(table, "its archive is broken") from error
        return cursor.rowcount


async def _create_roles(connection: Connection, schema: DemoSchema) -> None:
    """Make the demo's roles, let the node's role act as them, and note them for `mag detach`."""
    await connection.execute("create schema if not exists mag")
    await connection.execute("create table if not exists mag.roles (name text primary key)")
    for role in schema.roles:
        await _create_role(connection, role, schema.role_mark)
        await connection.execute("insert into mag.roles values (%s) on conflict do nothing", (role,))


async def _create_role(connection: Connection, role: str, mark: str) -> None:
    # Roles belong to the whole cluster: another database's demo may have made this one, or be making it now.
    await connection.execute(
        sql.SQL(
            "do $$ begin create role {role} nologin; comment on role {role} is {mark};"
            " exception when duplicate_object or unique_violation then null; end $$"
        ).format(role=sql.Identifier(role), mark=mark)
    )
    cursor = await connection.execute(
        "select coalesce(shobj_description(oid, 'pg_authid'), '') = %s and not rolsuper and not rolbypassrls"
        " and not rolcanlogin, pg_has_role(current_user, oid, %s) from pg_roles where rolname = %s",
        (mark, "set" if connection.info.server_version >= 160_000 else "member", role),
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise NameTaken("role", (role,))
    if not row[1]:
        await connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(role)))
