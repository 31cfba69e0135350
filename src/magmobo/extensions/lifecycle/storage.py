"""An extension's place in the database: its role, its schema, its rights, its migrations.

Boundary: what is to be there is decided by manifest and grants; `Guests` and `Migrations` make it so. Migrations run on
connections of the extension, each in a transaction of its own, so no transaction of ours covers them: `settle` brings a
schema to a version's from wherever it was left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from magmobo.contracts.errors import MagError
from magmobo.contracts.guests import Guests, Migration, Migrations, TableRight
from magmobo.extensions.installed import Installed
from magmobo.extensions.lifecycle.ports import Ports
from magmobo.extensions.package.manifest import Manifest
from magmobo.extensions.sql.migrations import guarded

if TYPE_CHECKING:
    from magmobo.extensions.lifecycle.store import Connection

SCHEMA_CAPABILITY = "database.schema"
_WITH_SCHEMA = (SCHEMA_CAPABILITY, "database.admin")


def guest_name(manifest: Manifest) -> str:
    """What its storage is called; empty when it asks for none. No two extensions share one: ids have no `_`."""
    wants = any(request.name.startswith("database.") for request in manifest.capabilities)
    return _name_of(manifest.id) if wants else ""


def kept_name(extension_id: str) -> str:
    """What the storage of one that was removed is called, if it had any."""
    return _name_of(extension_id)


def _name_of(extension_id: str) -> str:
    return extension_id.replace("-", "_")


class Storage:
    """Makes and removes places of extensions."""

    def __init__(self, ports: Ports) -> None:
        self._guests: Guests = ports.guests
        self._migrations: Migrations = ports.migrations
        self._rights_of = ports.rights_of

    async def check(self, guest: str) -> None:
        """Raises: GuestsRefused when the database lets us make no roles."""
        if guest:
            await self._guests.check()

    async def ensure(self, connection: Connection, guest: str, manifest: Manifest) -> None:
        """Role and, when the manifest asks for it, schema; in the caller's transaction."""
        if guest:
            schema = any(request.name in _WITH_SCHEMA for request in manifest.capabilities)
            await self._guests.ensure(connection, guest, schema=schema)

    async def give_rights(self, connection: Connection, guest: str, *versions: Installed) -> None:
        """Exactly what these versions together may do with tables of others; in the caller's transaction.

        Raises: GuestRightRefused.
        """
        if guest:
            await self._guests.grant(connection, guest, self._rights(versions))

    async def take_rights(self, connection: Connection, guest: str, version: Installed) -> None:
        """The same where it takes rights away: a table that is gone, or is not ours to give any more, keeps none of the
        other rights from being taken.
        """
        given: list[TableRight] = []
        for right in self._rights([version]) if guest else ():
            try:
                async with connection.transaction():
                    await self._guests.grant(connection, guest, [*given, right])
            except MagError as error:
                if error.retryable:
                    raise
            else:
                given.append(right)
        if guest and not given:
            await self._guests.grant(connection, guest, ())

    def _rights(self, versions: Sequence[Installed]) -> list[TableRight]:
        return list(dict.fromkeys(right for version in versions for right in self._rights_of(version)))

    async def migrate_up(self, version: Installed, migrations: Sequence[Migration]) -> None:
        """Run what has not run yet, where it may have a schema. Raises: MigrationFailed, MigrationChanged,
        HookDenied, StatementRefused.
        """
        if version.guest and migrations and SCHEMA_CAPABILITY in version.grants:
            ran = {one.version for one in await self._migrations.applied(version.id, guest=version.guest)}
            texts = await guarded(migrations, self._guests.schema_of(version.guest), ran)
            await self._migrations.up(version.id, texts, guest=version.guest)

    async def migrate_back(self, version: Installed, migrations: Sequence[Migration]) -> Sequence[str]:
        """Undo what is not among `migrations`; the versions undone. Raises: MigrationIrreversible, MigrationFailed."""
        if not version.guest or not await self._migrations.applied(version.id, guest=version.guest):
            return ()
        wanted = [migration.version for migration in migrations]
        return await self._migrations.down(version.id, wanted, guest=version.guest)

    async def one_way(self, version: Installed, migrations: Sequence[Migration]) -> Sequence[str]:
        """Migrations that ran, are not among `migrations`, and cannot be undone."""
        if not version.guest:
            return ()
        wanted = {migration.version for migration in migrations}
        applied = await self._migrations.applied(version.id, guest=version.guest)
        return [one.version for one in applied if one.version not in wanted and not one.down.strip()]

    async def settle(self, version: Installed, migrations: Sequence[Migration]) -> None:
        """Bring the schema to what this version has, from wherever it was left. Doing it again changes nothing."""
        await self.migrate_back(version, migrations)
        await self.migrate_up(version, migrations)

    async def drop(self, connection: Connection, guest: str, *, keep_schema: bool) -> None:
        """Remove role and rights, and the schema unless it is to stay; in the caller's transaction."""
        if guest:
            await self._guests.drop(connection, guest, keep_schema=keep_schema)

    async def let_go(self, guest: str) -> None:
        """Close this node's connections of it."""
        if guest:
            await self._guests.forget(guest)
