"""Database changes to frames: each change is put into words once, each channel's frame once, and nobody parses a row.

A row is already JSON text; it is joined in as it is. Only a channel with a filter makes us look inside, once a change,
whatever the number of filters. A change belongs to a filter when the new or the old row shows its value; a truncate
belongs to every filter, and so does a row that cannot be read (type json keeps any nesting and half surrogate pairs):
rather a row too many than silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import DecodeError, Raw, json

from magmobo.components.magws.channels import Channel
from magmobo.components.magws.tables import TableChannel
from magmobo.contracts.events import DatabaseChange
from magmobo.contracts.planes import TableName
from magmobo.contracts.websocket import text_frame

_Row = dict[str, Raw]


def in_words(change: DatabaseChange, epoch: str, key_columns: tuple[str, ...], limit_bytes: int) -> bytes:
    """The change as applications receive it: a JSON object, itself written as a JSON string.

    Above `limit_bytes` the rows are replaced by the key columns' values (null when even those are too large) and
    `"refetch": true`.
    """
    text = _object(change, epoch, _text(change.record), _text(change.old_record), b"")
    if len(text) > limit_bytes:
        text = _object(change, epoch, b"null", b"null", b',"keys":%b,"refetch":true' % _keys(change, key_columns))
        if len(text) > limit_bytes:
            text = _object(change, epoch, b"null", b"null", b',"keys":null,"refetch":true')
    return json.encode(text.decode(errors="replace"))  # a database in SQL_ASCII may hold any bytes


def frame_for(channel: str, op: str, words: bytes) -> bytes:
    """One frame for everybody on the channel. The name holds no character that JSON escapes."""
    return text_frame(b'{"event":"%b","channel":"%b","data":%b}' % (op.encode(), channel.encode(), words))


def matches(change: DatabaseChange, channel: TableChannel) -> bool:
    """Whether the change belongs to the channel."""
    if channel.filter is None or change.op == "truncate":
        return True
    shown = _shown(_rows(change), channel.filter.column)
    return shown is None or channel.filter.value in shown


class TableIndex:
    """The followed channels of every table, so that a change finds its own without looking at the others."""

    def __init__(self) -> None:
        self._whole: dict[TableName, dict[Channel, None]] = {}
        self._filtered: dict[TableName, dict[str, dict[str, dict[Channel, None]]]] = {}

    def add(self, channel: Channel, table: TableChannel) -> None:
        """From now on the channel is found."""
        if table.filter is None:
            self._whole.setdefault(table.table, {})[channel] = None
            return
        columns = self._filtered.setdefault(table.table, {})
        columns.setdefault(table.filter.column, {}).setdefault(table.filter.value, {})[channel] = None

    def remove(self, channel: Channel, table: TableChannel) -> None:
        """The channel is found no more; empty levels go with it."""
        if table.filter is None:
            self._whole[table.table].pop(channel, None)
            if not self._whole[table.table]:
                del self._whole[table.table]
            return
        columns = self._filtered[table.table]
        values = columns[table.filter.column]
        values[table.filter.value].pop(channel, None)
        if not values[table.filter.value]:
            del values[table.filter.value]
        if not values:
            del columns[table.filter.column]
        if not columns:
            del self._filtered[table.table]

    def find(self, change: DatabaseChange) -> Iterator[Channel]:
        """Every channel the change belongs to, each once."""
        table = TableName(change.schema, change.table)
        yield from self._whole.get(table, ())
        columns = self._filtered.get(table)
        if columns is None:
            return
        if change.op == "truncate":
            for values in columns.values():
                for channels in values.values():
                    yield from channels
            return
        rows = _rows(change)
        for column, values in columns.items():
            shown = _shown(rows, column)
            for value in values if shown is None else shown:
                yield from values.get(value, ())

    def __iter__(self) -> Iterator[Channel]:
        for channels in self._whole.values():
            yield from channels
        for columns in self._filtered.values():
            for values in columns.values():
                for channels in values.values():
                    yield from channels


def _object(change: DatabaseChange, epoch: str, record: bytes, old_record: bytes, more: bytes) -> bytes:
    return (
        b'{"op":"%b","schema":%b,"table":%b,"record":%b,"old_record":%b%b,"commit_time":%b,"epoch":%b,"serial":%b}'
        % (
            change.op.encode(),
            json.encode(change.schema),
            json.encode(change.table),
            record,
            old_record,
            more,
            json.encode(change.commit_time),
            json.encode(epoch),
            json.encode(change.position),
        )
    )


def _text(row: Raw | None) -> bytes:
    return b"null" if row is None else bytes(row)


def _keys(change: DatabaseChange, key_columns: tuple[str, ...]) -> bytes:
    rows = _rows(change)
    row = rows[0] if rows else {}  # of an unreadable row nothing is shown
    return json.encode({column: row[column] for column in key_columns if column in row})


def _rows(change: DatabaseChange) -> list[_Row] | None:
    """The new and the old row by column, None when they cannot be read."""
    try:
        return [json.decode(row, type=_Row) for row in (change.record, change.old_record) if row is not None]
    except (DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _shown(rows: Iterable[_Row] | None, column: str) -> set[str] | None:
    """The texts a column shows in the rows: a string without its quotes, anything else as it stands in the JSON. None
    when that cannot be read.
    """
    if rows is None:
        return None
    raws = [bytes(row[column]) for row in rows if column in row]
    try:
        return {json.decode(raw, type=str) if raw.startswith(b'"') else raw.decode() for raw in raws}
    except (DecodeError, UnicodeDecodeError):
        return None
