"""The reader: one session after another with the walsender, history and bus fed in stream order.

A session takes the reader lock, finds or makes the slot, then streams until something breaks; `run` begins the next.
Invariants: the confirmed position never passes the oldest change in history, nor what a consumer holds; a position is
emitted once; when history was cut (slot gone, log too long), DatabaseChangesLost says so before anything newer is
emitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from msgspec import Struct

from magmobo.components.magds.changes.builder import ChangeBuilder, TableMark
from magmobo.components.magds.changes.errors import (
    AnotherReader,
    ChangesUnavailable,
    DecodeError,
    NoFreeSlot,
    StreamBroken,
)
from magmobo.components.magds.changes.history import History
from magmobo.components.magds.changes.objects import PUBLICATIONS, Connection, install, open_connection, slot_name
from magmobo.components.magds.changes.pgoutput import Relation, decode
from magmobo.components.magds.changes.positions import lsn_of, position_text
from magmobo.components.magds.changes.publication import mark_log
from magmobo.components.magds.changes.slot import (
    OpenSlot,
    ServerFacts,
    check_server,
    drop_slot,
    end_stale_reader,
    epoch_of,
    open_slot,
    read_server,
    read_slot,
    replication_right_missing,
    take_reader_lock,
    walsenders_used_up,
)  # fmt: skip
from magmobo.components.magds.changes.stream import Keepalive, ReplicationStream
from magmobo.components.magds.changes.types import TypeCatalogue
from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import DatabaseChange, DatabaseChangesLost

_WINDOW_LIMIT_BYTES = 1_073_741_824
_TICK_S = 1.0
_POLL_TICKS = 2
_SILENCE_S = 60.0
_REFUSED_PAUSE_S = 15.0
_BURST_MESSAGES, _BURST_S = 64, 0.005
_UNDEFINED_OBJECT = "42704"


class Limits(Struct, frozen=True):
    """How far back history may reach. `wal_limit_bytes` counts where the server sets no limit to slots."""

    history_bytes: int
    history_s: float
    wal_limit_bytes: int


class Reader:
    """Reads one database. `on_state` is called when `streaming`, `caught_up`, `epoch`, `reason` or the head changed."""

    def __init__(
        self,
        *,
        conninfo: str,
        source: str,
        limits: Limits,
        bus: Bus,
        clock: Clock,
        log: Any,
        on_state: Callable[[], None],
    ) -> None:
        self._conninfo, self._limits, self._bus, self._clock, self._log = conninfo, limits, bus, clock, log
        self._on_state = on_state
        self.history = History(limit_bytes=limits.history_bytes, limit_s=limits.history_s)
        self._types = TypeCatalogue()
        self._types_stale = False
        self._builder = ChangeBuilder(
            source=source, history=self.history, types=self._types, emit=self._emit, on_mark=self._mark
        )
        self.epoch = ""
        self.streaming = self.caught_up = False
        self.reason: ChangesUnavailable | None = None
        self.lost_reason = ""
        self.server: ServerFacts | None = None
        self._renew_because = ""
        self._target = ""
        self._confirmed_lsn = self._least_lsn = 0
        self._hold_lsn: int | None = 0  # until it is known who wants what, nothing more is confirmed
        self._stream: ReplicationStream | None = None
        self._outdated = False

    async def run(self) -> None:
        """Read until cancelled. What the server refuses is kept in `reason`; all is tried again, with back-off."""
        pause_s = 0.05
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._session()
                pause_s = 0.05
            except ChangesUnavailable as error:
                if self.reason is None or str(self.reason) != str(error):
                    self._log.warning("changes unavailable", code=error.code, reason=error.reason)
                self.reason = error
                limit_s = 2.0 if isinstance(error, AnotherReader) else _REFUSED_PAUSE_S
                pause_s = min(limit_s, max(1.0, pause_s * 2))
            except (psycopg.Error, OSError, StreamBroken, DecodeError) as error:
                self._log.warning("change stream interrupted", error=str(error).strip())
                lived_s = self._clock.monotonic_s() - began_s
                pause_s = 0.05 if lived_s > 10 else min(5.0, pause_s * 2)
            self.streaming = False
            self._on_state()
            await self._clock.sleep(pause_s)

    def adjust(self, conninfo: str, limits: Limits, *, renew: bool = False) -> None:
        """Other limits, and another way to connect; `renew`: leave the present connections soon. The next session
        goes on where this one ended, in the middle of a transaction if need be.
        """
        self._conninfo, self._limits, self._outdated = conninfo, limits, self._outdated or renew
        self.history.adjust(limit_bytes=limits.history_bytes, limit_s=limits.history_s)

    def types_changed(self) -> None:
        """The catalogue changed: look types up again before the next row."""
        self._types_stale = True

    def tables_changed(self) -> None:
        """Tables entered or left history: rows that follow go to the present views."""
        self._builder.rebuild()

    def hold(self, lsn: int | None) -> None:
        """Confirm nothing beyond this log position, unless the slot holds back too much; None: history alone counts."""
        self._hold_lsn = lsn

    def ask_for_position(self) -> None:
        """Make the walsender say soon how far it is, when nothing is being written."""
        if self._stream is not None and self.streaming:
            with suppress(psycopg.Error):  # the read loop meets the same error and handles it
                self._send_status(self._stream, ask_reply=True)

    async def _session(self) -> None:
        self._outdated = False
        control = await open_connection(self._conninfo)
        try:
            server = self.server = await read_server(control)
            check_server(server)
            await take_reader_lock(control, server.database_oid)
            await install(control)
            stream = await self._open_stream(control, server)
            try:
                await self._begin(control, server, stream)
                await self._read(control, server, stream)
            except StreamBroken as error:
                if error.sqlstate == _UNDEFINED_OBJECT:  # a publication was missing where the log is being read
                    self._renew_because = "publication_dropped"
                raise
            finally:
                await self._close_stream(stream)
        finally:
            await control.close()

    async def _open_stream(self, control: Connection, server: ServerFacts) -> ReplicationStream:
        try:
            return await ReplicationStream.connect(self._conninfo)
        except psycopg.OperationalError as error:
            if await walsenders_used_up(control):
                raise NoFreeSlot("all WAL senders of the server are in use") from error
            if not server.may_replicate:
                raise replication_right_missing(server.role) from error
            raise

    async def _begin(self, control: Connection, server: ServerFacts, stream: ReplicationStream) -> None:
        name = slot_name(server.database_oid)
        await end_stale_reader(control, name)
        identity = await stream.identify()
        if self.epoch and identity.flushed_lsn < lsn_of(self.history.head):
            self._renew_because = "log_rewound"  # an older copy of the server was put back: positions will come again
        if self._renew_because:
            await drop_slot(control, name)
        slot = await open_slot(control, server)
        if server.slot_wal_limit_bytes is None and slot.facts.held_bytes > self._limits.wal_limit_bytes:
            self._renew_because = "wal_limit"
            await drop_slot(control, name)
            slot = await open_slot(control, server)
        target_lsn = await mark_log(control)
        self._adopt(epoch_of(identity.system_identifier, identity.timeline, server.database_oid, slot.uuid), slot)
        self._builder.resume()
        if not self._target:
            self._builder.replayed_before_lsn = target_lsn
        self._target = position_text(target_lsn)
        await stream.start(name, PUBLICATIONS, lsn_of(self.history.head))
        self._stream, self.streaming, self.reason = stream, True, None
        self._on_state()

    def _adopt(self, epoch: str, slot: OpenSlot) -> None:
        """Decide whether the slot continues our history; if not, begin a new one and say so."""
        confirmed_lsn = slot.facts.confirmed_lsn
        advanced = confirmed_lsn > lsn_of(self.history.head)
        if epoch == self.epoch and not advanced:
            return
        before, had_history = self.history.head, bool(self.epoch)
        reason = self._renew_because or ("slot_advanced" if epoch == self.epoch else "slot_lost")
        self.history.reset(confirmed_lsn)
        self.epoch, self._confirmed_lsn, self.caught_up, self._renew_because = epoch, confirmed_lsn, False, ""
        self._least_lsn = 0
        if had_history:
            self._lost(before, reason)

    def _lost(self, before: str, reason: str) -> None:
        self.lost_reason = reason
        self._log.warning("changes lost", reason=reason, position=self.history.head)
        self._bus.emit(DatabaseChangesLost(self.epoch, before, self.history.head, reason))

    async def _read(self, control: Connection, server: ServerFacts, stream: ReplicationStream) -> None:
        now_s = heard_s = self._clock.monotonic_s()
        next_tick_s, ticks = now_s, 0
        while not self._outdated:
            self._builder.now_s = now_s
            more = await self._take_burst(control, stream)
            if not self.caught_up and self.history.head >= self._target:
                self.caught_up = True
            self._on_state()
            now_s = self._clock.monotonic_s()
            if now_s >= next_tick_s:
                self.history.expire(now_s)
                if ticks % _POLL_TICKS == 0:
                    await self._check_slot(control, server)
                self._send_status(stream, ask_reply=not self.caught_up or ticks % 10 == 0)
                ticks, next_tick_s = ticks + 1, now_s + _TICK_S
            if more:
                heard_s = now_s
                await asyncio.sleep(0)
            elif await stream.wait(next_tick_s - now_s):
                heard_s = now_s
            elif now_s - heard_s > _SILENCE_S:
                raise StreamBroken(f"nothing was heard for {_SILENCE_S:g} s")

    async def _take_burst(self, control: Connection, stream: ReplicationStream) -> bool:
        """Take what has arrived, for a few milliseconds at most; True when more may be there."""
        if self._types_stale:
            await self._learn_again(control)
        monotonic_s = self._clock.monotonic_s
        until_s, count = monotonic_s() + _BURST_S, 0
        while (frame := stream.receive()) is not None:
            if isinstance(frame, Keepalive):
                if not self._builder.in_transaction:
                    self.history.advance(frame.lsn)
                if frame.reply_requested:
                    self._send_status(stream, ask_reply=False)
                continue
            message = decode(frame)
            if type(message) is Relation:
                await self._types.learn(control, [column.type_oid for column in message.columns])
            self._builder.apply(message)
            count += 1
            if count % _BURST_MESSAGES == 0 and monotonic_s() > until_s:
                return True
        return False

    async def _learn_again(self, control: Connection) -> None:
        self._types_stale = False
        self._types.forget()
        await self._types.learn(control, self._builder.type_oids())
        self._builder.rebuild()

    async def _check_slot(self, control: Connection, server: ServerFacts) -> None:
        """Shorten the window when the slot holds back too much log; give the slot up above the limit, and stop reading
        when the server was told to let commits wait for us.
        """
        check_server(await read_server(control))
        facts = await read_slot(control, slot_name(server.database_oid))
        if facts is None or facts.lost:
            raise StreamBroken("the replication slot is gone")
        limit_bytes = server.slot_wal_limit_bytes or self._limits.wal_limit_bytes
        if server.slot_wal_limit_bytes is None and facts.held_bytes > limit_bytes:
            self._renew_because = "wal_limit"
            raise StreamBroken(f"the slot holds back {facts.held_bytes} bytes of log, more than {limit_bytes}")
        budget_bytes = min(_WINDOW_LIMIT_BYTES, limit_bytes // 4)
        if facts.held_bytes > budget_bytes:
            # The restart position follows the confirmed one in steps, so the cut is deeper than the excess.
            self._least_lsn = lsn_of(self.history.head) - budget_bytes // 2
            self.history.trim_before(self._least_lsn)

    def _send_status(self, stream: ReplicationStream, *, ask_reply: bool) -> None:
        confirmable_lsn = self.history.confirmable_lsn
        if self._hold_lsn is not None:
            confirmable_lsn = min(confirmable_lsn, max(self._hold_lsn, self._least_lsn))
        self._confirmed_lsn = max(self._confirmed_lsn, confirmable_lsn)
        stream.send_status(lsn_of(self.history.head), self._confirmed_lsn, self._clock.time_s(), ask_reply=ask_reply)

    async def _close_stream(self, stream: ReplicationStream) -> None:
        began, self._stream = self._stream is stream, None
        if began:
            with suppress(psycopg.Error):  # a last word to a server that may be gone
                self._send_status(stream, ask_reply=False)
        self.streaming = False
        await stream.close()

    def _emit(self, change: DatabaseChange) -> None:
        if self._bus.has_listeners(DatabaseChange):
            self._bus.emit(change)

    def _mark(self, mark: TableMark, position: str) -> None:
        if mark.lost and lsn_of(position) >= self._builder.replayed_before_lsn:
            self._lost(self.history.head, "table_changed")
