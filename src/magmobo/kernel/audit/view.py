"""What an operator sees of the log: the last records, or those behind one, of what was asked for. Blocking I/O, for a
thread.

Records that come by themselves all the time are left out unless they are asked for: the log's own checkpoints, and
calls of extensions, summed up ten times a second, of which it is said how many there were. How a command ended says not
what it was about; where its beginning is shown, or was just before, its end is. Boundary: for people who look;
`Audit.read` and the export give everything. Invariant: one look reads at most `LOOKED_AT` records, and `LOOKED_BACK`
before each window for commands that began there, and holds `limit` of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from magmobo.contracts.audit import AuditRecord
from magmobo.kernel.audit.catalogue import CHECKPOINT
from magmobo.kernel.audit.reader import lines_in
from magmobo.kernel.audit.record import link_of, record_of

CALLS = "extension.calls"
QUIET = frozenset({CALLS, CHECKPOINT})
LOOKED_AT = 50_000
LOOKED_BACK = 1000
"""An end further than this behind its beginning, or behind as many beginnings, may not be found."""
_FIRST_WINDOW = 200
_BEGINNINGS = frozenset({"intent", "package"})
"""Phases of a command before it acts: that it was asked for, and which package that is about."""


class Wanted(Struct, frozen=True):
    """Which records; empty: any. `action`: a name of the catalogue, or the beginning of some and `*`; `extension`: what
    this one did and what was done to it, and how that ended; `everything`: also those of `QUIET`, which naming one asks
    for, too.
    """

    action: str = ""
    extension: str = ""
    everything: bool = False


class View(Struct, frozen=True):
    """Records, oldest first. `cursor` is the last one looked at, `behind` the one before the first; `left_out` counts
    records of calls that would have been shown else.
    """

    records: list[AuditRecord]
    cursor: int
    behind: int
    left_out: int = 0


def next_records(folder: Path, wanted: Wanted, *, after_seq: int, limit: int, up_to_seq: int) -> View:
    """At most `limit` records behind `after_seq`. Raises: OSError."""
    found: list[AuditRecord] = []
    cursor, left_out = after_seq, 0
    for looked_at, (seq, record) in enumerate(_chosen(folder, wanted, after_seq, up_to_seq), 1):
        cursor = seq
        if record is _LEFT_OUT:
            left_out += 1
        elif record is not None:
            found.append(record)
        if len(found) == limit or looked_at == LOOKED_AT:
            break
    return View(found, cursor, after_seq, left_out)


def last_records(folder: Path, wanted: Wanted, *, limit: int, up_to_seq: int) -> View:
    """The last `limit` records up to `up_to_seq`, found by looking at more and more of the end. Raises: OSError."""
    found: list[AuditRecord] = []
    left_out, window = 0, max(limit, _FIRST_WINDOW)
    end, least = up_to_seq, max(0, up_to_seq - LOOKED_AT)
    while end > least and len(found) < limit:
        begin, passed = max(least, end - window), 0
        # Each with how many were left out before it; no more of them at a time than are wanted.
        kept: deque[tuple[AuditRecord, int]] = deque(maxlen=limit - len(found))
        for _, record in _chosen(folder, wanted, begin, end):
            if record is _LEFT_OUT:
                passed += 1
            elif record is not None:
                kept.append((record, passed))
        if len(kept) == kept.maxlen:
            first, before = kept[0]
            begin, passed = first.seq - 1, passed - before
        found[:0] = [record for record, _ in kept]
        left_out += passed
        end, window = begin, window * 4
    return View(found, up_to_seq, max(end, 0), left_out)


_LEFT_OUT: Any = object()


def _chosen(folder: Path, wanted: Wanted, after_seq: int, up_to_seq: int) -> Iterator[tuple[int, AuditRecord | None]]:
    """Number and record of each line; `_LEFT_OUT` for calls that are not shown, None for one that is not wanted."""
    begun = _Begun()
    from_seq = max(0, after_seq - LOOKED_BACK) if wanted.extension else after_seq
    for line in lines_in(folder, after_seq=from_seq, up_to_seq=up_to_seq):
        link = link_of(line)
        if link is None or (link.seq <= after_seq and link.action in QUIET):
            continue
        record = _record(line, link.action, wanted, begun) if _is_meant(link.action, wanted.action) else None
        if link.seq > after_seq:
            yield link.seq, record


class _Begun:
    """Commands whose beginning is shown, and whose end was not seen yet; the last `LOOKED_BACK`."""

    def __init__(self) -> None:
        self._commands: dict[tuple[str, ...], None] = {}

    def note(self, record: AuditRecord) -> None:
        """One that is shown."""
        if record.payload.get("phase") in _BEGINNINGS:
            self._commands[_command_of(record)] = None
            if len(self._commands) > LOOKED_BACK:
                del self._commands[next(iter(self._commands))]

    def ends_with(self, record: AuditRecord) -> bool:
        """Whether this is the end of one of them, which then is none any more."""
        if record.payload.get("phase") != "outcome" or (command := _command_of(record)) not in self._commands:
            return False
        del self._commands[command]
        return True


def _command_of(record: AuditRecord) -> tuple[str, ...]:
    """The trace is one request's, which may hold several commands."""
    return record.trace_id, record.actor, record.action, str(record.payload.get("command"))


def _record(line: bytes, action: str, wanted: Wanted, begun: _Begun) -> AuditRecord | None:
    is_left_out = action in QUIET and not wanted.everything and action != wanted.action
    if is_left_out and (action != CALLS or not wanted.extension):
        return _LEFT_OUT if action == CALLS else None  # under load these are many: they are not decoded
    record = record_of(line)
    if record is None:
        return None
    if wanted.extension:
        if not (_is_about(record, wanted.extension) or begun.ends_with(record)):
            return None
        begun.note(record)
    return _LEFT_OUT if is_left_out else record


def _is_meant(action: str, wanted: str) -> bool:
    return action.startswith(wanted[:-1]) if wanted.endswith("*") else wanted in ("", action)


def _is_about(record: AuditRecord, extension: str) -> bool:
    """Whether it is by this extension, about it, asked for it, or sums up calls of it and of others."""
    if record.actor == f"extension:{extension}" or record.payload.get("extension") == extension:
        return True
    params, calls = record.payload.get("params"), record.payload.get("calls")
    if isinstance(params, dict) and record.action.startswith("extension.") and params.get("id") == extension:
        return True
    return isinstance(calls, list) and any(isinstance(one, dict) and one.get("extension") == extension for one in calls)
