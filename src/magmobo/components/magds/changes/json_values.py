"""Postgres text values as the JSON that the server's own `to_json` gives for them, so that REST and realtime agree.

The encoders expect the session settings of `stream.py`: DateStyle ISO, TimeZone UTC, IntervalStyle postgres,
bytea_output hex, shortest-exact floats, client_encoding UTF8. No value passes through a Python number or date.
Limit: a type of an extension that brings its own cast to json (hstore) is shown as text, not through the cast.
Source: json.c of Postgres (json_categorize_type, datum_to_json, JsonEncodeDateTime, composite_to_json).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.json import encode as _encode_json

Encoder = Callable[[bytes], bytes]


def text(value: bytes) -> bytes:
    """Any type that JSON has no form for: its text, quoted and escaped.

    A database in SQL_ASCII may hold bytes that are no UTF-8; they become U+FFFD instead of stopping the stream.
    """
    return _encode_json(str(value, "utf-8", "replace"))


def raw(value: bytes) -> bytes:
    """A value that is JSON already: json, jsonb, whole numbers."""
    return value


def inexact_number(value: bytes) -> bytes:
    """float and numeric; `NaN` and the infinities become strings, as JSON has no such numbers."""
    return b'"' + value + b'"' if value[-1:] in (b"N", b"y") else value


def boolean(value: bytes) -> bytes:
    """`t` or `f`."""
    return b"true" if value == b"t" else b"false"


def timestamp(value: bytes) -> bytes:
    """`2026-11-22 15:00:00` gets a T; `infinity` stays."""
    return b'"' + _with_t(value) + b'"'


def timestamptz(value: bytes) -> bytes:
    """Like `timestamp`, and the zone of a UTC session is written with minutes."""
    era = b""
    if value.endswith(b" BC"):
        value, era = value[:-3], b" BC"
    if value.endswith(b"+00"):
        value += b":00"
    return b'"' + _with_t(value) + era + b'"'


def _with_t(value: bytes) -> bytes:
    return value.replace(b" ", b"T", 1) if b"-" in value and b":" in value else value


BUILT_IN: Mapping[int, Encoder] = {
    16: boolean, 20: raw, 21: raw, 23: raw, 700: inexact_number, 701: inexact_number, 1700: inexact_number,
    114: raw, 3802: raw, 1114: timestamp, 1184: timestamptz,
}  # fmt: skip


class TypeFacts(Struct, frozen=True):
    """What the catalogue says about one type. `base_oid` of a domain, `element_oid` of a true array, `fields` of a
    composite; zero or empty when the type is something else.
    """

    base_oid: int = 0
    element_oid: int = 0
    delimiter: str = ","
    fields: tuple[tuple[str, int], ...] = ()


def make_encoder(type_oid: int, facts: Mapping[int, TypeFacts], depth: int = 0) -> Encoder:
    """The encoder of a type; what is unknown, or nested deeper than 16, is shown as text."""
    if built_in := BUILT_IN.get(type_oid):
        return built_in
    known = facts.get(type_oid)
    if known is None or depth > 16:
        return text
    if known.base_oid:
        return make_encoder(known.base_oid, facts, depth + 1)
    if known.element_oid:
        return array_encoder(make_encoder(known.element_oid, facts, depth + 1), known.delimiter)
    if known.fields:
        return composite_encoder([(name, make_encoder(oid, facts, depth + 1)) for name, oid in known.fields])
    return text


_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def array_encoder(element: Encoder, delimiter: str = ",") -> Encoder:
    """Encoder of arrays, nested ones included: `{1,NULL}` -> `[1,null]`. Lower bounds are left out, as in to_json."""
    d = re.escape(delimiter.encode())
    tokens = re.compile(rb'([{}])|"([^"\\]*(?:\\.[^"\\]*)*)"|(' + d + rb')|([^{}"' + d + rb"]+)", re.DOTALL)

    def encode(value: bytes) -> bytes:
        if value[:1] == b"[":  # bounds: [0:1]={…}
            value = value[value.index(b"=") + 1 :]
        out: list[bytes] = []
        for brace, quoted, comma, bare in tokens.findall(value):
            if brace:
                out.append(b"[" if brace == b"{" else b"]")
            elif comma:
                out.append(b",")
            elif bare:
                out.append(b"null" if bare == b"NULL" else element(bare))
            else:
                out.append(element(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted))
        return b"".join(out)

    return encode


_FIELD = re.compile(rb'"([^"\\]*(?:(?:""|\\.)[^"\\]*)*)"|([^,()"]*)', re.DOTALL)


def composite_encoder(fields: Sequence[tuple[str, Encoder]]) -> Encoder:
    """Encoder of a composite: `(1,"a b",)` -> `{"x":1,"y":"a b","z":null}`."""
    names = [_encode_json(name) + b":" for name, _ in fields]
    encoders = [encoder for _, encoder in fields]

    def encode(value: bytes) -> bytes:
        parts: list[bytes] = []
        offset = 1
        for name, encoder in zip(names, encoders, strict=True):
            match = _FIELD.match(value, offset)
            if match is None or offset >= len(value):  # the type changed since: its text is still true
                return text(value)
            quoted, bare = match.groups()
            if quoted is not None:
                quoted = quoted.replace(b'""', b'"').replace(b"\\\\", b"\\")
                parts.append(name + encoder(quoted))
            else:
                parts.append(name + (encoder(bare) if bare else b"null"))
            offset = match.end() + 1
        return b"{" + b",".join(parts) + b"}" if offset == len(value) else text(value)

    return encode
