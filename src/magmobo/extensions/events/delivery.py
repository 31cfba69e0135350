"""Delivery while this node holds the lease: the log read once for all subscriptions, cursors saved, old rows removed.

Every subscription is shown the log in order; those at the same place are shown the same rows. All of it goes over the
connection that holds the lease, so a node that lost it can change nothing. Cursors are saved a moment after they moved:
what a kill makes unknown is told again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import ExtensionBackpressureCritical, ExtensionBackpressureWarning
from magmobo.contracts.metrics import Metrics
from magmobo.extensions.events import log
from magmobo.extensions.events.access import Holds, viewer
from magmobo.extensions.events.backlog import Backlog
from magmobo.extensions.events.bodies import opened
from magmobo.extensions.events.dead import Dead, keep_dead
from magmobo.extensions.events.line import Line, SubscriptionRow, Worker
from magmobo.extensions.events.log import Desk, Logged
from magmobo.extensions.events.waits import Waits

READ_ROWS, READ_BYTES = 512, 4 * 1_048_576
POLL_S, SAVE_EVERY_S, LOOK_EVERY_S, PURGE_EVERY_S = 0.5, 0.1, 2.0, 60.0
PURGE_ROWS = 5000
MAX_LOG_BYTES = 2 * 1024**3
"""Above this the oldest events go before their time: no extension fills the disk with what it subscribes to."""
_YIELD_EVERY = 50

_ROWS = "select extension_id, name, active, cursor_seq, replay_to_seq, rewound from mag.extension_subscription"
_SAVE = """
update mag.extension_subscription s set cursor_seq = greatest(s.cursor_seq, t.cursor_seq), waiting = t.waiting
from unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
  as t(extension_id, name, cursor_seq, waiting, rewound)
