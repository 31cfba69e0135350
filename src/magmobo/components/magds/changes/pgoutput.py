"""Decoder of the logical replication protocol, version 1: one message of bytes in, one typed message out. No I/O.

It keeps no state: a row message names its relation by oid, and who feeds it remembers the Relation messages.
Invariant: any input gives a message or a DecodeError, in time linear in its size.
Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from magmobo.components.magds.changes.errors import DecodeError


class Unchanged(Enum):
    """A large value stored out of line that the update did not touch: the log does not hold it."""

    UNCHANGED = "u"


UNCHANGED = Unchanged.UNCHANGED
Value = bytes | None | Unchanged


class Begin(Struct, frozen=True, gc=False):
    """A transaction follows. `commit_lsn` is where its commit record starts, `time_us` counts from 2000-01-01 UTC."""

    commit_lsn: int
    time_us: int
    xid: int


class Commit(Struct, frozen=True, gc=False):
    """The transaction is complete; its commit record ends at `end_lsn`."""

    commit_lsn: int
    end_lsn: int
    time_us: int


class Column(Struct, frozen=True, gc=False):
    """One column of a relation. `key`: it belongs to the replica identity."""

    name: str
    type_oid: int
    type_modifier: int
    key: bool


class Relation(Struct, frozen=True, gc=False):
    """How the rows that follow are laid out. `identity` is d, n, f or i, as in pg_class.relreplident."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


class TypeName(Struct, frozen=True, gc=False):
    """Name of a type that is not built in."""

    oid: int
    schema: str
    name: str


class Origin(Struct, frozen=True, gc=False):
    """Where a replicated transaction came from."""

    commit_lsn: int
    name: str


class Insert(Struct, frozen=True, gc=False):
    """A new row."""

    relation_oid: int
    new: list[Value]


class Update(Struct, frozen=True, gc=False):
    """A changed row. `old` is present when the key changed or the identity is full; `old_is_key` tells which."""

    relation_oid: int
    new: list[Value]
    old: list[Value] | None
    old_is_key: bool


class Delete(Struct, frozen=True, gc=False):
    """A removed row: its key columns (the others are None), or all of it."""

    relation_oid: int
    old: list[Value]
    old_is_key: bool


class Truncate(Struct, frozen=True, gc=False):
    """Several relations emptied by one statement."""

    relation_oids: tuple[int, ...]


class LogicalMessage(Struct, frozen=True, gc=False):
    """Bytes somebody wrote to the log with pg_logical_emit_message."""

    transactional: bool
    prefix: str
    content: bytes


Message = (
    Begin | Commit | Relation | TypeName | Origin | Insert | Update | Delete | Truncate | LogicalMessage
)  # fmt: skip

_U16 = struct.Struct("!H").unpack_from
_U32 = struct.Struct("!I").unpack_from
_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")
_TEXT, _NULL, _UNCHANGED = ord("t"), ord("n"), ord("u")
_NEW, _KEY, _OLD = ord("N"), ord("K"), ord("O")


def decode(data: bytes) -> Message:
    """Decode one message, the bytes behind an XLogData header.

    Raises: DecodeError for anything that is not exactly one message of protocol version 1.
    """
    reader = _READERS.get(data[:1])
    if reader is None:
        raise DecodeError(f"unknown message type {data[:1]!r}")
    try:
        message, end = reader(data)
    except (IndexError, ValueError, struct.error) as error:  # past the end, no end of a string, not UTF-8
        raise DecodeError(f"message {data[:1]!r} of {len(data)} bytes: {error}") from error
    if end != len(data):
        raise DecodeError(f"message {data[:1]!r} of {len(data)} bytes ends at {end}")
    return message


def _begin(data: bytes) -> tuple[Message, int]:
    return Begin(*_BEGIN.unpack_from(data, 1)), 1 + _BEGIN.size


def _commit(data: bytes) -> tuple[Message, int]:
    _flags, commit_lsn, end_lsn, time_us = _COMMIT.unpack_from(data, 1)
    return Commit(commit_lsn, end_lsn, time_us), 1 + _COMMIT.size


