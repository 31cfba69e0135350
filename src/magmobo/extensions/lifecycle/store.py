"""The registry's rows: read as a whole, written one change at a time, and the lock that makes changes one at a time.

Every writing method works on the caller's connection, inside the caller's transaction, and raises the generation, by
which other nodes see that something changed. Boundary: SQL and rows; what a change means is not known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.planes import Database
from magmobo.extensions.lifecycle.errors import ExtensionUnknown, LifecycleBusy, RegistryDamaged, StoppedMeanwhile
from magmobo.extensions.lifecycle.reading import read_registry
from magmobo.extensions.lifecycle.records import NOTHING, Decision, Decisions, Entry, Gone, Registry, Version
from magmobo.extensions.lifecycle.states import MAY_RUN, State, check

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    Connection = AsyncConnection[tuple[Any, ...]]

LOCK = 0x6D61_6765_7874  # "magext": one change of extensions at a time, all nodes of the database together
LOCK_WAIT_S = 10.0
UIDS = range(56_000, 60_000)
"""Of those that Debian keeps free; below 65,536, because a container may have no others."""
GONE_KEPT = 10_000
"""Removals that are remembered for nodes that are down."""
SCHEMA_CHANNEL = "mag_ddl"
"""The channel on which storage tells nodes of changed schemas: others hear of the first extension by it."""


class Store:
    """The registry in one database."""

    def __init__(self, database: Database, hide: Callable[[str], str] = str) -> None:
        self._database, self._hide = database, hide

    # ------------------------------------------------------------ connections

    @asynccontextmanager
    async def session(self, *, standing: bool = False) -> AsyncIterator[Connection]:
        """A connection in autocommit; a `standing` one lets its holder use others meanwhile.

        Raises: Unavailable, also when the database goes away inside the block.
        """
        import psycopg

        lease = self._database.standing_session if standing else self._database.session
        try:
            async with lease() as connection:
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable("the database") from error

    @asynccontextmanager
    async def locked(self, *, wait_s: float = LOCK_WAIT_S) -> AsyncIterator[Connection]:
        """The same, while nobody else changes extensions. The lock ends with the connection, so with the node too.

        Raises: LifecycleBusy when somebody else is still at it after `wait_s`; Unavailable.
        """
        import psycopg

        async with self.session(standing=True) as connection:
            await connection.execute(
                "select set_config('lock_timeout', %s, false)", (f"{max(1, int(wait_s * 1000))}ms",)
            )
            try:
                await connection.execute("select pg_catalog.pg_advisory_lock(%s)", (LOCK,))
            except psycopg.errors.LockNotAvailable:
                raise LifecycleBusy from None
            await connection.execute("select set_config('lock_timeout', '0', false)")
            try:
                yield connection
            finally:
                await _unlock(connection)

    async def exists(self) -> bool:
        """Whether there is a registry."""
        async with self.session() as connection:
            return await _exists(connection)

    async def load(self, connection: Connection | None = None) -> Registry:
        """All of it; `NOTHING` where there is none. Raises: RegistryDamaged, Unavailable."""
        if connection is None:
            async with self.session() as own:
                return await self.load(own)
        if not await _exists(connection):
            return NOTHING
        async with connection.transaction():
            await connection.execute("set transaction isolation level repeatable read, read only")
            return await read_registry(connection)

    async def generation(self) -> int:
        """Of the registry; that of `NOTHING` where there is none."""
        import psycopg

        async with self.session() as connection:
            try:
                row = await _row(connection, "select generation from mag.extension_plane")
            except psycopg.errors.UndefinedTable:
                return NOTHING.generation
            return int(row[0]) if row else NOTHING.generation

    async def package(self, sha256: str) -> bytes:
        """The package of a version. Raises: RegistryDamaged when it is not there."""
        async with self.session() as connection:
            row = await _row(connection, "select package from mag.extension_version where sha256 = %s", (sha256,))
        if row is None:
            raise RegistryDamaged(sha256[:12], "its package is not there")
        return bytes(row[0])

    async def gone(self, *, behind: int) -> Sequence[tuple[int, Gone]]:
        """Extensions that were uninstalled with their data, each under its number, behind this one, in that order."""
        import psycopg

        query = "select number, extension_id, folder from mag.extension_gone where number > %s order by number"
        async with self.session() as connection:
            try:
                found = await (await connection.execute(query, (behind,))).fetchall()
            except psycopg.errors.UndefinedTable:
                return []  # a registry that no node of this version has served yet
        return [(number, Gone(extension_id, folder)) for number, extension_id, folder in found]

    # ------------------------------------------------------------ the plane

    async def touch(self, connection: Connection) -> None:
        """Raise the generation."""
        await connection.execute("update mag.extension_plane set generation = generation + 1")

    async def announce(self, connection: Connection) -> None:
        """Let nodes that have seen no registry yet look again."""
        await connection.execute("select pg_catalog.pg_notify(%s, '')", (SCHEMA_CHANNEL,))

    async def stop_all(self, connection: Connection, stopped: bool) -> None:
        """The kill switch for all."""
        await connection.execute("update mag.extension_plane set generation = generation + 1, stopped = %s", (stopped,))

    async def trust(self, connection: Connection, key_id: str, public: bytes, label: str) -> None:
        """Add a key, or give it another label."""
        await connection.execute(
            "insert into mag.extension_key (key_id, public, label) values (%s, %s, %s) "
            "on conflict (key_id) do update set label = excluded.label",
            (key_id, public, label),
        )
        await self.touch(connection)

    async def distrust(self, connection: Connection, key_id: str) -> None:
        """Remove a key."""
        await connection.execute("delete from mag.extension_key where key_id = %s", (key_id,))
        await self.touch(connection)

    # ------------------------------------------------------------ extensions

    async def add(self, connection: Connection, extension_id: str, version: Version, guest: str) -> None:
        """A new extension in state `installed`. The package follows with `add_version`."""
        await connection.execute(
            "insert into mag.extension (id, state, sha256, guest) values (%s, %s, %s, %s)",
            (extension_id, State.INSTALLED, version.sha256, guest),
        )
        await connection.execute("delete from mag.extension_kept where extension_id = %s", (extension_id,))
        await self._give_uid(connection, extension_id)
        await self.touch(connection)

    async def add_version(self, connection: Connection, extension_id: str, version: Version, package: bytes) -> None:
        """A version with its package and what was decided about it; one that is there is replaced."""
        await connection.execute("delete from mag.extension_version where sha256 = %s", (version.sha256,))
        await connection.execute(
            "insert into mag.extension_version (sha256, extension_id, version, signer, manifest, package) "
            "values (%s, %s, %s, %s, %s::jsonb, %s)",
            (
                version.sha256, extension_id, version.version, version.signer,
                msgspec.json.encode(version.manifest).decode(), package,
            ),
        )  # fmt: skip
        await self.decide(connection, version.sha256, version.decisions)

    async def drop_versions(self, connection: Connection, entry: Entry, keep: Sequence[str]) -> None:
        """Forget versions of an extension that are not among `keep`."""
        await connection.execute(
            "delete from mag.extension_version where extension_id = %s and not sha256 = any(%s)", (entry.id, list(keep))
        )

    async def move(self, connection: Connection, entry: Entry, state: State, **columns: Any) -> None:
        """Bring an extension to another state, with other columns. Raises: ExtensionBusyWith; LifecycleBusy when its
        row is not in the state that `entry` says.
        """
        check(entry.id, entry.state, state)
        query = _update("state = %s, since = now()", columns, "id = %s and state = %s")
        cursor = await connection.execute(query, (state, *self._sound(columns), entry.id, entry.state))
        if cursor.rowcount != 1:
            raise LifecycleBusy
        await self.touch(connection)

    async def commit_running(self, connection: Connection, entry: Entry, state: State, **columns: Any) -> None:
        """As `move` to a state in which it may run. Raises: StoppedMeanwhile when it was halted on the way."""
        await self.move(connection, entry, state, **columns)
        row = await _row(connection, "select halt_reason from mag.extension where id = %s", (entry.id,))
        if row is None or row[0]:
            raise StoppedMeanwhile(entry.id, row[0] if row else "it is gone")

    async def halt(self, connection: Connection, extension_id: str, reason: str, *, guarded: bool) -> None:
        """It must not run from now on, if it does or is about to. Takes no lock; one that is gone is fine."""
        await connection.execute(
            "update mag.extension set guarded = %s, "
            "halt_reason = case when state = any(%s) then %s else halt_reason end where id = %s",
            (guarded, list(MAY_RUN), self._words(reason), extension_id),
        )
        await self.touch(connection)

    async def amend(self, connection: Connection, extension_id: str, **columns: Any) -> None:
        """Other columns of an extension, whatever its state. Raises: ExtensionUnknown."""
        query = _update("id = id", columns, "id = %s")
        cursor = await connection.execute(query, (*self._sound(columns), extension_id))
        if cursor.rowcount != 1:
            raise ExtensionUnknown(extension_id)
        await self.touch(connection)

    async def watch(self, connection: Connection, extension_id: str, until_s: float | None) -> None:
        """Until when a version that is not well goes back by itself."""
        await connection.execute(
            "update mag.extension set watch_until = to_timestamp(%s) where id = %s", (until_s, extension_id)
        )

    async def remove(self, connection: Connection, entry: Entry, *, keep_data: bool) -> None:
        """Forget an extension, its versions and what it spent; with its data also its uid and settings, and each node
        is to remove its files.
        """
        check(entry.id, entry.state, State.NOT_INSTALLED)
        await connection.execute("delete from mag.extension where id = %s", (entry.id,))
        await connection.execute("delete from mag.extension_spent where extension_id = %s", (entry.id,))
        if keep_data:
            await connection.execute(
                "insert into mag.extension_kept (extension_id, signer) values (%s, %s)",
                (entry.id, entry.current.signer),
            )
        else:
            await self._forget_data(connection, entry.id)
        await self.touch(connection)

    async def remove_damaged(self, connection: Connection, extension_id: str) -> None:
        """The same for one that cannot be read; its data is kept, and is of no signer."""
        await connection.execute("delete from mag.extension where id = %s", (extension_id,))
        await connection.execute("delete from mag.extension_spent where extension_id = %s", (extension_id,))
        await connection.execute(
            "insert into mag.extension_kept (extension_id, signer) values (%s, '') on conflict do nothing",
            (extension_id,),
        )
        await self.touch(connection)

    async def remove_kept(self, connection: Connection, extension_id: str) -> None:
        """The same for data that an extension left behind when it was removed."""
        await connection.execute("delete from mag.extension_kept where extension_id = %s", (extension_id,))
        await self._forget_data(connection, extension_id)
        await self.touch(connection)

    async def _forget_data(self, connection: Connection, extension_id: str) -> None:
        await connection.execute(_NOTE_GONE, (extension_id,))
        await connection.execute(_FORGET_GONE, (GONE_KEPT,))
        await connection.execute("delete from mag.extension_uid where extension_id = %s", (extension_id,))
        await connection.execute("delete from mag.extension_setting where extension_id = %s", (extension_id,))

    # ------------------------------------------------------------ grants and settings

    async def decide(self, connection: Connection, sha256: str, decisions: Decisions) -> None:
        """Exactly these decisions about one version."""
        await connection.execute("delete from mag.extension_grant where sha256 = %s", (sha256,))
        for one in decisions.values():
            await connection.execute(_INSERT_GRANT, (sha256, *_grant_columns(one)))
        await self.touch(connection)

    async def configure(
        self, connection: Connection, extension_id: str, settings: dict[str, Any], secrets: Sequence[str]
    ) -> None:
        """Settings that are no secrets, and the names of those that are."""
        await connection.execute(
            "insert into mag.extension_setting values (%s, %s::jsonb, %s) on conflict (extension_id) do update "
            "set settings = excluded.settings, secrets = excluded.secrets",
            (extension_id, msgspec.json.encode(settings).decode(), list(secrets)),
        )
        await self.touch(connection)

    def _sound(self, columns: Mapping[str, Any]) -> list[Any]:
        return [self._words(value) if name in _WORDS else value for name, value in columns.items()]

    def _words(self, text: str) -> str:
        """What may hold words of an extension, as it is kept and every node shows it: one line, without what Postgres
        takes into no text, and without secrets that this node knows, while others may not.
        """
        return self._hide("".join(char if char.isprintable() else " " for char in text))

    async def _give_uid(self, connection: Connection, extension_id: str) -> None:
        """The lowest free uid; one that kept data has stays."""
        cursor = await connection.execute(_GIVE_UID, (extension_id, UIDS.start, UIDS.stop - 1, extension_id))
        if cursor.rowcount == 1:
            return
        if await _row(connection, "select from mag.extension_uid where extension_id = %s", (extension_id,)) is None:
            raise RegistryDamaged(extension_id, f"all {len(UIDS)} user ids for extensions are given")


_WORDS = ("detail", "halt_reason")
_INSERT_GRANT = """
insert into mag.extension_grant
  (sha256, capability, state, scope, rate_per_minute, budget_per_day, expires_at, hours, decided_by)
