"""Connections logged in as a guest: few for each, made when they are asked for, closed when unused.

The pool gives back a connection only when it is provably clean. A statement whose task is cancelled is cancelled on the
server too (psycopg asks for it and waits a bounded time, else the connection is closed).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from msgspec import Struct
from psycopg.conninfo import make_conninfo

from magmobo.components.magds.dsn import connect
from magmobo.components.magds.errors import LoginRefused
from magmobo.components.magds.guests import register
from magmobo.components.magds.guests.errors import GuestsRefused, GuestUnknown
from magmobo.components.magds.own_schema import our_names
from magmobo.components.magds.pool import Connection, Pool

POOL_SIZE = 3
IDLE_S = 30.0


class _Door(Struct):
    """The pool of one guest, and what its connections log in with (empty: not read yet)."""

    pool: Pool
    role: str = ""
    password: str = ""


class GuestSessions:
    """`session` opens connections of the node's own role, where the register is read."""

    def __init__(self, conninfo: str, session: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._conninfo, self._session = conninfo, session
        self._doors: dict[str, _Door] = {}

    @asynccontextmanager
    async def lease(self, guest: str, *, timeout_s: float) -> AsyncIterator[Connection]:
        """One connection as the guest. Raises: Unavailable, GuestUnknown, GuestsRefused when its login is refused."""
        door = self._doors.get(guest)
        if door is None:
            door = self._doors[guest] = _Door(Pool(partial(self._connect, guest), size=POOL_SIZE, idle_s=IDLE_S))
        try:
            async with door.pool.lease(timeout_s=timeout_s) as connection:
                yield connection
        except GuestUnknown:
            self._doors.pop(guest, None)
            raise

    async def forget(self, guest: str) -> None:
        """End its connections, and what runs on them."""
        door = self._doors.pop(guest, None)
        if door is not None:
            await door.pool.close(cancel=True)

    async def close(self) -> None:
        """End all of them."""
        for guest in list(self._doors):
            await self.forget(guest)

    def adjust(self, conninfo: str, *, renew: bool) -> None:
        """Connect this way from now on; `renew`: no connection that is there is used again."""
        self._conninfo = conninfo
        for guest, door in self._doors.items():
            door.pool.adjust(partial(self._connect, guest), size=POOL_SIZE, idle_s=IDLE_S, renew=renew)

    async def _connect(self, guest: str) -> Connection:
        door = self._doors.get(guest)
        if door is None:
            raise GuestUnknown(guest)
        is_fresh = not door.password
        if is_fresh:
            await self._read(guest, door)
        try:
            return await self._log_in(door)
        except LoginRefused:
            if not is_fresh:  # another node may have given it another password, or dropped it
                await self._read(guest, door)
            return await self._log_in_again(door)

    async def _log_in(self, door: _Door) -> Connection:
        return await connect(make_conninfo(self._conninfo, user=door.role, password=door.password))

    async def _log_in_again(self, door: _Door) -> Connection:
        try:
            return await self._log_in(door)
        except LoginRefused as error:
            raise GuestsRefused(
                f"the server lets {door.role} not in ({error.reason})",
                "Let pg_hba.conf admit roles of the node's own making with a password (scram-sha-256).",
            ) from error

    async def _read(self, guest: str, door: _Door) -> None:
        async with self._session() as connection, connection.transaction(), our_names(connection):
            entry = await register.read(connection, guest)
        if entry is None or not entry.password:
            raise GuestUnknown(guest)
        door.role, door.password = entry.role, entry.password