where s.extension_id = t.extension_id and s.name = t.name and s.rewound = t.rewound
"""
_PURGE_DEAD = "delete from mag.extension_dead where dead_s < %s"


class Limits(Struct, frozen=True):
    """How many events may wait for a subscription, and how long events are kept."""

    backlog: int
    retention_s: float


class Delivery:
    """From taking the lease to losing it. `workers` are those of this node, as they are now."""

    def __init__(
        self,
        desk: Desk,
        workers: Mapping[str, Worker],
        limits: Callable[[], Limits],
        holds: Holds,
        waits: Waits,
        clock: Clock,
        bus: Bus,
        metrics: Metrics,
    ) -> None:
        self._desk, self._workers, self._limits, self._holds, self.waits = desk, workers, limits, holds, waits
        self.clock, self._bus, self._metrics = clock, bus, metrics
        self._lines: dict[tuple[str, str], Line] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._changed: dict[Line, None] = {}
        self._appended, self._look_now = asyncio.Event(), asyncio.Event()
        self._save_now = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._ended = False

    async def run(self) -> None:
        """Deliver until cancelled. Raises: ExceptionGroup of psycopg.Error when the connection is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_looking(group), name="events.lines")
                group.create_task(self._read_on(), name="events.read")
                group.create_task(self._keep_saving(), name="events.save")
                group.create_task(self._keep_purging(), name="events.purge")
        finally:
            self._ended = True
            _tell(self._waiting)

    def appended(self) -> None:
        """There is something new in the log."""
        self._appended.set()

    def look_again(self) -> None:
        """Workers or subscriptions are others."""
        self._look_now.set()

    def let_go(self, extension_id: str) -> None:
        """Deliver nothing more to an extension, from this moment on."""
        for (owner, _), line in self._lines.items():
            if owner == extension_id:
                line.serve(None, line.viewer, active=line.active, limit=self._limits().backlog)

    def depth(self, extension_id: str) -> int:
        """How many published events led to what an extension is working on."""
        return max((line.depth for (owner, _), line in self._lines.items() if owner == extension_id), default=0)

    # ------------------------------------------------------------ what lines ask

    async def load(self, seqs: Sequence[int]) -> Mapping[int, Logged]:
        async with self._desk.use() as connection:
            return await log.read_rows(connection, seqs)

    async def bury(self, dead: Dead) -> None:
        async with self._desk.transaction() as connection:
            await keep_dead(connection, dead, self.clock.time_s())

    def changed(self, line: Line) -> None:
        self._changed[line] = None
        if line.is_behind and line.wants_more:
            self._appended.set()

    def emit(self, event: ExtensionBackpressureWarning | ExtensionBackpressureCritical) -> None:
        self._bus.emit(event)

    def delivered(self, extension_id: str, count: int, failed: int) -> None:
        for result, amount in (("taken", count), ("dead", failed)):
            if amount:
                labels = {"extension": extension_id, "result": result}
                name = "mag_extension_events_total"
                self._metrics.counter(name, "Events told to extensions.", labels=labels).inc(amount)

    # ------------------------------------------------------------ what goes on

    async def _keep_looking(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._look_now.clear()
            async with self._desk.use() as connection:
                rows = await (await connection.execute(_ROWS)).fetchall()
                floor_seq = await log.floor(connection)
            self._arrange([SubscriptionRow(*row) for row in rows], floor_seq, group)
            await wait(self._look_now, LOOK_EVERY_S)

    def _arrange(self, rows: Sequence[SubscriptionRow], floor_seq: int, group: asyncio.TaskGroup) -> None:
        """Bring the lines to what the rows and the workers are."""
        limits, known = self._limits(), set()
        for row in rows:
            place = (row.extension_id, row.name)
            known.add(place)
            line, worker = self._lines.get(place), self._workers.get(row.extension_id)
            if line is None and worker is not None:
                line = self._begin(row, worker, limits, group)
            if line is None:
                continue
            if line.rewound != row.rewound:
                line.adopt(row)
            if line.backlog.scanned < floor_seq:
                line.lose(floor_seq)
            self._serve(line, row, worker, limits)
        for place in self._lines.keys() - known:
            self._tasks.pop(place).cancel()
            gone = self._lines.pop(place)
            gone.end_wait()
            self._changed.pop(gone, None)
        self._appended.set()

    def _begin(self, row: SubscriptionRow, worker: Worker, limits: Limits, group: asyncio.TaskGroup) -> Line | None:
        sees = viewer(worker.installed, row.name, self._holds)
        if sees is None:
            return None
        place = (row.extension_id, row.name)
        line = self._lines[place] = Line(row, sees, limits.backlog, self)
        self._tasks[place] = group.create_task(line.run(), name=f"events.line {row.extension_id}/{row.name}")
        return line

    def _serve(self, line: Line, row: SubscriptionRow, worker: Worker | None, limits: Limits) -> None:
        sees = line.viewer
        if worker is not None and worker.installed is not sees.installed:
            other = viewer(worker.installed, row.name, self._holds)
            worker, sees = (None, sees) if other is None else (worker, other)
        line.serve(worker, sees, active=row.active, limit=limits.backlog)

    async def _read_on(self) -> None:
        while True:
            self._appended.clear()
            if not await self._read_round():
                await wait(self._appended, POLL_S)

    async def _read_round(self) -> bool:
        """One piece of the log for every place at which there are subscriptions. Whether there was any."""
        found = False
        wanting = [(line, line.backlog) for line in self._lines.values() if line.wants_more]
        places: dict[int, list[tuple[Line, Backlog]]] = {}
        for line, backlog in wanting:
            places.setdefault(backlog.scanned, []).append((line, backlog))
        for after_seq in sorted(places):
            async with self._desk.use() as connection:
                rows = await log.read(connection, after_seq, limit=READ_ROWS, limit_bytes=READ_BYTES)
            if not rows:
                break  # nor is there for those who are further
            # Pieces end at the same numbers whoever reads them, so that those who catch up join the others.
            piece = rows[0].seq // READ_ROWS
            await self._show([row for row in rows if row.seq // READ_ROWS == piece], places[after_seq])
            found = True
        return found

    async def _show(self, rows: Sequence[Logged], places: Sequence[tuple[Line, Backlog]]) -> None:
        """Rows to those that were at the place where they begin, unless they were rewound meanwhile."""
        concerned: dict[tuple[str, str], list[tuple[Line, Backlog]]] = {}
        for count, row in enumerate(rows, 1):
            kind = (row.topic, row.about)
            if kind not in concerned:
                concerned[kind] = [one for one in places if one[0].viewer.means(*kind)]
            if concerned[kind]:
                seen, data = opened(row)
                for line, backlog in concerned[kind]:
                    if line.backlog is backlog:
                        line.show(seen, data)
            if count % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        for line, backlog in places:
            if line.backlog is backlog:
                line.shown(rows[-1].seq)

    async def saved(self) -> None:
        """Return when it is noted how far everybody is now, or this node does not deliver any more."""
        if not self._ended:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(done)
            self._save_now.set()
            await done

    async def _keep_saving(self) -> None:
        """The connection is used by tasks of `run` alone: nobody else may be waiting for it when it is closed."""
        while True:
            await wait(self._save_now, SAVE_EVERY_S)
            self._save_now.clear()
            waiting, self._waiting = self._waiting, []
            if self._changed:
                lines, self._changed = list(self._changed), {}
                rows = [
                    (one.extension_id, one.name, one.backlog.cursor, one.backlog.waiting, one.rewound) for one in lines
                ]
                async with self._desk.use() as connection:
                    await connection.execute(_SAVE, [list(column) for column in zip(*rows, strict=True)])
            await self.waits.save(self._desk)
            _tell(waiting)

    async def _keep_purging(self) -> None:
        while True:
            retention_s = self._limits().retention_s
            while True:
                async with self._desk.use() as connection:
                    floor_seq, more = await log.purge(connection, retention_s, MAX_LOG_BYTES, rows=PURGE_ROWS)
                for line in self._lines.values():
                    if line.backlog.cursor < floor_seq:
                        line.lose(floor_seq)
                if not more:
                    break
            async with self._desk.use() as connection:
                await connection.execute(_PURGE_DEAD, (self.clock.time_s() - retention_s,))
            await self.clock.sleep(PURGE_EVERY_S)


def _tell(waiting: Sequence[asyncio.Future[None]]) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Return when `event` is set, at the latest after this time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
