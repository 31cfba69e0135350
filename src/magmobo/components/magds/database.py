"""The `Database` that other components use: requests on the multiplexer, sessions from the pools, roles checked.

Invariant: a request runs only under a role that is neither ours, nor a superuser, nor able to bypass row level
security. The list is read at start, after every schema change, and again for the first request after it has become a
few seconds old, because no server tells of ALTER ROLE. A role that was revoked Postgres itself refuses at once.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any

import psycopg

from magmobo.components.magds.errors import IdentityRefused
from magmobo.components.magds.multiplexer import Multiplexer
from magmobo.components.magds.pool import Connection, Pool
from magmobo.components.magds.query_watch import QueryWatch, around
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import DatabaseQueryExecuted
from magmobo.contracts.planes import Identity, Statement, StatementResult

# From Postgres 16 on, membership alone (ADMIN) does not allow SET ROLE. "none" would mean our own role to set_config.
# A member of our own role owns what we own, and row level security does not hold owners.
GRANTABLE_ROLES = """
select r.rolname::text from pg_catalog.pg_roles r
where pg_catalog.pg_has_role(current_user, r.oid, '{right}')
  and not r.rolsuper and not r.rolbypassrls
  and r.rolname not in (current_user, session_user, 'none') and r.rolname !~ '^(pg_|mag_ext_[0-9])'
  and not pg_catalog.pg_has_role(r.oid, current_user, 'MEMBER')
"""


LOOK_AGAIN_AFTER_S = 1.0
TRUSTED_FOR_S = 5.0
_LOOK_TIMEOUT_S = 1.0


class MagDatabase:
    """Implements `contracts.planes.Database`."""

    def __init__(
        self,
        multiplexer: Multiplexer,
        pool: Pool,
        *,
        database_name: str,
        request_timeout_s: float,
        acquire_timeout_s: float,
        roles_trusted_for_s: float = TRUSTED_FOR_S,
        watch: QueryWatch | None = None,
        standing: Pool | None = None,
    ) -> None:
        self._multiplexer, self._pool, self._watch = multiplexer, pool, watch
        self._standing = standing or pool
        self._trusted_for_s = roles_trusted_for_s
        self._database_name = database_name
        self._request_timeout_s, self._acquire_timeout_s = request_timeout_s, acquire_timeout_s
        self._roles: frozenset[str] = frozenset()
        self._looked_at_s = float("-inf")  # when a request last asked for it; not every reading of the list

    @property
    def database_name(self) -> str:
        return self._database_name

    def adjust(self, *, request_timeout_s: float, acquire_timeout_s: float) -> None:
        """Deadlines of calls from now on."""
        self._request_timeout_s, self._acquire_timeout_s = request_timeout_s, acquire_timeout_s

    def grantable_roles(self) -> frozenset[str]:
        return self._roles

    async def run(
        self, statement: Statement, identity: Identity, *, read_only: bool, timeout_s: float | None = None
    ) -> StatementResult:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        age_s = begun_s - self._looked_at_s
        if age_s > self._trusted_for_s or (age_s > LOOK_AGAIN_AFTER_S and identity.role not in self._roles):
            await self._look_again()  # before a refusal, too: a GRANT may be younger than the last look
        if identity.role not in self._roles:
            raise IdentityRefused(identity.role)
        timeout_s, watch, result = timeout_s or self._request_timeout_s, self._watch, None
        if watch is None:
            return await self._multiplexer.run(statement, identity, read_only=read_only, timeout_s=timeout_s)
        try:
            chain = watch.point.chain
            if chain is None:
                result = await self._multiplexer.run(statement, identity, read_only=read_only, timeout_s=timeout_s)
            else:
                run = partial(self._multiplexer.run, statement, identity, read_only=read_only, timeout_s=timeout_s)
                result = await around(chain, statement, identity, read_only=read_only, proceed=run)
            return result
        finally:
            duration_s = loop.time() - begun_s
            if duration_s > watch.slow_query_s or watch.has_listeners(DatabaseQueryExecuted):
                watch.tell(statement, identity, duration_s, result)

    def session(self, *, timeout_s: float | None = None) -> AbstractAsyncContextManager[Connection]:
        return self._pool.lease(timeout_s=timeout_s or self._acquire_timeout_s)

    def standing_session(self) -> AbstractAsyncContextManager[Connection]:
        return self._standing.lease(timeout_s=self._acquire_timeout_s)

    async def _look_again(self) -> None:
        """One request looks for all that come meanwhile. Where that fails the former list stays: the request itself
        will say what is wrong with the database.
        """
        self._looked_at_s = asyncio.get_running_loop().time()
        with suppress(MagError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(_LOOK_TIMEOUT_S):
                await self.refresh_roles()

    async def refresh_roles(self) -> None:
        """Read again which roles requests may use.

        Raises: Unavailable, ConnectFailure, psycopg.Error; the former list stays in force then.
        """
        async with self.session() as connection:
            self._roles = await read_grantable_roles(connection)


async def read_grantable_roles(connection: psycopg.AsyncConnection[Any]) -> frozenset[str]:
    """Roles that the connection's user may hand to requests."""
    right = "SET" if connection.info.server_version >= 160_000 else "MEMBER"
    cursor = await connection.execute(GRANTABLE_ROLES.format(right=right).encode())
    return frozenset([row[0] for row in await cursor.fetchall()])
