"""The `Guests` that others use: roles, schemas, rights and sessions of code that is not ours.

Invariant: what is made, given and taken away happens in the caller's transaction, so a crash leaves all or nothing.
Changes of guests follow one after the other, over all nodes of the database.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg

from magmobo.components.magds.guests import register, rights, roles, schemas
from magmobo.components.magds.guests.errors import GuestsRefused, GuestUnknown
from magmobo.components.magds.guests.names import Names
from magmobo.components.magds.guests.register import Entry
from magmobo.components.magds.guests.sessions import GuestSessions
from magmobo.components.magds.own_schema import has_table, our_names, primary
from magmobo.components.magds.pool import Connection
from magmobo.contracts.guests import TableRight

LOCK = 0x6D61675F6765  # "mag_ge"
_PASSWORD_BYTES = 32


class GuestService:
    """Implements `contracts.guests.Guests`."""

    def __init__(
        self,
        conninfo: str,
        session: Callable[[], AbstractAsyncContextManager[Connection]],
        *,
        database_oid: int,
        acquire_timeout_s: float,
    ) -> None:
        self._session, self._names = session, Names(database_oid)
        self._sessions = GuestSessions(conninfo, session)
        self._acquire_timeout_s = acquire_timeout_s

    def role_of(self, guest: str) -> str:
        return self._names.role(guest)

    def schema_of(self, guest: str) -> str:
        return self._names.schema(guest)

    async def check(self) -> None:
        async with self._session() as connection, connection.transaction(), our_names(connection):
            await roles.check_right(connection)
            await has_table(connection, register.TABLE)

    async def ensure(self, connection: psycopg.AsyncConnection[Any], guest: str, *, schema: bool) -> None:
        role, own = self._names.role(guest), self._names.schema(guest)
        async with self._changing(connection):
            entry = await register.read(connection, guest)
            is_there, is_noted = await roles.is_guest(connection, role), entry is not None and entry.has_schema
            is_whole = is_there and entry is not None and bool(entry.password)
            if is_whole and (is_noted or not schema):
                return
            await roles.check_right(connection)
            password = entry.password if is_whole and entry is not None else secrets.token_urlsafe(_PASSWORD_BYTES)
            if not is_whole:
                await roles.make(connection, role, own, password, is_there=is_there)
            if schema or is_noted:
                await schemas.make(connection, own, role, noted=is_noted)
            if is_noted and not is_whole:
                async with roles.as_member(connection, role):
                    await schemas.hand_over(connection, own, role)
            await register.write(connection, guest, Entry(role, password, schema or is_noted))

    async def grant(
        self, connection: psycopg.AsyncConnection[Any], guest: str, rights_wanted: Sequence[TableRight]
    ) -> None:
        role = self._names.role(guest)
        async with self._changing(connection):
            if not await roles.is_guest(connection, role):
                raise GuestUnknown(guest)
            await rights.bring(connection, role, self._names.schema(guest), rights_wanted)

    async def drop(self, connection: psycopg.AsyncConnection[Any], guest: str, *, keep_schema: bool) -> None:
        role, own = self._names.role(guest), self._names.schema(guest)
        async with self._changing(connection):
            entry = await register.read(connection, guest)
            stays = keep_schema and entry is not None and entry.has_schema
            if await roles.exists(connection, role):
                async with roles.as_member(connection, role):
                    if stays:
                        await schemas.keep(connection, role)
                    elif entry is not None and entry.has_schema:
                        await schemas.drop(connection, own)
                    await roles.drop(connection, role)
            elif entry is not None and entry.has_schema and not stays:
                await schemas.drop(connection, own)
            if stays:
                await register.write(connection, guest, Entry(role, "", has_schema=True))
            else:
                await register.remove(connection, guest)

    def session(self, guest: str, *, timeout_s: float | None = None) -> AbstractAsyncContextManager[Connection]:
        self._names.role(guest)
        return self._sessions.lease(guest, timeout_s=timeout_s or self._acquire_timeout_s)

    async def forget(self, guest: str) -> None:
        await self._sessions.forget(guest)

    # ------------------------------------------------------------ the component's side

    def adjust(self, conninfo: str, *, acquire_timeout_s: float, renew: bool) -> None:
        """Connect this way from now on; `renew`: over new connections."""
        self._acquire_timeout_s = acquire_timeout_s
        self._sessions.adjust(conninfo, renew=renew)

    async def close(self) -> None:
        """End every connection of a guest."""
        await self._sessions.close()

    @asynccontextmanager
    async def _changing(self, connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
        try:
            async with our_names(connection):
                await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
                yield
        except psycopg.errors.InsufficientPrivilege as error:  # what another login of the node made, for example
            raise GuestsRefused(
                primary(error),
                f"Let magds.dsn name the role that made it, or a superuser (now: {connection.info.user}).",
            ) from error
