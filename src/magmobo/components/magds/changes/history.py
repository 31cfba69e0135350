"""What happened lately, per table, as views over one bounded window in memory.

The window holds the newest changes of all tables in stream order and ends at the first of its limits: bytes, age, or a
log position given by `trim_before` (WAL distance). What falls out raises only its own table's floor: a quiet table
keeps answering while a busy one is evicted. Invariant: between a table's floor and the head nothing is missing.
"""

from __future__ import annotations

from collections import deque

from magmobo.components.magds.changes.positions import is_position, lsn_of, position_text
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import Gap, Replay, TableName

# Measured with tracemalloc: event, position text, raw JSON headers, entry and two deque slots (tests hold it true).
OVERHEAD_BYTES = 512


class TableHistory:
    """One table's part of the window. `floor`: the position after which nothing is missing here."""

    __slots__ = ("changes", "floor")

    def __init__(self, floor: str) -> None:
        self.changes: deque[DatabaseChange] = deque()
        self.floor = floor


class History:
    """The window. Positions only grow; the caller appends in stream order."""

    def __init__(self, *, limit_bytes: int, limit_s: float) -> None:
        self._limit_bytes, self._limit_s = limit_bytes, limit_s
        self._entries: deque[tuple[TableHistory, int, float]] = deque()
        self._tables: dict[TableName, TableHistory] = {}
        self.reset(0)

    def adjust(self, *, limit_bytes: int, limit_s: float) -> None:
        """Other limits; age is looked at by the next `expire`."""
        self._limit_bytes, self._limit_s = limit_bytes, limit_s
        while self.size_bytes > limit_bytes:
            self._evict()

    def reset(self, lsn: int) -> None:
        """Forget everything; history begins at this log position."""
        self._entries.clear()
        self._tables.clear()
        self.size_bytes = 0
        self.floor = self.head = position_text(lsn)

    def table(self, table: TableName) -> TableHistory:
        """The table's view; made on first use, because what the stream brings belongs to history."""
        view = self._tables.get(table)
        if view is None:
            view = self._tables[table] = TableHistory(self.floor)
        return view

    def append(self, view: TableHistory, change: DatabaseChange, now_s: float) -> None:
        """Add the newest change; evicts from the old end what no longer fits."""
        size_bytes = OVERHEAD_BYTES
        if change.record is not None:
            size_bytes += len(change.record)
        if change.old_record is not None:
            size_bytes += len(change.old_record)
        self._entries.append((view, size_bytes, now_s))
        view.changes.append(change)
        self.size_bytes += size_bytes
        self.head = change.position
        while self.size_bytes > self._limit_bytes:
            self._evict()

    def advance(self, lsn: int) -> None:
        """Everything before this log position has been seen."""
        self.reach(position_text(lsn))

    def reach(self, position: str) -> None:
        """Everything up to this position has been seen."""
        self.head = max(self.head, position)

    def expire(self, now_s: float) -> None:
        """Evict what is older than the age limit."""
        while self._entries and now_s - self._entries[0][2] > self._limit_s:
            self._evict()

    def trim_before(self, lsn: int) -> None:
        """Evict what was committed before this log position."""
        while (oldest := self._oldest()) is not None and lsn_of(oldest.position) < lsn:
            self._evict()

    def raise_floor(self, table: TableName, position: str) -> None:
        """Changes of this table up to here may be missing, so earlier positions can no longer be resumed."""
        view = self.table(table)
        view.floor = max(view.floor, position)

    def forget(self, table: TableName) -> None:
        """The table left the stream. Its entries age out of the window with the others."""
        self._tables.pop(table, None)

    @property
    def confirmable_lsn(self) -> int:
        """Log position that may be confirmed: a reader that starts there sees all of the window again."""
        oldest = self._oldest()
        return lsn_of(self.head if oldest is None else oldest.position)

    def after(self, table: TableName, position: str) -> Replay | Gap:
        """Changes of `table` after `position`, oldest first, or why they cannot be given."""
        if not is_position(position):
            return Gap(position, self.head, "malformed")
        if position > self.head:
            return Gap(position, self.head, "ahead")
        view = self._tables.get(table)
        if position < (self.floor if view is None else view.floor):
            return Gap(position, self.head, "too_old")
        missed: list[DatabaseChange] = []
        for change in reversed(view.changes if view is not None else ()):
            if change.position <= position:
                break
            missed.append(change)
        missed.reverse()
        return Replay(missed, self.head)

    def _oldest(self) -> DatabaseChange | None:
        return self._entries[0][0].changes[0] if self._entries else None

    def _evict(self) -> None:
        view, size_bytes, _ = self._entries.popleft()
        view.floor = max(view.floor, view.changes.popleft().position)
        self.size_bytes -= size_bytes
