"""One subscription while this node delivers: what waits for it, and the task that hands it to the worker.

One batch is under way at a time. An event is told if the extension may see it at that moment, not only when it came.
What cannot be taken after three more tries is kept as a dead letter before the cursor passes it. What met a limit of
the node on what the extension may ask waits as long as that stands (`waits`), and that is no try.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import ExtensionBackpressureCritical, ExtensionBackpressureWarning
from magmobo.extensions.events import bodies
from magmobo.extensions.events.access import Data, Viewer
from magmobo.extensions.events.backlog import EXPIRED, LIMITED, NOT_TRIED, Backlog, Waiting
from magmobo.extensions.events.dead import Dead
from magmobo.extensions.events.log import Logged
from magmobo.extensions.events.waits import EVENT, LOOK_EVERY_S, Wait, Waits
from magmobo.extensions.installed import Installed
from magmobo.extensions.workers.errors import CallTooLarge, WorkerBusy, WorkerUnavailable
from magx import wire

DELIVER_TIMEOUT_S = 30.0
MAX_DELIVERY_BYTES = 524_288
REPLAY_WINDOW = 1000
_NO_LIMIT = 2**31
_MAX_HELD_BYTES = 4 * 1_048_576
_PAUSE_S, _PAUSE_LIMIT_S = 0.25, 5.0
_MAX_REASON_CHARS = 500


class Worker(Protocol):
    """What is asked of the process of an extension."""

    @property
    def installed(self) -> Installed: ...

    async def deliver(self, subscription: str, items: Sequence[wire.Item], timeout_s: float) -> wire.Acked:
        """Hand over events; its answer says which of them it did not take. Raises: MagError."""
        ...


class SubscriptionRow(Struct, frozen=True):
    """A subscription as it stands in the database."""

    extension_id: str
    name: str
    active: bool
    cursor_seq: int
    replay_to_seq: int
    rewound: int


class Surroundings(Protocol):
    """What a line asks of the delivery it is part of."""

    @property
    def clock(self) -> Clock: ...

    @property
    def waits(self) -> Waits: ...

    async def load(self, seqs: Sequence[int]) -> Mapping[int, Logged]:
        """Rows of the log."""
        ...

    async def bury(self, dead: Dead) -> None:
        """Keep a dead letter durably."""
        ...

    def changed(self, line: Line) -> None:
        """Its cursor may have moved."""
        ...

    def emit(self, event: ExtensionBackpressureWarning | ExtensionBackpressureCritical) -> None:
        """Tell the node."""
        ...

    def delivered(self, extension_id: str, count: int, failed: int) -> None:
        """Count."""
        ...


class Line:
    """Of one subscription of one extension."""

    def __init__(self, row: SubscriptionRow, viewer: Viewer, limit: int, around: Surroundings) -> None:
        self.extension_id, self.name, self._around = row.extension_id, row.name, around
        self.viewer, self.worker = viewer, None
        self.depth = 0
        """How many published events led to what is under way."""
        self._limit = limit
        self._wake = asyncio.Event()
        self._held: OrderedDict[int, Logged] = OrderedDict()
        self._held_bytes = 0
        self._pressure = 0
        self._wait: Wait | None = None
        self.adopt(row)

    worker: Worker | None

    # ------------------------------------------------------------ what it is told

    def adopt(self, row: SubscriptionRow) -> None:
        """Begin behind the row's cursor; what is under way counts for nothing any more."""
        self.end_wait()
        self.backlog = Backlog(row.cursor_seq, self._limit)
        self.rewound, self.active, self._replay_to = row.rewound, row.active, row.replay_to_seq
        self._bound()
        self._held.clear()
        self._held_bytes = 0
        self._wake.set()

    def serve(self, worker: Worker | None, viewer: Viewer, *, active: bool, limit: int) -> None:
        """Deliver to this worker from the next batch on; to none: let it wait."""
        self.worker, self.viewer, self.active, self._limit = worker, viewer, active, limit
        self._bound()
        self._wake.set()

    def end_wait(self) -> None:
        """It waits for no limit any more."""
        if self._wait is not None:
            self._wait = None
            self.backlog.hold_until(0.0)
            self._around.waits.end(self.extension_id, EVENT + self.name)

    @property
    def is_behind(self) -> bool:
        """Whether a replay is under way."""
        return self.backlog.cursor < self._replay_to

    @property
    def wants_more(self) -> bool:
        """Whether it looks at more of the log now. A replay comes as fast as it is taken, and overflows never."""
        return not self.is_behind or self.backlog.waiting < min(REPLAY_WINDOW, self._limit)

    def show(self, row: Logged, data: Data) -> None:
        """A row of the log that may concern it, opened, in order."""
        if row.seq <= self.backlog.scanned:  # it was removed meanwhile, and is part of a gap
            return
        seen = self.viewer.see(row, data)
        if seen is None:
            return
        if row.topic == bodies.GAP_TOPIC:
            self.backlog.offer(row.seq, None, row.time_s, float(data.get("since_s") or 0.0))
        else:
            self.backlog.offer(row.seq, self.viewer.partition(seen), row.time_s)
        if self._held_bytes < _MAX_HELD_BYTES:
            self._held[row.seq] = row
            self._held_bytes += len(row.data)

    def shown(self, seq: int) -> None:
        """All rows up to here have been shown."""
        self.backlog.pass_over(seq)
        self._bound()
        self._tell_pressure()
        self._around.changed(self)
        self._wake.set()

    def lose(self, floor_seq: int) -> None:
        """Rows up to here are gone."""
        self.backlog.lose(floor_seq, self._around.clock.time_s())
        self._around.changed(self)
        self._wake.set()

    # ------------------------------------------------------------ what it does

    async def run(self) -> None:
        """Deliver until cancelled."""
        pause_s = _PAUSE_S
        while True:
            self._look_at_wait()
            worker, backlog = self.worker, self.backlog
            batch = backlog.take(self._now_s()) if worker is not None and self.active else ()
            if worker is None or not batch:
                await self._rest()
                continue
            if await self._deliver(worker, backlog, batch):
                pause_s = _PAUSE_S
            else:
                await self._around.clock.sleep(pause_s)
                pause_s = min(_PAUSE_LIMIT_S, pause_s * 2)

    def _look_at_wait(self) -> None:
        wait, worker = self._wait, self.worker
        if wait is not None and (worker is None or self._around.waits.is_over(worker.installed, wait)):
            self.end_wait()

    async def _rest(self) -> None:
        due_s = self.backlog.due_in_s(self._now_s()) if self.worker is not None and self.active else None
        if due_s is not None and self._wait is not None:
            due_s = min(due_s, LOOK_EVERY_S)
        self._wake.clear()
        if due_s is None:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(max(due_s, 0.001)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, worker: Worker, backlog: Backlog, batch: Sequence[Waiting]) -> bool:
        """One batch; False when nobody could be asked."""
        rows = await self._rows(batch)
        items, places, failed = self._items(batch, rows)
        began_s = self._now_s()
        given_up: Sequence[tuple[Waiting, str]]
        answer = wire.Acked(0)
        try:
            if items:
                self.depth = max((row.depth for row in rows.values()), default=0)
                answer = await worker.deliver(self.name, items, DELIVER_TIMEOUT_S)
                failed |= _understood(answer, places)
            given_up = backlog.settle(batch, failed, self._now_s())
            if answer.later and backlog is self.backlog:
                said_s = [retry_s for _, retry_s in answer.later]
                self._wait = self._around.waits.begin(worker.installed, EVENT + self.name, began_s, said_s)
                backlog.hold_until(self._wait.until_s)
            if self._now_s() - began_s > DELIVER_TIMEOUT_S / 4:
                backlog.slow_down()
        except (Unavailable, WorkerUnavailable, WorkerBusy):
            backlog.put_back(batch)
            return False
        except CallTooLarge as error:
            if len(items) > 1:
                backlog.slow_down()
                backlog.put_back(batch)
                return True
            failed = dict.fromkeys(places, "")
            given_up = backlog.break_off(batch, _short(str(error)), self._now_s())
        except MagError as error:
            failed = dict.fromkeys(places, "")
            given_up = backlog.break_off(batch, _short(str(error)), self._now_s())
        finally:
            self.depth = 0
        self._around.delivered(self.extension_id, len(items) - sum(one in failed for one in places), len(given_up))
        await self._bury(backlog, given_up, rows)
        self._around.changed(self)
        self._tell_pressure()
        return True

    async def _rows(self, batch: Sequence[Waiting]) -> dict[int, Logged]:
        rows = {one.seq: row for one in batch if (row := self._held.pop(one.seq, None)) is not None}
        self._held_bytes -= sum(len(row.data) for row in rows.values())
        while self._held and next(iter(self._held)) < batch[0].seq:  # became a gap, or waits behind one that failed
            self._held_bytes -= len(self._held.popitem(last=False)[1].data)
        missing = [one.seq for one in batch if one.seq not in rows and not one.reason]
        if missing:
            rows |= await self._around.load(missing)
        return rows

    def _items(
        self, batch: Sequence[Waiting], rows: Mapping[int, Logged]
    ) -> tuple[list[wire.Item], list[int], dict[int, str]]:
        """What of a batch is told now, the places of those, and which others are left for the next one."""
        items: list[wire.Item] = []
        places: list[int] = []
        left: dict[int, str] = {}
        time_s, size_bytes = self._around.clock.time_s(), 0
        for place, one in enumerate(batch):
            item = self._item(one, rows.get(one.seq), time_s)
            if item is None:
                continue
            size_bytes += len(item.data)
            if items and size_bytes > MAX_DELIVERY_BYTES:
                left[place] = NOT_TRIED
                continue
            items.append(item)
            places.append(place)
        return items, places, left

    def _item(self, one: Waiting, row: Logged | None, time_s: float) -> wire.Item | None:
        if row is None or one.reason:
            count = one.count if one.reason else 1
            facts = bodies.gap_facts(one.reason or EXPIRED, one.since_s, one.until_s, count=count or None)
            gap_id = f"{self.extension_id}/{self.name}/{one.seq}"
            return wire.Item(gap_id, bodies.GAP_TOPIC, time_s, one.tries + 1, wire.raw(facts))
        seen = self.viewer.see(*bodies.opened(row))
        return None if seen is None else wire.Item(row.id, row.topic, row.time_s, one.tries + 1, wire.raw(seen))

    async def _bury(
        self, backlog: Backlog, given_up: Sequence[tuple[Waiting, str]], rows: Mapping[int, Logged]
    ) -> None:
        time_s = self._around.clock.time_s()
        for one, reason in given_up:
            item = self._item(one, rows.get(one.seq), time_s)
            if item is not None:
                handler = f"event:{self.name}"
                dead = Dead(self.extension_id, handler, item.id, item.topic, item.time_s, item.data, one.tries, reason)
                await self._around.bury(dead)
            backlog.bury(one)

    # ------------------------------------------------------------ inside

    def _bound(self) -> None:
        self.backlog.limit = _NO_LIMIT if self.is_behind else self._limit

    def _now_s(self) -> float:
        return self._around.clock.monotonic_s()

    def _tell_pressure(self) -> None:
        waiting, limit = self.backlog.waiting, self._limit
        level = 2 if self.backlog.dropped else 1 if waiting >= limit // 2 and not self.is_behind else 0
        if level > self._pressure:
            kind = ExtensionBackpressureCritical if level == 2 else ExtensionBackpressureWarning
            self._around.emit(kind(self.extension_id, waiting, limit))
            self._pressure = level
        elif waiting < limit // 4:
            self._pressure = self.backlog.dropped = 0


def _understood(answer: wire.Acked, places: Sequence[int]) -> dict[int, str]:
    """What a worker says of its items, by their place in the batch. That it did not come to one counts only behind one
    that failed: it must not put off everything for ever.
    """
    failed: dict[int, str] = {}
    for at, reason in sorted(answer.failed):
        if 0 <= at < len(places):
            failed[places[at]] = NOT_TRIED if reason == NOT_TRIED and failed else _short(reason) or "no reason given"
    return failed | {places[at]: LIMITED for at, _ in answer.later if 0 <= at < len(places)}


def _short(text: str) -> str:
    return text[:_MAX_REASON_CHARS].replace("\x00", "").encode(errors="replace").decode()
