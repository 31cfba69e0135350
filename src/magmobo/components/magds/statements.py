"""Which statements one connection holds prepared, under which name. No I/O.

Invariant: an entry is `ready` only after the server acknowledged its Parse; what is asked for meanwhile runs unnamed.
The key includes the role: Postgres checks USAGE on schemas when a statement is parsed, so one parsed for another role
would skip the check.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

Key = tuple[bytes, bytes]  # role, sql


@dataclass(slots=True)
class Prepared:
    """One statement: its name on this connection, and whether the server has it."""

    key: Key
    name: bytes
    ready: bool = False


@dataclass(slots=True)
class Plan:
    """How to run one statement: `prepared` None means unnamed; `parse` asks for a Parse first; `close` names a
    statement to drop.
    """

    prepared: Prepared | None
    parse: bool = False
    close: bytes | None = None


class StatementCache:
    """Least recently used statements leave first. `size` counts statements, those being parsed included."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Key, Prepared] = OrderedDict()
        self._number = 0
        self._orphans: list[bytes] = []

    def __len__(self) -> int:
        return len(self._entries)

    def roles(self) -> frozenset[bytes]:
        """Roles that statements are kept for."""
        return frozenset(role for role, _ in self._entries)

    def plan(self, role: bytes, sql: bytes) -> Plan:
        """What to send so that this statement runs under this role."""
        key = (role, sql)
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return Plan(entry if entry.ready else None)
        close = self._make_room()
        if len(self._entries) >= self._size:
            return Plan(None, close=close)  # everything is being parsed right now
        self._number += 1
        entry = self._entries[key] = Prepared(key, b"mag_%d" % self._number)
        return Plan(entry, parse=True, close=close)

    def acknowledge(self, entry: Prepared) -> None:
        """The server has parsed it."""
        if self._entries.get(entry.key) is entry:
            entry.ready = True
        else:
            self._orphans.append(entry.name)

    def forget(self, entry: Prepared, *, on_server: bool) -> None:
        """Drop it: its Parse failed, or its plan is stale. `on_server`: the server still has it and must close it."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            if on_server:
                self._orphans.append(entry.name)

    def _make_room(self) -> bytes | None:
        if self._orphans:
            return self._orphans.pop()
        if len(self._entries) < self._size:
            return None
        for key, entry in self._entries.items():
            if entry.ready:
                del self._entries[key]
                return entry.name
        return None
