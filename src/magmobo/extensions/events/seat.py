"""A node's seat at the event log: that it lives, and whether it is the one that delivers.

One connection beside the pool is held for it. Advisory locks on it end with the process, so a node that was killed is
noticed at once: whoever delivers then writes the gap of what that node had not logged yet, and another node delivers.
Everything that must not be done by two nodes is written over this connection: without it, no lease, no write.
Invariant: a source that has no lock and no clean end is buried once, with a gap that begins before its first loss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, LiteralString

import psycopg

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.planes import Database
from magmobo.extensions.events import bodies, log
from magmobo.extensions.events.intake import Intake, Logger
from magmobo.extensions.events.log import LEAD, LOCKS, PRESENCE, Connection, Desk

BEAT_S = 2.0
_RETRY_S = 1.0

Lead = Callable[[Desk], Coroutine[Any, Any, None]]


class Seat:
    """Of this node. `lead` runs while it holds the lease, and is cancelled when that is lost."""

    def __init__(
        self, database: Database, clock: Clock, logger: Logger, intake: Intake, *, origin: str, lead: Lead
    ) -> None:
        self._database, self._clock, self._logger, self._intake = database, clock, logger, intake
        self._origin, self._lead = origin, lead
        self._key = 0
        self.taken = asyncio.Event()
        """Set once the node has its seat: what it logs from then on is missed when it dies."""
        self.leads = False

    async def run(self) -> None:
        """Hold the seat until cancelled; a lost connection is replaced."""
        self.taken.clear()
        while True:
            try:
                async with self._database.standing_session() as connection:
                    await self._sit(connection)
            except* (psycopg.Error, MagError) as errors:
                self._logger.warning("the event log lost its connection", error=str(errors.exceptions[0])[:300])
            finally:
                self.leads = False
            await self._clock.sleep(_RETRY_S)

    async def leave(self) -> None:
        """The node ends in order, and everything is logged: nobody is to be told of a gap.

        Called while the seat is held, because a row without its lock is one of a node that died.
        """
        if key := self._key:
            with suppress(psycopg.Error, MagError):
                async with self._database.session() as connection:
                    await connection.execute("delete from mag.extension_source where key = %s", (key,))
                self._key = 0  # not before: who delivers spares the row of its own key alone

    # ------------------------------------------------------------ inside

    async def _sit(self, connection: Connection) -> None:
        desk = Desk(connection)
        async with desk.transaction():
            await self._be_present(connection)
        self.taken.set()
        async with asyncio.TaskGroup() as group:
            while True:
                async with desk.use():
                    begins = not self.leads and await _try_lock(connection, LOCKS, LEAD)
                    await self._beat(connection)
                if begins:
                    self.leads = True
                    group.create_task(self._lead(desk), name="events.lead")
                if self.leads:
                    await self._bury_others(desk)
                await self._clock.sleep(BEAT_S)

    async def _be_present(self, connection: Connection) -> None:
        """Inside of a transaction, so that nobody sees the row before its lock is held."""
        cursor = await connection.execute("select from mag.extension_source where key = %s for update", (self._key,))
        if await cursor.fetchone() is not None and await _try_lock(connection, PRESENCE, self._key):
            return
        cursor = await connection.execute(
            "insert into mag.extension_source (origin, alive_s) values (%s, %s) returning key",
            (self._origin, self._intake.complete_until_s),
        )
        row = await cursor.fetchone()
        self._key = int(row[0]) if row is not None else 0
        await _try_lock(connection, PRESENCE, self._key)
        self._intake.source = f"{self._origin}.{self._key}"

    async def _beat(self, connection: Connection) -> None:
        await connection.execute(
            "update mag.extension_source set alive_s = %s where key = %s", (self._intake.complete_until_s, self._key)
        )

    async def _bury_others(self, desk: Desk) -> None:
        async with desk.use() as connection:
            cursor = await connection.execute("select key from mag.extension_source where key <> %s", (self._key,))
            keys = [row[0] for row in await cursor.fetchall()]
        for key in keys:
            async with desk.transaction() as connection:
                if await _try_lock(connection, PRESENCE, key, kind="xact_"):
                    await self._bury(connection, key)

    async def _bury(self, connection: Connection, key: int) -> None:
        """A node ended without a word. The gap and the end of its row are one transaction."""
        now_s = self._clock.time_s()
        cursor = await connection.execute(
            "delete from mag.extension_source where key = %s returning origin, alive_s", (key,)
        )
        row = await cursor.fetchone()
        if row is None:
            return
        origin, alive_s = row
        facts = bodies.gap_facts("node_ended", alive_s, now_s)
        await log.insert(connection, [bodies.of_gap(f"{origin}.{key}/end", bodies.GAP_OF_NODE, facts, now_s)])
        self._logger.warning("a node ended without a word", origin=origin, lost_s=round(now_s - alive_s, 3))


async def _try_lock(connection: Connection, first: int, second: int, *, kind: LiteralString = "") -> bool:
    cursor = await connection.execute(f"select pg_try_advisory_{kind}lock(%s, %s)", (first, second))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])
