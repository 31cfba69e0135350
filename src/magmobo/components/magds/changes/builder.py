"""From pgoutput messages to changes with positions, in history and on the bus. No I/O, and never awaits.

It numbers what a transaction holds, drops what was seen before a reconnect, and renders rows once, as JSON text.
Invariant: a change gets the same position however often the log is read, because the sequence counts every row message
of the transaction, wanted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from magmobo.components.magds.changes.errors import DecodeError
from magmobo.components.magds.changes.history import History, TableHistory
from magmobo.components.magds.changes.json_values import Encoder
from magmobo.components.magds.changes.objects import MESSAGE_PREFIX
from magmobo.components.magds.changes.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Truncate,
    Update,
    Value,
)  # fmt: skip
from magmobo.components.magds.changes.positions import lsn_of, position_text
from magmobo.components.magds.changes.types import TypeCatalogue
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import TableName

_EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = b"null"
Operation = Literal["insert", "update", "delete", "truncate"]


class TableMark(Struct, frozen=True):
    """A note of our own in the log: `table` begins anew here; `lost` when subscribers had been listening before."""

    schema: str = ""
    table: str = ""
    lost: bool = False


class _Route(Struct, frozen=True):
    """How rows of one relation become changes."""

    table: TableName
    names: tuple[bytes, ...]
    encoders: tuple[Encoder, ...]
    keys: tuple[bool, ...]
    view: TableHistory


class ChangeBuilder:
    """Feed `apply` with every message in stream order.

    Args:
        emit: is called with each new change, after it is in `history`.
        on_mark: is called with each new mark of ours and its position.
    """

    def __init__(
        self,
        *,
        source: str,
        history: History,
        types: TypeCatalogue,
        emit: Callable[[DatabaseChange], None],
        on_mark: Callable[[TableMark, str], None],
    ) -> None:
        self._source, self._history, self._types = source, history, types
        self._emit, self._on_mark = emit, on_mark
        self._routes: dict[int, _Route] = {}
        self._relations: dict[int, Relation] = {}
        self.replayed_before_lsn = 0
        self.now_s = 0.0
        self.in_transaction = False
        self.resume()

    def resume(self) -> None:
        """A new connection begins: relations are told anew, and what is in history already is dropped."""
        self._routes.clear()
        self._relations.clear()
        self._seen = self._history.head
        self._seen_lsn = lsn_of(self._seen)
        self._dropping = self.in_transaction = False

    def rebuild(self) -> None:
        """Types were learnt again, or tables entered or left history: make the routes anew."""
        self._routes = {oid: self._make_route(relation) for oid, relation in self._relations.items()}

    def type_oids(self) -> set[int]:
        """Types of all columns seen on this connection."""
        return {column.type_oid for relation in self._relations.values() for column in relation.columns}

    def apply(self, message: Message) -> None:
        """Take one message. Raises: DecodeError when it does not fit what came before."""
        match message:
            case Insert():
                route = self._route(message.relation_oid)
                self._add(route, "insert", self._object(route, message.new), None)
            case Update():
                route = self._route(message.relation_oid)
                full = message.old if message.old is not None and not message.old_is_key else None
                old = None if message.old is None else self._object(route, message.old, keys_only=message.old_is_key)
                self._add(route, "update", self._object(route, message.new, full), old)
            case Delete():
                route = self._route(message.relation_oid)
                self._add(route, "delete", None, self._object(route, message.old, keys_only=message.old_is_key))
            case Begin():
                self._begin(message)
            case Commit():
                self.in_transaction = False
                self._history.advance(message.end_lsn)
            case Relation():
                self._relations[message.oid] = message
                self._routes[message.oid] = self._make_route(message)
            case Truncate():
                for oid in message.relation_oids:
                    self._add(self._route(oid), "truncate", None, None)
            case LogicalMessage() if message.transactional and message.prefix == MESSAGE_PREFIX:
                self._mark(message)
            case _:
                pass  # types are learnt from the catalogue; origins and messages of others say nothing to us

    def _begin(self, message: Begin) -> None:
        self.in_transaction = True
        self._commit_lsn, self._sequence = message.commit_lsn, 0
        try:
            committed_at = _EPOCH_2000 + timedelta(microseconds=message.time_us)
        except OverflowError as error:
            raise DecodeError(f"a commit at {message.time_us} µs") from error
        self._commit_time = committed_at.isoformat(timespec="microseconds")
        self._dropping = message.commit_lsn <= self._seen_lsn
        self._replayed = message.commit_lsn < self.replayed_before_lsn

    def _route(self, oid: int) -> _Route:
        route = self._routes.get(oid)
        if route is None:
            raise DecodeError(f"a row of relation {oid}, which was not described")
        return route

    def _make_route(self, relation: Relation) -> _Route:
        table = TableName(relation.schema, relation.name)
        return _Route(
            table,
            tuple(msgspec.json.encode(column.name) + b":" for column in relation.columns),
            tuple(self._types.encoder(column.type_oid) for column in relation.columns),
            tuple(column.key for column in relation.columns),
            self._history.table(table),
        )

    def _add(self, route: _Route, op: Operation, record: Raw | None, old_record: Raw | None) -> None:
        if not self.in_transaction:
            raise DecodeError(f"{op} outside a transaction")
        self._sequence += 1
        position = f"{self._commit_lsn:016x}.{self._sequence:08x}"
        if self._dropping and position <= self._seen:
            return
        table = route.table
        change = DatabaseChange(
            self._source, table.schema, table.name, op, position, self._commit_time, record, old_record, self._replayed
        )
        self._history.append(route.view, change, self.now_s)
        self._emit(change)

    def _mark(self, message: LogicalMessage) -> None:
        if not self.in_transaction:
            raise DecodeError("a transactional message outside a transaction")
        position = position_text(self._commit_lsn, self._sequence)
        if self._dropping and position < self._seen:
            return
        try:
            mark = msgspec.json.decode(message.content, type=TableMark)
        except msgspec.DecodeError:
            return  # anybody may write a message with our prefix; one that is not ours changes nothing
        if mark.table:
            self._history.reach(position)
            self._history.raise_floor(TableName(mark.schema, mark.table), position)
            self._on_mark(mark, position)

    def _object(
        self,
        route: _Route,
        values: Sequence[Value],
        full_old: Sequence[Value] | None = None,
        *,
        keys_only: bool = False,
    ) -> Raw:
        if len(values) != len(route.names):
            raise DecodeError(f"a row of {len(values)} values for {len(route.names)} columns of {route.table}")
        if keys_only or UNCHANGED in values:
            return self._partial_object(route, values, full_old, keys_only=keys_only)
        return Raw(
            b"{"
            + b",".join(
                [
                    name + (_NULL if value is None else encoder(value))  # type: ignore[arg-type]
                    for name, encoder, value in zip(route.names, route.encoders, values, strict=True)
                ]
            )
            + b"}"
        )

    def _partial_object(
        self, route: _Route, values: Sequence[Value], full_old: Sequence[Value] | None, *, keys_only: bool
    ) -> Raw:
        parts: list[bytes] = []
        for index, value in enumerate(values):
            if keys_only and not route.keys[index]:
                continue  # the protocol fills the place of other columns with NULL, which says nothing about them
            known = full_old[index] if value is UNCHANGED and full_old is not None else value
            if known is None:
                parts.append(route.names[index] + _NULL)
            elif isinstance(known, bytes):  # else the log does not hold it, and the column is left out
                parts.append(route.names[index] + route.encoders[index](known))
        return Raw(b"{" + b",".join(parts) + b"}")
