"""What extensions were asked and asked for, in figures and, every 100 ms, in the audit log: one record for all.

Counting is a few additions on an object that whoever counts keeps; names are looked up once. Boundary: facts only,
never arguments or answers. Invariant: a call is on record at most `BATCH_S` (and one write) after it ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from magmobo.contracts.metrics import Counter, Metrics
from magmobo.extensions.gate.outbox import PLANE, AuditOutbox

BATCH_S = 0.1
RECORD_LINES = 60
"""Lines of one record, whose size is bounded by the audit log."""


class _Cell:
    """Calls of one name with one result since the last batch."""

    __slots__ = ("count", "counter", "extension_id", "kind", "max_s", "name", "result", "total_s")

    def __init__(self, extension_id: str, kind: str, name: str, result: str, counter: Counter) -> None:
        self.extension_id, self.kind, self.name, self.result, self.counter = extension_id, kind, name, result, counter
        self.count, self.total_s, self.max_s = 0, 0.0, 0.0

    def line(self) -> dict[str, Any]:
        return {
            "extension": self.extension_id,
            "kind": self.kind,
            "name": self.name,
            "result": self.result,
            "count": self.count,
            "total_ms": round(self.total_s * 1000, 3),
            "max_ms": round(self.max_s * 1000, 3),
        }


class Tally:
    """Counts what was asked under one name."""

    __slots__ = ("_cells", "_extension_id", "_kind", "_ledger", "_name", "_observe")

    def __init__(
        self, ledger: Ledger, extension_id: str, kind: str, name: str, observe: Callable[[float], None]
    ) -> None:
        self._ledger, self._extension_id, self._kind, self._name = ledger, extension_id, kind, name
        self._observe = observe
        self._cells: dict[str, _Cell] = {}

    def note(self, result: str, duration_s: float) -> None:
        """One call ended like this."""
        cell = self._cells.get(result)
        if cell is None:
            counter = self._ledger.counter(self._extension_id, result)
            cell = self._cells[result] = _Cell(self._extension_id, self._kind, self._name, result, counter)
        if not cell.count:
            self._ledger.touched(cell)
        cell.count += 1
        cell.total_s += duration_s
        if duration_s > cell.max_s:
            cell.max_s = duration_s
        self._observe(duration_s)


class Ledger:
    """All tallies of a node."""

    def __init__(self, outbox: AuditOutbox, metrics: Metrics) -> None:
        self._outbox, self._metrics = outbox, metrics
        self._observe = metrics.histogram(
            "mag_extension_call_seconds", "Duration of calls of and by extensions."
        ).observe
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._touched: list[_Cell] = []
        self._timer: asyncio.TimerHandle | None = None

    def tally(self, extension_id: str, kind: str, name: str) -> Tally:
        """Where calls of this name are counted. `kind` is `hook`, `event`, `endpoint`, `command`, `job`, `health` for
        what extensions are asked, `api` for what they ask.
        """
        key = (extension_id, kind, name)
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = Tally(self, *key, self._observe)
        return found

    def counter(self, extension_id: str, result: str) -> Counter:
        """The figure of all calls of an extension with this result."""
        labels = {"extension": extension_id, "result": result}
        return self._metrics.counter("mag_extension_calls_total", "Calls of and by extensions.", labels=labels)

    def touched(self, cell: _Cell) -> None:
        """The first call of this cell in a batch."""
        self._touched.append(cell)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_S, self.flush)

    def flush(self) -> None:
        """Put what was counted on record now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        cells, self._touched = self._touched, []
        for first in range(0, len(cells), RECORD_LINES):
            batch = cells[first : first + RECORD_LINES]
            self._outbox.put("extension.calls", PLANE, {"calls": [cell.line() for cell in batch]})
        for cell in cells:
            cell.counter.value += cell.count
            cell.count, cell.total_s, cell.max_s = 0, 0.0, 0.0

    def forget(self, extension_id: str) -> None:
        """The extension is gone; what was counted is still put on record."""
        for key in [key for key in self._tallies if key[0] == extension_id]:
            del self._tallies[key]