def _relation(data: bytes) -> tuple[Message, int]:
    (oid,) = _U32(data, 1)
    schema, offset = _string(data, 5)
    name, offset = _string(data, offset)
    identity = chr(data[offset])
    (count,) = _U16(data, offset + 1)
    offset += 3
    columns = []
    for _ in range(count):
        key = data[offset] & 1 == 1
        column, offset = _string(data, offset + 1)
        type_oid, modifier = struct.unpack_from("!Ii", data, offset)
        columns.append(Column(column, type_oid, modifier, key))
        offset += 8
    # An empty schema name is how the protocol spells pg_catalog.
    return Relation(oid, schema or "pg_catalog", name, identity, tuple(columns)), offset


def _type_name(data: bytes) -> tuple[Message, int]:
    (oid,) = _U32(data, 1)
    schema, offset = _string(data, 5)
    name, offset = _string(data, offset)
    return TypeName(oid, schema or "pg_catalog", name), offset


def _origin(data: bytes) -> tuple[Message, int]:
    (commit_lsn,) = struct.unpack_from("!Q", data, 1)
    name, offset = _string(data, 9)
    return Origin(commit_lsn, name), offset


def _insert(data: bytes) -> tuple[Message, int]:
    if data[5] != _NEW:
        raise DecodeError("an insert without its row")
    new, offset = _row(data, 6)
    return Insert(_U32(data, 1)[0], new), offset


def _update(data: bytes) -> tuple[Message, int]:
    old, kind, offset = None, data[5], 5
    if kind in (_KEY, _OLD):
        old, offset = _row(data, 6)
    if data[offset] != _NEW:
        raise DecodeError("an update without its new row")
    new, offset = _row(data, offset + 1)
    return Update(_U32(data, 1)[0], new, old, kind == _KEY), offset


def _delete(data: bytes) -> tuple[Message, int]:
    if data[5] not in (_KEY, _OLD):
        raise DecodeError("a delete without its old row")
    old, offset = _row(data, 6)
    return Delete(_U32(data, 1)[0], old, data[5] == _KEY), offset


def _truncate(data: bytes) -> tuple[Message, int]:
    (count,) = _U32(data, 1)
    end = 6 + 4 * count
    if end > len(data):
        raise DecodeError(f"a truncate of {count} relations in {len(data)} bytes")
    return Truncate(struct.unpack_from(f"!{count}I", data, 6)), end


def _logical_message(data: bytes) -> tuple[Message, int]:
    prefix, offset = _string(data, 10)
    (size_bytes,) = _U32(data, offset)
    start = offset + 4
    end = start + size_bytes
    return LogicalMessage(data[1] & 1 == 1, prefix, data[start:end]), end


def _string(data: bytes, offset: int) -> tuple[str, int]:
    end = data.index(0, offset)
    return str(data[offset:end], "utf-8"), end + 1


def _row(data: bytes, offset: int) -> tuple[list[Value], int]:
    (count,) = _U16(data, offset)
    offset += 2
    values: list[Value] = []
    for _ in range(count):
        kind = data[offset]
        if kind == _TEXT:
            start = offset + 5
            offset = start + _U32(data, offset + 1)[0]
            values.append(data[start:offset])
        elif kind == _NULL:
            offset += 1
            values.append(None)
        elif kind == _UNCHANGED:
            offset += 1
            values.append(UNCHANGED)
        else:
            raise DecodeError(f"unknown kind of value {kind}")
    if offset > len(data):  # a slice past the end is silently short
        raise DecodeError(f"a value ends at {offset} in {len(data)} bytes")
    return values, offset


_READERS: dict[bytes, Callable[[bytes], tuple[Message, int]]] = {
    b"B": _begin, b"C": _commit, b"R": _relation, b"Y": _type_name, b"O": _origin, b"I": _insert,
    b"U": _update, b"D": _delete, b"T": _truncate, b"M": _logical_message,
}  # fmt: skip
