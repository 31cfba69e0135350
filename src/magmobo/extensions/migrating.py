"""Migrations of extensions pass the guard before they run; those of the node itself do not need to.

Boundary: which texts may run is the guard's, running them is storage's. Invariant: no text that an author wrote reaches
the database, only what the guard printed of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from magmobo.contracts.guests import AppliedMigration, Guests, Migration, Migrations
from magmobo.extensions.sql.migrations import guarded


class GuardedMigrations:
    """Implements `contracts.guests.Migrations`."""

    def __init__(self, migrations: Migrations, guests: Guests) -> None:
        self._migrations, self._guests = migrations, guests

    async def applied(self, namespace: str, *, guest: str = "") -> Sequence[AppliedMigration]:
        return await self._migrations.applied(namespace, guest=guest)

    async def up(self, namespace: str, migrations: Sequence[Migration], *, guest: str = "") -> Sequence[str]:
        """Raises: also StatementRefused for a text that may not run."""
        wanted = await guarded(migrations, self._guests.schema_of(guest)) if guest else migrations
        return await self._migrations.up(namespace, wanted, guest=guest)

    async def down(self, namespace: str, to: Sequence[str], *, guest: str = "") -> Sequence[str]:
        return await self._migrations.down(namespace, to, guest=guest)
