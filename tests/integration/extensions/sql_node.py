"""An extension's SQL on a real server: guests, grants, the guard and the methods, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.migrations.service import MigrationService
from magmobo.components.magds.pool import Pool
from magmobo.contracts.guests import Migration
from magmobo.extensions.installed import Caller, Grant, Installed
from magmobo.extensions.package.manifest import CapabilityRequest, Manifest
from magmobo.extensions.sql.methods import SqlArguments, SqlMethods, rights_of
from magmobo.extensions.sql.migrations import guarded
from magmobo.kernel.bus.bus import EventBus, ScopedBus
from magmobo.kernel.hooks import HookBoard

PATIENCE_S = 60.0


class Gate:
    """What the methods ask of the gatekeeper."""

    def __init__(self) -> None:
        self.denials: list[tuple[str, str, str]] = []

    def holds(self, extension: Installed, capability: str) -> bool:
        return capability in extension.grants

    def denied(self, extension: Installed, capability: str, method: str, reason: str) -> None:
        self.denials.append((capability, method, reason))


class Author:
    """One extension, as its code sees `ext.db`."""

    def __init__(self, node: SqlNode, installed: Installed) -> None:
        self.node, self.installed = node, installed

    async def call(self, method: str, sql: str, *params: Any, timeout_s: float = PATIENCE_S) -> Any:
        caller = Caller(self.installed, (), asyncio.get_running_loop().time() + timeout_s)
        async with asyncio.timeout_at(caller.deadline_s):
            return await self.node.handlers[method](caller, SqlArguments(sql, list(params)))

    async def execute(self, sql: str, *params: Any) -> int:
        return int(await self.call("db.execute", sql, *params))

    async def fetch(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await self.call("db.fetch", sql, *params)
        return rows

    async def value(self, sql: str, *params: Any) -> Any:
        return await self.call("db.fetchval", sql, *params)

    async def migrate(self, *migrations: Migration) -> Sequence[str]:
        guest = self.installed.guest
        texts = await guarded(migrations, self.node.guests.schema_of(guest))
        return await self.node.migrations.up(self.installed.id, texts, guest=guest)

    def revoke(self, capability: str) -> None:
        self.installed.grants = {name: one for name, one in self.installed.grants.items() if name != capability}


class SqlNode:
    """A node's storage and its SQL methods."""

    def __init__(self, dsn: str, oid: int) -> None:
        self.dsn = dsn
        self.pool = Pool(partial(connect, dsn), size=4, idle_s=60)
        session = partial(self.pool.lease, timeout_s=PATIENCE_S)
        self.guests = GuestService(dsn, session, database_oid=oid, acquire_timeout_s=PATIENCE_S)
        self.migrations = MigrationService(session, self.guests, hooks=HookBoard(), bus=ScopedBus(EventBus(), "test"))
        self.gate = Gate()
        self.handlers: dict[str, Any] = {
            method.name: method.handle for method in SqlMethods(self.guests, self.gate).methods()
        }
        self._authors: list[Author] = []

    async def author(
        self, name: str, *, schema: bool = True, read: Sequence[str] = (), write: Sequence[str] = ()
    ) -> Author:
        """An extension with these capabilities, all of them granted."""
        scopes = {"database.read": read, "database.write": write, **({"database.schema": ()} if schema else {})}
        requests = [
            CapabilityRequest(name=capability, reason="a test", tables=tables)
            for capability, tables in scopes.items()
            if tables or capability == "database.schema"
        ]
        grants = {
            capability: Grant(capability=capability, scope={"tables": tables}, rate_per_minute=100)
            for capability, tables in (scopes | {"database.read": [*read, *write]}).items()
            if tables or capability in ("database.read", "database.schema")
        }
        manifest = Manifest(id=name.replace("_", "-"), name=name, version="1.0.0", capabilities=requests)
        installed = Installed(manifest.id, "1.0.0", "0" * 64, manifest, Path("/nowhere"), "", guest=name, grants=grants)
        async with self.pool.lease(timeout_s=PATIENCE_S) as connection, connection.transaction():
            await self.guests.ensure(connection, name, schema=schema)
            await self.guests.grant(connection, name, rights_of(installed))
        author = Author(self, installed)
        self._authors.append(author)
        return author

    async def close(self) -> None:
        for author in self._authors:
            await self.guests.forget(author.installed.guest)
            async with self.pool.lease(timeout_s=PATIENCE_S) as connection, connection.transaction():
                await self.guests.drop(connection, author.installed.guest, keep_schema=False)
        await self.guests.close()
        await self.pool.close()


@asynccontextmanager
async def sql_node(dsn: str, script: str = "") -> AsyncIterator[SqlNode]:
    """A node on a database where `script` was run."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(script.encode())
        row = admin.execute("select oid::int8 from pg_database where datname = current_database()").fetchone()
    assert row is not None
    node = SqlNode(dsn, row[0])
    try:
        yield node
    finally:
        await node.close()