values (%s, %s, %s, %s::jsonb, %s, %s, to_timestamp(%s), %s, %s)
"""
_NOTE_GONE = """
insert into mag.extension_gone (extension_id, folder)
select extension_id, folder from mag.extension_uid where extension_id = %s
"""
_FORGET_GONE = "delete from mag.extension_gone where number <= (select max(number) from mag.extension_gone) - %s"
_GIVE_UID = """
insert into mag.extension_uid (extension_id, uid)
select %s, min(free) from generate_series(%s, %s) free
where not exists (select from mag.extension_uid where uid = free)
  and not exists (select from mag.extension_uid where extension_id = %s)
having min(free) is not null
"""


def _update(fixed: str, columns: Mapping[str, Any], where: str) -> bytes:
    """Names of columns are ours, never anybody's text."""
    assignments = ", ".join([fixed, *(f"{name} = %s" for name in columns)])
    return f"update mag.extension set {assignments} where {where}".encode()  # noqa: S608


def _grant_columns(one: Decision) -> tuple[Any, ...]:
    scope = msgspec.json.encode(one.scope).decode()
    return (
        one.capability,
        one.state,
        scope,
        one.rate_per_minute,
        one.budget_per_day,
        one.expires_at_s,
        one.hours,
        one.by,
    )


async def _exists(connection: Connection) -> bool:
    row = await _row(connection, "select pg_catalog.to_regclass('mag.extension_plane') is not null")
    return bool(row and row[0])


async def _unlock(connection: Connection) -> None:
    """Where this fails the connection is lost or stuck, and is not used again: the lock ends with it."""
    import contextlib

    import psycopg

    with contextlib.suppress(psycopg.Error, MagError):
        await connection.execute("select pg_catalog.pg_advisory_unlock(%s)", (LOCK,))


async def _row(connection: Connection, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    cursor = await connection.execute(query.encode(), parameters)
    return await cursor.fetchone()
