"""Changes of the tables that extensions follow, from the stream into the event log, each once.

How far the stream was taken is committed with what it brought. After a restart, and whenever the stream was away, what
came meanwhile is read from its history; what that no longer has becomes a gap. Invariant: while `live`, every change of
a followed table up to `last` has been offered, and none behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import psycopg

from magmobo.contracts.bus import Bus, Subscription
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost, Envelope
from magmobo.contracts.planes import Changes, Database, Gap, TableName
from magmobo.extensions.events import bodies, log
from magmobo.extensions.events.intake import Intake, Logger
from magmobo.extensions.events.log import Stand

CONSUMER = "extensions"
_NOTE_EVERY_S, _RETRY_S = 30.0, 5.0
_LEAVE_ROOM = 1000


class TableIntake:
    """Follows tables. `run` brings it to life and keeps it so, until it is cancelled."""

    def __init__(
        self, changes: Changes, database: Database, bus: Bus, clock: Clock, logger: Logger, intake: Intake
    ) -> None:
        self._changes, self._database, self._bus, self._clock, self._logger = changes, database, bus, clock, logger
        self._intake = intake
        self._followed: frozenset[TableName] = frozenset()
        self._were_published: set[TableName] = set()
        self._asked: frozenset[TableName] | None = None
        self._live = False
        self._epoch = self._last = self._noted = ""
        self._gaps = 0
        self._again = asyncio.Event()
        self._settled = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        intake.on_stand = self._on_durable

    def follow(self, tables: Iterable[TableName]) -> None:
        """Exactly these from now on; `settled` says when they are in the stream, or cannot be."""
        wanted = frozenset(tables)
        if wanted != self._followed:
            self._followed = wanted
            self._settled.clear()
            self._again.set()

    async def settled(self) -> None:
        """Return once the stream has been asked for what is followed now."""
        await self._settled.wait()

    async def run(self) -> None:
        """Publish, catch up, and note from time to time how far the stream is though nothing comes."""
        self._subscriptions = [
            self._bus.on(DatabaseChange, self._on_change),
            self._bus.on(DatabaseChangesLost, self._on_lost),
        ]
        self._asked = None
        if self._followed:
            self._again.set()
        else:
            self._settled.set()
        complaint = ""
        try:
            while True:
                await self._wait()
                try:
                    await self._bring_about()
                    complaint = ""
                except (psycopg.Error, MagError) as error:
                    if str(error) != complaint:
                        complaint = str(error)
                        self._logger.warning("changes of tables wait for the stream", error=complaint.strip()[:300])
                    self._asked = None
                    self._settled.set()  # nobody waits for a stream that this server may never give
                    await self._clock.sleep(_RETRY_S)
                    self._again.set()
        finally:
            while self._subscriptions:
                self._subscriptions.pop().cancel()
            self._live = False

    # ------------------------------------------------------------ what the bus brings

    def _on_change(self, envelope: Envelope[DatabaseChange]) -> None:
        change = envelope.data
        if not self._live or change.position <= self._last:
            return
        if TableName(change.schema, change.table) not in self._followed:
            return
        if self._intake.room <= 0:
            self._live = False  # it is read again, from history, when there is room
            self._again.set()
            return
        self._last = change.position
        self._intake.offer_change(change, self._epoch)

    def _on_lost(self, _: Envelope[DatabaseChangesLost]) -> None:
        self._live = False
        self._again.set()

    def _on_durable(self, stand: Stand) -> None:
        self._noted = stand.position
        if self._followed and stand.epoch == self._epoch:
            self._changes.hold(CONSUMER, stand.position)

    # ------------------------------------------------------------ inside

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_NOTE_EVERY_S):
                await self._again.wait()
        except TimeoutError:
            pass
        self._again.clear()

    async def _bring_about(self) -> None:
        wanted = self._followed
        if self._asked != wanted:
            await self._changes.publish(sorted(wanted), consumer=CONSUMER)
            self._asked = wanted
            if not wanted:
                self._changes.hold(CONSUMER, None)
        if wanted and not self._live:
            await self._catch_up()
        elif wanted:
            self._note()
        if self._followed == wanted:
            self._settled.set()

    async def _catch_up(self) -> None:
        """From where the log is to where the stream is."""
        while not self._live:
            await self._intake.flush()
            stand = await self._read_stand()
            if stand.position:
                self._changes.hold(CONSUMER, stand.position)  # before the node is ready and lets go of the rest
            await self._changes.caught_up()
            self._take_missed(await self._read_stand())

    async def _read_stand(self) -> Stand:
        async with self._database.session() as connection:
            return await log.read_stand(connection)

    def _take_missed(self, stand: Stand) -> None:
        """Offer what came behind `stand`, as much as there is room for. Nothing can be emitted meanwhile."""
        epoch, head = self._changes.epoch, self._changes.position
        if not stand.epoch:
            stand = Stand(epoch, head)  # the first table ever
        missed: list[DatabaseChange] = []
        gone: dict[str, list[str]] = {}
        for table in sorted(self._followed):
            if self._changes.published(table) is None:
                if table in self._were_published:
                    gone.setdefault("lost", []).append(str(table))
                    self._were_published.discard(table)
                continue
            self._were_published.add(table)
            answer = self._changes.replay(table, stand.epoch, stand.position)
            if isinstance(answer, Gap):
                gone.setdefault(answer.reason, []).append(str(table))
            else:
                missed += answer.changes
        self._epoch = epoch
        for reason, tables in gone.items():
            self._offer_gap(reason, tables, stand)
        missed.sort(key=_position)
        room = max(1, self._intake.room - _LEAVE_ROOM)
        for change in missed[:room]:
            self._intake.offer_change(change, epoch)
        if len(missed) <= room:
            self._last, self._live = head, True
            self._intake.offer_stand(Stand(epoch, head))

    def _offer_gap(self, reason: str, tables: list[str], stand: Stand) -> None:
        self._gaps += 1
        now_s = self._clock.time_s()
        facts = bodies.gap_facts(reason, 0.0, now_s, tables=tables, epoch=stand.epoch, position=stand.position)
        gap_id = f"{self._intake.source}/changes/{self._gaps}"
        self._intake.offer_gap(bodies.of_gap(gap_id, bodies.GAP_OF_CHANGES, facts, now_s))
        self._logger.warning("changes of tables were missed", reason=reason, tables=tables[:20])

    def _note(self) -> None:
        """The stream went on without a change for us: say so durably, so that its history need not reach back."""
        try:
            position = self._changes.position
        except Unavailable:
            return
        if position > max(self._noted, self._last):
            self._last = position
            self._intake.offer_stand(Stand(self._epoch, position))


def _position(change: Any) -> str:
    text: str = change.position
    return text
