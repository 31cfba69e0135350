"""What extensions spent of their budgets today, in the database: a restart gives nothing anew, and all nodes count
together.

Every `EVERY_S` a node adds what it let through since, and takes in what all nodes did. No call waits for that: the gate
counts in memory. So nodes together exceed a budget by at most what each lets through in two rounds (one until it is
said, one until the others hear it), or while the database is away. A node that is killed forgets what it let through
since its last round. A commit that nobody heard of is said again: then a call counts twice, never not at all.
Boundary: counts; who may call is decided by the gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from magmobo.contracts.clock import Clock
from magmobo.contracts.planes import Database
from magmobo.extensions.gate.gatekeeper import Gatekeeper, Spending
from magmobo.extensions.gate.hours import DAY_S
from magmobo.extensions.installed import Installed

if TYPE_CHECKING:
    import structlog

EVERY_S = 1.0
ROUND_TIMEOUT_S = 5.0
_ADD = """
insert into mag.extension_spent as spent (day, extension_id, capability, calls)
select %s, * from unnest(%s::text[], %s::text[], %s::bigint[]) added (extension_id, capability, calls) order by 2, 3
on conflict (day, extension_id, capability) do update set calls = spent.calls + excluded.calls
"""  # in one order on all nodes, so that none waits for another that waits for it
_READ = "select extension_id, capability, calls from mag.extension_spent where day = %s"
_FORGET = "delete from mag.extension_spent where day < %s"


class Budgets:
    """Of one node. `installed` says what runs here; `spawn` runs a task that ends with the component."""

    def __init__(
        self,
        gatekeeper: Gatekeeper,
        database: Database,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        *,
        installed: Callable[[], Mapping[str, Installed]],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._gatekeeper, self._database, self._clock, self._log = gatekeeper, database, clock, log
        self._installed, self._spawn = installed, spawn
        self._round = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._tidied_day = -1
        self._is_away = False

    async def start(self) -> None:
        """Take in what was spent today, before any extension runs; go on to share. Raises: Unavailable and others of
        the database.
        """
        await self.share(always=True)
        if self._task is None:
            self._task = self._spawn(self._keep_sharing(), "extensions.budgets")

    async def stop(self) -> None:
        """Say what was not said yet, once no extension runs any more."""
        async with self._round:  # a round that is cancelled half way might be said twice
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
        await self._try_to_share()

    async def share(self, *, always: bool = False) -> None:
        """One round; none where nothing has a budget. Raises: Unavailable and others of the database."""
        import psycopg

        async with self._round:
            day = int(self._clock.time_s() // DAY_S)
            unsaid = self._gatekeeper.unsaid(day)
            if not (always or unsaid or self._has_budgets()):
                return
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    totals = await self._exchange(day, unsaid)
            except psycopg.errors.UndefinedTable:
                return  # no extension was ever installed
            if day == int(self._clock.time_s() // DAY_S):
                self._gatekeeper.heard(day, totals)

    async def _exchange(self, day: int, unsaid: Spending) -> Spending:
        async with self._database.session(timeout_s=ROUND_TIMEOUT_S) as connection:
            if unsaid:
                extensions, capabilities = zip(*unsaid, strict=True)
                await connection.execute(_ADD, (day, list(extensions), list(capabilities), list(unsaid.values())))
                self._gatekeeper.said(day, unsaid)
            if self._tidied_day != day:
                await connection.execute(_FORGET, (day - 1,))  # a clock that was set back finds its yesterday
                self._tidied_day = day
            found = await (await connection.execute(_READ, (day,))).fetchall()
        return {(extension_id, capability): calls for extension_id, capability, calls in found}

    def _has_budgets(self) -> bool:
        return any(
            grant.budget_per_day is not None for one in self._installed().values() for grant in one.grants.values()
        )

    async def _keep_sharing(self) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            await self._try_to_share()

    async def _try_to_share(self) -> None:
        try:
            await self.share()
        except Exception as error:  # of a database that is away: it is told all of it later
            if not self._is_away:
                self._log.warning("extensions.budgets_not_shared", error=str(error)[:300])
            self._is_away = True
        else:
            self._is_away = False
