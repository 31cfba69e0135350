"""The change stream as the rest of the node sees it: tables asked for, positions, replay, and why it cannot be had.

Boundary: implements `contracts.planes.Changes`; `reader` moves the data, `publication` decides about tables. It keeps
the asked tables true: after any DDL it looks again, because keys, names and owners change. Each consumer asks for its
own. Until the node is ready nothing that was published before leaves, and nothing more is confirmed to the server: a
consumer that starts later than another one finds its tables and its history as it left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import psycopg

from magmobo.components.magds.changes import publication
from magmobo.components.magds.changes.errors import AnotherReader, ChangesUnavailable
from magmobo.components.magds.changes.objects import install, open_connection, slot_name
from magmobo.components.magds.changes.positions import is_position, lsn_of, position_text
from magmobo.components.magds.changes.reader import Limits, Reader
from magmobo.components.magds.changes.slot import drop_slot, take_reader_lock
from magmobo.components.magds.config import MagDSConfig
from magmobo.contracts.bus import Bus, Subscription
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import DatabaseChangesLost, DatabaseSchemaChanged, SystemReady
from magmobo.contracts.planes import Gap, PublishedTable, RefusedTable, Replay, TableName

_START_PATIENCE_S, _SETTLE_S = 6.0, 15.0
_OUTAGE_PATIENCE_S = 10.0
_POSITION_PATIENCE_S = 2.0
_BUSY_PAUSE_S, _BUSY_PAUSE_LIMIT_S = 1.0, 10.0
_NO_LIMIT_NOTICE = (
    "max_slot_wal_keep_size is -1: if this node is killed and does not return, its slot keeps WAL until the disk is "
    "full. Set a limit: ALTER SYSTEM SET max_slot_wal_keep_size = '4GB'; SELECT pg_reload_conf();"
)
_WAITING_NOTICE = (
    "live changes begin once the transactions that are open now have ended: SELECT pid, query FROM pg_stat_activity "
    "WHERE backend_xid IS NOT NULL ORDER BY xact_start;"
)
_LOST_TEXT = {
    "wal_limit": "the slot held back more WAL than magds.wal_limit_bytes and was dropped; history began anew",
    "log_rewound": "the server's log ends before what was read from it: an older copy was put back; history began anew",
    "slot_lost": "the replication slot was dropped or invalidated on the server; history began anew",
    "slot_advanced": "somebody else moved the replication slot forward; history began anew",
    "publication_dropped": "a publication of ours was dropped; history began anew",
}


class ChangeService:
    """Made and run by the storage component. `start` and `stop` may follow each other; `shutdown` ends it."""

    def __init__(
        self,
        *,
        conninfo: str,
        source: str,
        config: MagDSConfig,
        bus: Bus,
        clock: Clock,
        log: Any,
        spawn: Callable[..., asyncio.Task[Any]],
        retention_managed: bool,
    ) -> None:
        self._conninfo, self._bus, self._clock, self._log, self._spawn = conninfo, bus, clock, log, spawn
        self._keep_slot, self._retention_managed = config.keep_slot, retention_managed
        self._reader = Reader(
            conninfo=conninfo,
            source=source,
            limits=_limits(config),
            bus=bus,
            clock=clock,
            log=log,
            on_state=self._on_state,
        )
        self._asked: dict[str, tuple[TableName, ...]] = {}
        self._kept: tuple[TableName, ...] | None = None
        self._holds: dict[str, int] = {}
        self._everybody_asked = False
        self._published: dict[TableName, PublishedTable] = {}
        self._identity_notices: tuple[str, ...] = ()
        self._publishing = asyncio.Lock()
        self._turn = asyncio.Event()
        self._was_streaming = False
        self._look_again = asyncio.Event()
        self._look_later: asyncio.TimerHandle | None = None
        self._busy_pause_s = _BUSY_PAUSE_S
        self._tasks: list[asyncio.Task[Any]] = []
        self._subscriptions: list[Subscription] = []

    # -------------------------------------------------------------- life

    async def start(self) -> None:
        """Begin to read. Returns once the stream flows or it is known why it cannot; never raises for that."""
        self._subscriptions = [
            self._bus.on(DatabaseSchemaChanged, self._on_schema_changed),
            self._bus.on(SystemReady, self._on_ready),
        ]
        self._tasks = [
            self._spawn(self._reader.run(), "changes.reader"),
            self._spawn(self._keep_true(), "changes.tables"),
        ]
        await self._until(self._is_settled, _START_PATIENCE_S)

    async def stop(self, *, clean: bool) -> None:
        """Read no more. With `clean`, drop the slot where nothing else would limit the log it holds back."""
        while self._subscriptions:
            self._subscriptions.pop().cancel()
        if self._look_later is not None:
            self._look_later.cancel()
        had_slot = bool(self._reader.epoch)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if clean and had_slot and not self._slot_is_kept():
            await self._leave()

    async def shutdown(self) -> None:
        """Release everything; the slot stays."""
        await self.stop(clean=False)

    def adjust(self, conninfo: str, config: MagDSConfig, *, renew: bool = False) -> None:
        """Go on with these settings; `renew`: over new connections, from where the stream is."""
        self._conninfo, self._keep_slot = conninfo, config.keep_slot
        self._reader.adjust(conninfo, _limits(config), renew=renew)

    @property
    def reads(self) -> bool:
        """Whether the server gives changes, as far as is known: it has, and nothing has been refused since."""
        return bool(self._reader.epoch) and self._reader.reason is None

    def notices(self) -> list[str]:
        """What does not work here, why, and the next step, for people."""
        reader, found = self._reader, []
        if reader.reason is not None:
            found.append(f"{reader.reason} [{reader.reason.code}]")
        elif not reader.epoch:
            found.append(_WAITING_NOTICE)
        if reader.lost_reason in _LOST_TEXT:
            found.append(_LOST_TEXT[reader.lost_reason])
        if reader.epoch and reader.server is not None and reader.server.slot_wal_limit_bytes is None:
            found.append(_NO_LIMIT_NOTICE)
        return [*found, *self._identity_notices]

    # -------------------------------------------------------------- contracts.planes.Changes

    @property
    def epoch(self) -> str:
        return self._reader.epoch

    @property
    def position(self) -> str:
        return self._reader.history.head

    def published(self, table: TableName) -> PublishedTable | None:
        return self._published.get(table)

    async def publish(
        self, tables: Sequence[TableName], *, consumer: str = ""
    ) -> Sequence[PublishedTable | RefusedTable]:
        """As the contract says; on a server that gives no changes every table is refused with that reason.

        Raises: Unavailable while the database does not answer.
        """
        self._asked[consumer] = tuple(tables)
        await self._until(self._is_settled, _SETTLE_S)
        if (reason := self._reader.reason) is None:
            try:
                answers = await self._bring_about(also=tables)
                return [answers[table] for table in tables]
            except ChangesUnavailable as error:
                reason = error
            except psycopg.Error as error:
                raise Unavailable("the database") from error
        return [RefusedTable(table, reason.code, str(reason), reason.next_step()) for table in tables]

    def hold(self, consumer: str, position: str | None) -> None:
        if position is None:
            self._holds.pop(consumer, None)
        elif is_position(position):
            self._holds[consumer] = lsn_of(position)
        if self._everybody_asked:
            self._reader.hold(min(self._holds.values(), default=None))

    async def caught_up(self) -> None:
        reader, loop = self._reader, asyncio.get_running_loop()
        patient_until_s = loop.time() + _OUTAGE_PATIENCE_S
        while not (reader.streaming and reader.caught_up):
            if reader.reason is not None:
                raise reader.reason
            if reader.streaming:
                patient_until_s = loop.time() + _OUTAGE_PATIENCE_S
            if loop.time() >= patient_until_s or not self._tasks:
                raise Unavailable("the change stream")
            await self._next_turn(0.5)

    def replay(self, table: TableName, epoch: str, position: str) -> Replay | Gap:
        head = self._reader.history.head
        if epoch != self._reader.epoch:
            return Gap(position[:64], head, "epoch_changed")
        if table not in self._published:
            return Gap(position[:64], head, "lost")
        answer = self._reader.history.after(table, position)
        return Gap(position[:64], head, answer.reason) if isinstance(answer, Gap) else answer

    # -------------------------------------------------------------- inside

    async def _bring_about(self, also: Sequence[TableName] = ()) -> Mapping[TableName, PublishedTable | RefusedTable]:
        """Publish what everybody asks for; `also` is answered for, even when its consumer has asked otherwise since."""
        async with self._publishing:
            asked = dict(self._asked)
            connection = await open_connection(self._conninfo)
            try:
                await install(connection)  # a publication that somebody dropped comes back
                if self._kept is None:
                    self._kept = () if self._everybody_asked else await publication.members(connection)
                tables = tuple(dict.fromkeys([*chain.from_iterable(asked.values()), *also]))
                kept = tuple(table for table in self._kept if table not in tables)
                outcome = await publication.apply(connection, tables, frozenset(self._published), kept=kept)
            finally:
                await connection.close()
            self._come_back(busy=outcome.busy)
            history, position = self._reader.history, position_text(outcome.lsn)
            for table in outcome.left:
                history.forget(table)
            for table in outcome.entered:
                history.raise_floor(table, position)
            if outcome.left or outcome.entered:
                self._reader.tables_changed()
            before = self._published
            self._published = {a.table: a for a in outcome.answers if isinstance(a, PublishedTable)}
            self._identity_notices = outcome.notices
            if asked == self._asked and any(table in tables and table not in self._published for table in before):
                self._bus.emit(DatabaseChangesLost(self.epoch, history.head, history.head, "table_left"))
            # A new subscriber's position is the head; it must not lie before the floors just raised.
            await self._until(lambda: history.head >= position, _POSITION_PATIENCE_S, nudge=True)
            return dict(zip(tables, outcome.answers, strict=True))

    def _come_back(self, *, busy: bool) -> None:
        """Look again for a table that waits for its writers: soon, then less often, as each try makes them wait."""
        if self._look_later is not None:
            self._look_later.cancel()
        if busy:
            self._look_later = asyncio.get_running_loop().call_later(self._busy_pause_s, self._look_again.set)
            self._busy_pause_s = min(_BUSY_PAUSE_LIMIT_S, self._busy_pause_s * 2)
        else:
            self._look_later, self._busy_pause_s = None, _BUSY_PAUSE_S

    async def _keep_true(self) -> None:
        """After DDL by anybody, and when the server begins to give changes, publish again what was asked for."""
        while True:
            await self._look_again.wait()
            self._look_again.clear()
            self._reader.types_changed()
            if not self._asked or not self._reader.epoch:
                continue
            try:
                await self._bring_about()
            except (psycopg.Error, ChangesUnavailable) as error:
                self._log.warning("published tables could not be checked", error=str(error).strip())
                await self._clock.sleep(1.0)
                self._look_again.set()

    def _is_settled(self) -> bool:
        return self._reader.streaming or self._reader.reason is not None

    def _on_schema_changed(self, _: object) -> None:
        self._look_again.set()

    def _on_ready(self, _: object) -> None:
        self._kept, self._everybody_asked = (), True
        self._reader.hold(min(self._holds.values(), default=None))
        self._look_again.set()

    def _on_state(self) -> None:
        streaming = self._reader.streaming
        if streaming and not self._was_streaming:  # the catalogue may have changed while nobody looked
            self._look_again.set()
        self._was_streaming = streaming
        self._turn.set()

    async def _until(self, condition: Callable[[], bool], timeout_s: float, *, nudge: bool = False) -> None:
        """Wait for `condition` at most `timeout_s`; the caller looks at what came of it."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not condition() and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            if nudge:
                self._reader.ask_for_position()
            await self._next_turn(min(left_s, 0.1))

    async def _next_turn(self, timeout_s: float) -> None:
        self._turn.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn.wait()
        except TimeoutError:
            return

    def _slot_is_kept(self) -> bool:
        if self._keep_slot is not None:
            return self._keep_slot
        server = self._reader.server
        return self._retention_managed or (server is not None and server.slot_wal_limit_bytes is not None)

    async def _leave(self) -> None:
        server = self._reader.server
        if server is None:
            return
        try:
            connection = await open_connection(self._conninfo, timeout_s=5)
            try:
                await take_reader_lock(connection, server.database_oid, patience_s=1.0)
                await drop_slot(connection, slot_name(server.database_oid))
                # Nobody reads them now, and without an event trigger nobody would move a table that loses its identity.
                await publication.apply(connection, (), frozenset())
            finally:
                await connection.close()
        except (psycopg.Error, AnotherReader) as error:  # what another node took over is not ours to remove
            self._log.warning("the replication slot stays", error=str(error).strip())


def _limits(config: MagDSConfig) -> Limits:
    return Limits(config.history_bytes, config.history_s, config.wal_limit_bytes)
