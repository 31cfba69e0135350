"""The `Migrations` that others use: dbmate's idea with checksums, one lock per namespace, and all or nothing.

One call is one transaction, so neither a crash nor a failing step leaves half of it. `before_migration` is asked for
every step before the first one runs; what extensions and listeners are told afterwards is told after the commit.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import perf_counter
from typing import Literal

import psycopg
from msgspec.structs import replace

from magmobo.components.magds.guests.service import GuestService
from magmobo.components.magds.migrations.errors import (
    MigrationChanged,
    MigrationFailed,
    MigrationIrreversible,
    MigrationsBusy,
)
from magmobo.components.magds.migrations.ledger import Ledger, checksum
from magmobo.components.magds.own_schema import SCHEMA, primary
from magmobo.components.magds.pool import Connection
from magmobo.contracts.bus import Bus
from magmobo.contracts.events import DatabaseMigrationApplied
from magmobo.contracts.guests import AppliedMigration, Migration
from magmobo.contracts.hooks import HookPoint, Hooks, MigrationContext

_LOCK = 0x6D61676D  # "magm": first key of the advisory lock, the second is the namespace
_LOCK_TIMEOUT = "10s"
"""Of waiting for another node, and for anybody who holds a table: those who come later wait behind us meanwhile."""
_GUEST_TIMEOUT = "10min"


class MigrationService:
    """Implements `contracts.guests.Migrations`."""

    def __init__(
        self,
        session: Callable[[], AbstractAsyncContextManager[Connection]],
        guests: GuestService,
        *,
        hooks: Hooks,
        bus: Bus,
    ) -> None:
        self._session, self._guests, self._bus = session, guests, bus
        self._before: HookPoint[MigrationContext] = hooks.point("database.before_migration")
        self._after: HookPoint[MigrationContext] = hooks.point("database.after_migration")

    async def applied(self, namespace: str, *, guest: str = "") -> Sequence[AppliedMigration]:
        ledger = self._ledger(guest)
        async with self._open(guest) as connection:
            return await ledger.read(connection, namespace) if await ledger.is_there(connection) else ()

    async def up(self, namespace: str, migrations: Sequence[Migration], *, guest: str = "") -> Sequence[str]:
        ledger = self._ledger(guest)
        async with self._open(guest) as connection:
            await _lock(connection, namespace)
            await ledger.make(connection)
            pending = _pending(namespace, migrations, await ledger.read(connection, namespace))
            await self._ask(_context(namespace, one, "up", one.up) for one in pending)
            done = []
            for one in pending:
                done.append(await _run(connection, _context(namespace, one, "up", one.up)))
                await ledger.add(connection, namespace, one)
        self._tell(done)
        return [one.version for one in pending]

    async def down(self, namespace: str, to: Sequence[str], *, guest: str = "") -> Sequence[str]:
        ledger = self._ledger(guest)
        async with self._open(guest) as connection:
            await _lock(connection, namespace)
            if not await ledger.is_there(connection):
                return []
            undone = _undone(namespace, to, await ledger.read(connection, namespace))
            await self._ask(_context(namespace, one, "down", one.down) for one in undone)
            done = []
            for one in undone:
                done.append(await _run(connection, _context(namespace, one, "down", one.down)))
                await ledger.remove(connection, namespace, one.version)
        self._tell(done)
        return [one.version for one in undone]

    # ------------------------------------------------------------ parts of it

    def _ledger(self, guest: str) -> Ledger:
        return Ledger(self._guests.schema_of(guest) if guest else SCHEMA)

    @asynccontextmanager
    async def _open(self, guest: str) -> AsyncIterator[Connection]:
        """A transaction with limits of its own, as the guest or as the node."""
        async with self._guests.session(guest) if guest else self._session() as connection, connection.transaction():
            limit = _GUEST_TIMEOUT if guest else "0"
            await connection.execute(
                "select pg_catalog.set_config('lock_timeout', %s, true),"
                " pg_catalog.set_config('statement_timeout', %s, true),"
                " pg_catalog.set_config('idle_in_transaction_session_timeout', %s, true)",
                (_LOCK_TIMEOUT, limit, limit),
            )
            yield connection

    async def _ask(self, contexts: Iterable[MigrationContext]) -> None:
        """Raises: HookDenied, HookUnavailable; nothing has run then."""
        if self._before.chain is None:
            return
        for context in contexts:
            if self._before.chain is not None:
                await self._before.chain.before(context)

    def _tell(self, done: Sequence[MigrationContext]) -> None:
        for context in done:
            if self._after.chain is not None:
                self._after.chain.after(context)
            self._bus.emit(
                DatabaseMigrationApplied(context.namespace, context.version, context.duration_s, context.direction)
            )


def _context(
    namespace: str, migration: Migration | AppliedMigration, direction: Literal["up", "down"], text: str
) -> MigrationContext:
    return MigrationContext(
        namespace=namespace, version=migration.version, name=migration.name, direction=direction, sql=text
    )


def _pending(
    namespace: str, migrations: Sequence[Migration], applied: Sequence[AppliedMigration]
) -> Sequence[Migration]:
    """Those that did not run yet, in order. Raises: MigrationChanged; MigrationFailed for a version that is there
    twice.
    """
    recorded = {one.version: one for one in applied}
    by_version: dict[str, Migration] = {}
    for one in migrations:
        if one.version in by_version:
            raise MigrationFailed(namespace, one.version, "two migrations have this version")
        by_version[one.version] = one
        if one.version in recorded and recorded[one.version].checksum != checksum(one):
            raise MigrationChanged(namespace, one.version, "it ran with another text than it has now")
    return [by_version[version] for version in sorted(by_version) if version not in recorded]


def _undone(namespace: str, to: Sequence[str], applied: Sequence[AppliedMigration]) -> Sequence[AppliedMigration]:
    """Those to undo, newest first. Raises: MigrationIrreversible."""
    undone = [one for one in reversed(applied) if one.version not in to]
    for one in undone:
        if not one.down.strip():
            raise MigrationIrreversible(namespace, one.version, "it says no way back")
    return undone


async def _lock(connection: Connection, namespace: str) -> None:
    """Held until the transaction ends. Raises: MigrationsBusy."""
    key = zlib.crc32(namespace.encode()) - 0x80000000  # a signed 32-bit number
    try:
        await connection.execute("select pg_catalog.pg_advisory_xact_lock(%s::int4, %s::int4)", (_LOCK, key))
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationsBusy(namespace, "(all)", "another node runs migrations of it") from error


async def _run(connection: Connection, context: MigrationContext) -> MigrationContext:
    """Run one text; the context with how long it took. Raises: MigrationFailed, MigrationsBusy."""
    namespace, version = context.namespace, context.version
    if "\0" in context.sql:  # libpq would run what stands before it
        raise MigrationFailed(namespace, version, "its text holds a NUL byte")
    begun_s = perf_counter()
    try:
        async with connection.transaction():  # a savepoint: its end shows that we are still in our own transaction
            await connection.execute(context.sql.encode())
    except (psycopg.errors.InvalidSavepointSpecification, psycopg.errors.NoActiveSqlTransaction) as error:
        reason = "it ends the transaction that it runs in: leave BEGIN, COMMIT and ROLLBACK out"
        raise MigrationFailed(namespace, version, reason) from error
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationsBusy(namespace, version, primary(error)) from error
    except psycopg.Error as error:
        raise MigrationFailed(namespace, version, _in_words(error, context.sql)) from error
    return replace(context, duration_s=perf_counter() - begun_s)


def _in_words(error: psycopg.Error, text: str) -> str:
    position = error.diag.statement_position
    if position is None:
        return primary(error)
    return f"line {text.count(chr(10), 0, int(position) - 1) + 1}: {primary(error)}"
