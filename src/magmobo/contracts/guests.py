"""Storage for code that is not ours: a login role, a schema and connections of its own, and the migration runner.

A guest is a Postgres login role, never a role that is set on a connection of ours: what runs on its connections can
become nobody else. Boundary: declarations only; `components.magds` implements. Source: ARCHITECTURE section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from magmobo.contracts.planes import TableName

if TYPE_CHECKING:
    from psycopg import AsyncConnection


OWN_SCHEMA, SCHEMA_PREFIX = "mag", "ext_"
"""The schema where the node keeps its own tables, and what the name of a guest's begins with."""


def is_private_schema(name: str) -> bool:
    """Whether a schema of this name is the node's own, or a guest's: nothing in it is shown to anybody else."""
    return name == OWN_SCHEMA or name.startswith(SCHEMA_PREFIX)


class TableRight(Struct, frozen=True):
    """What a guest may do with one table: `rights` of `select, insert, update, delete`; `columns` empty: all."""

    table: TableName
    rights: tuple[str, ...]
    columns: tuple[str, ...] = ()


class Migration(Struct, frozen=True):
    """One step of a schema, in both directions. `version` sorts as text (`20261123T0900` or `0001`); `down` empty: it
    cannot be undone. `checksum`: sha256 in hex of what its author wrote, where `up` is not that to the letter.
    """

    version: str
    name: str
    up: str
    down: str = ""
    checksum: str = ""


class AppliedMigration(Struct, frozen=True):
    """A migration as the database remembers it; `checksum` is the sha256 of its text in hex."""

    version: str
    name: str
    checksum: str
    down: str


class Guests(Protocol):
    """Login roles with a schema each. Names are `[a-z][a-z0-9_]{0,40}`; the role is also called after the database, so
    that two databases of one server do not share it.
    """

    async def check(self) -> None:
        """Raises: GuestsRefused when the node's own role may not make roles here, with the exact statement that would
        change it; Unavailable.
        """
        ...

    async def ensure(self, connection: AsyncConnection[Any], guest: str, *, schema: bool) -> None:
        """Make the role, its password and, when asked, its schema; inside the caller's transaction. Doing it again
        changes nothing. `connection` is one of `Database.session`.
        """
        ...

    async def grant(self, connection: AsyncConnection[Any], guest: str, rights: Sequence[TableRight]) -> None:
        """Exactly these rights on tables of others from now on; inside the caller's transaction.

        Raises: GuestRightRefused for a table that is not there, that belongs to the system or to us, or on which the
        node's role may grant nothing.
        """
        ...

    async def drop(self, connection: AsyncConnection[Any], guest: str, *, keep_schema: bool) -> None:
        """Remove the role and its rights, and its schema unless that is to stay (it is ours then); inside the caller's
        transaction. Ends its sessions. Doing it again is fine.
        """
        ...

    def role_of(self, guest: str) -> str:
        """The name of its role."""
        ...

    def schema_of(self, guest: str) -> str:
        """The name of its schema."""
        ...

    def session(
        self, guest: str, *, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection[tuple[Any, ...]]]:
        """A connection logged in as the guest, in autocommit, `search_path` its schema; few per guest, clean when
        given back. Cancelling the task that holds it cancels what the server does.

        Raises: Unavailable; GuestUnknown.
        """
        ...

    async def forget(self, guest: str) -> None:
        """Close its connections; a cancelled statement ends on the server too."""
        ...


class Migrations(Protocol):
    """Runs migrations: each once, in order, in a transaction of its own with its record, one node at a time.

    `guest` empty: as the node's own role, recorded in schema `mag`; else on a connection of the guest, recorded in its
    schema. Before and after each one the hook points `database.before_migration` and `after_migration` are run.
    """

    async def applied(self, namespace: str, *, guest: str = "") -> Sequence[AppliedMigration]:
        """What ran and was not undone, in order. Raises: Unavailable."""
        ...

    async def up(self, namespace: str, migrations: Sequence[Migration], *, guest: str = "") -> Sequence[str]:
        """Bring a namespace to these migrations; the versions that ran. All of them, or none of this call's.

        Raises: MigrationChanged when one that ran has another text now, MigrationFailed, HookDenied, HookUnavailable.
        """
        ...

    async def down(self, namespace: str, to: Sequence[str], *, guest: str = "") -> Sequence[str]:
        """Undo, newest first, what is not in `to`, with the texts that were recorded; all or none.

        Raises: MigrationIrreversible, MigrationFailed.
        """
        ...
