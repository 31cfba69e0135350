"""The decoder: what the documentation shows decodes, and any other bytes are a DecodeError."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.components.magds.changes.errors import DecodeError
from magmobo.components.magds.changes.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    Truncate,
    TypeName,
    Update,
    Value,
    decode,
)

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
ROW = st.lists(st.none() | st.just(UNCHANGED) | st.binary(max_size=40), max_size=8)
COLUMN = st.builds(Column, NAME, U32, st.integers(-(2**31), 2**31 - 1), st.booleans())
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, U64, I64, U32),
    st.builds(Commit, U64, U64, I64),
    st.builds(Relation, U32, NAME, NAME, st.sampled_from("dnfi"), st.lists(COLUMN, max_size=5).map(tuple)),
    st.builds(TypeName, U32, NAME, NAME),
    st.builds(Origin, U64, NAME),
    st.builds(Insert, U32, ROW),
    st.builds(Update, U32, ROW, ROW, st.booleans()),
    st.builds(Update, U32, ROW, st.none(), st.just(False)),
    st.builds(Delete, U32, ROW, st.booleans()),
    st.builds(Truncate, st.lists(U32, max_size=5).map(tuple)),
    st.builds(LogicalMessage, st.booleans(), NAME, st.binary(max_size=30)),
)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def row(values: list[Value]) -> bytes:
    out = struct.pack("!H", len(values))
    for value in values:
        if isinstance(value, bytes):
            out += b"t" + struct.pack("!I", len(value)) + value
        else:
            out += b"n" if value is None else b"u"
    return out


def encode(message: Message) -> bytes:
    """The reverse of `decode`, written from the documentation."""
    match message:
        case Begin(lsn, time_us, xid):
            return b"B" + struct.pack("!QqI", lsn, time_us, xid)
        case Commit(lsn, end, time_us):
            return b"C\0" + struct.pack("!QQq", lsn, end, time_us)
        case Relation(oid, schema, name, identity, columns):
            head = b"R" + struct.pack("!I", oid) + text(schema) + text(name) + identity.encode()
            body = [bytes([c.key]) + text(c.name) + struct.pack("!Ii", c.type_oid, c.type_modifier) for c in columns]
            return head + struct.pack("!H", len(columns)) + b"".join(body)
        case TypeName(oid, schema, name):
            return b"Y" + struct.pack("!I", oid) + text(schema) + text(name)
        case Origin(lsn, name):
            return b"O" + struct.pack("!Q", lsn) + text(name)
        case Insert(oid, new):
            return b"I" + struct.pack("!I", oid) + b"N" + row(new)
        case Update(oid, new, old, old_is_key):
            before = b"" if old is None else (b"K" if old_is_key else b"O") + row(old)
            return b"U" + struct.pack("!I", oid) + before + b"N" + row(new)
        case Delete(oid, old, old_is_key):
            return b"D" + struct.pack("!I", oid) + (b"K" if old_is_key else b"O") + row(old)
        case Truncate(oids):
            return b"T" + struct.pack(f"!IB{len(oids)}I", len(oids), 0, *oids)
        case LogicalMessage(transactional, prefix, content):
            head = b"M" + bytes([transactional]) + struct.pack("!Q", 7) + text(prefix)
            return head + struct.pack("!I", len(content)) + content
    raise AssertionError(message)


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES, st.data())
def test_a_cut_or_lengthened_message_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        decode(whole[:cut])
    with pytest.raises(DecodeError):
        decode(whole + b"\0")


@given(
    st.binary(max_size=200) | st.builds(bytes.__add__, st.sampled_from([b"%c" % c for c in b"BCRYOIUDTM"]), st.binary())
)
@example(b"I\0\0\0\1N\xff\xffn")
@example(b"I\0\0\0\1N\0\1t\xff\xff\xff\xff")
@example(b"T\xff\xff\xff\xff\0")
@example(b"R\0\0\0\1a\0b\0d\xff\xff")
def test_any_bytes_give_a_message_or_a_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        decode(data)


@given(MESSAGES, st.data())
def test_a_flipped_byte_never_does_more_than_that(message: Message, data: st.DataObject) -> None:
    broken = bytearray(encode(message))
    broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        decode(bytes(broken))
