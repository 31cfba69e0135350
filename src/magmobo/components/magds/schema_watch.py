"""Emits DatabaseSchemaChanged soon after any DDL by anybody, so that caches and published tables stay true.

Two ways, chosen by what the role may do: an event trigger that sends NOTIFY (superusers), else a fingerprint of the
catalogue twice a second. Event triggers never see roles and memberships, which belong to the cluster, so their small
fingerprint is polled in both cases. Where transactions may be prepared the trigger sends nothing, because a transaction
that sent NOTIFY cannot be. A trigger that somebody dropped is put back, one that somebody disabled is respected, and a
session may switch all of them off, so the catalogue is looked at now and then in any case. Bursts become one event.
After a lost connection one event says `reconnect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from magmobo.components.magds.changes.errors import ChangesUnavailable
from magmobo.components.magds.changes.objects import (
    NOTIFY_CHANNEL,
    Connection,
    install,
    install_event_trigger,
    open_connection,
)
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import DatabaseSchemaChanged

_POLL_S = 0.5
_DEBOUNCE_S = 0.05
_POLLS_TO_CATALOGUE = 20  # with an event trigger that speaks
_RETRY_S, _RETRY_LIMIT_S = 0.25, 5.0

# A row version's xmin changes with every change of the row; VACUUM and ANALYZE do not touch it.
_ROLES = """
select (select coalesce(sum(hashtextextended(oid::text || rolname || rolsuper || rolcanlogin || rolbypassrls, 0)), 0)
        from pg_roles)::text
       || (select coalesce(sum(hashtextextended(roleid::text || member || xmin, 0)), 0) from pg_auth_members)::text
       || (select coalesce(sum(hashtextextended(oid::text || xmin, 0)), 0) from pg_database
           where datname = current_database())::text,
       (select evtenabled in ('O', 'A') and current_setting('max_prepared_transactions') = '0'
        from pg_event_trigger where evtname = 'mag_ddl')
"""
_CATALOGUE = """
with ours as (select oid from pg_namespace
              where nspname !~ '^pg_' and nspname not in ('information_schema', 'mag')),
     tables as (select oid, xmin from pg_class where relnamespace in (select oid from ours)),
     marks(mark) as (
       select 'n' || oid || ' ' || xmin from pg_namespace where oid in (select oid from ours)
       union all select 'c' || oid || ' ' || xmin from tables
       union all select 'a' || attrelid || ' ' || attnum || ' ' || xmin from pg_attribute
                 where attrelid in (select oid from tables)
       union all select 'k' || oid || ' ' || xmin from pg_constraint where connamespace in (select oid from ours)
       union all select 'i' || indexrelid || ' ' || xmin from pg_index where indrelid in (select oid from tables)
       union all select 'f' || oid || ' ' || xmin from pg_proc where pronamespace in (select oid from ours)
       union all select 't' || oid || ' ' || xmin from pg_type where typnamespace in (select oid from ours)
       union all select 'e' || oid || ' ' || xmin from pg_enum
       union all select 'p' || oid || ' ' || xmin from pg_policy where polrelid in (select oid from tables)
       union all select 'd' || objoid || ' ' || objsubid || ' ' || xmin from pg_description
                 where objoid in (select oid from tables)
       union all select 'r' || r.oid || ' ' || r.xmin from pg_publication_rel r
                 join pg_publication p on p.oid = r.prpubid where p.pubname in ('mag_changes', 'mag_inserts')
       union all select 'u' || oid || ' ' || xmin from pg_publication where pubname in ('mag_changes', 'mag_inserts'))
select coalesce(sum(hashtextextended(mark, 0)), 0)::text from marks
"""


class SchemaWatch:
    """Watches one database from `start` to `stop`; both may follow each other."""

    def __init__(
        self, *, conninfo: str, bus: Bus, clock: Clock, log: Any, spawn: Callable[..., asyncio.Task[Any]]
    ) -> None:
        self._conninfo, self._bus, self._clock, self._log, self._spawn = conninfo, bus, clock, log, spawn
        self._task: asyncio.Task[Any] | None = None
        self._outdated = False
        self._watching = asyncio.Event()
        self.uses_event_trigger = False
        self._roles = self._catalogue = ""

    async def start(self) -> None:
        """Begin to watch; returns once DDL from now on is seen, or after 10 s when the database does not answer."""
        self._watching.clear()
        self._task = self._spawn(self._run(), "schema_watch")
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._watching.wait()

    def adjust(self, conninfo: str, *, renew: bool = False) -> None:
        """Connect this way from now on; `renew`: leave the present connection soon."""
        self._conninfo, self._outdated = conninfo, self._outdated or renew

    async def stop(self) -> None:
        """Watch no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        reconnected, pause_s = False, _RETRY_S
        while True:
            try:
                self._outdated = False
                connection = await open_connection(self._conninfo)
                try:
                    await self._watch(connection, reconnected=reconnected)
                finally:
                    await connection.close()
            except (psycopg.Error, OSError) as error:
                self._log.warning("schema watch interrupted", error=str(error).strip())
            reached, reconnected = self._watching.is_set(), reconnected or self._watching.is_set()
            pause_s = _RETRY_S if reached else min(_RETRY_LIMIT_S, pause_s * 2)
            self._watching.clear()
            await self._clock.sleep(pause_s)

    async def _watch(self, connection: Connection, *, reconnected: bool) -> None:
        may_trigger = await self._install(connection)
        await connection.execute(f"listen {NOTIFY_CHANNEL}".encode())
        await self._look(connection, polls=0)
        self._watching.set()
        if reconnected:
            self._bus.emit(DatabaseSchemaChanged("reconnect"))
        polls = 0
        while not self._outdated:
            notified = False
            async for _ in connection.notifies(timeout=_POLL_S, stop_after=1):
                notified = True
            if notified:
                async for _ in connection.notifies(timeout=_DEBOUNCE_S):
                    pass  # the rest of the burst
            polls += 1
            before = self._roles, self._catalogue
            has_trigger = await self._look(connection, polls=0 if notified else polls)
            if notified or (self._roles, self._catalogue) != before:
                self._bus.emit(DatabaseSchemaChanged("notify" if notified else "fingerprint"))
            if may_trigger and not has_trigger:
                may_trigger = await self._install(connection)

    async def _install(self, connection: Connection) -> bool:
        try:
            await install(connection)
            return await install_event_trigger(connection)
        except (ChangesUnavailable, psycopg.errors.ReadOnlySqlTransaction):
            return False  # a role without rights here, or a standby: the fingerprint needs neither

    async def _look(self, connection: Connection, *, polls: int) -> bool:
        """Take the fingerprints that are due. Whether our event trigger is there."""
        self._roles, speaks = await (await connection.execute(_ROLES)).fetchone() or ("", None)
        self.uses_event_trigger = bool(speaks)
        if not speaks or polls % _POLLS_TO_CATALOGUE == 0:
            self._catalogue = str(await (await connection.execute(_CATALOGUE)).fetchone())
        return speaks is not None
