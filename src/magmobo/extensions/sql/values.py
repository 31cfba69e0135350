"""Values of extensions as Postgres takes and gives them. Text format both ways.

What an extension passes:  null, bool; int as int4, int8 or numeric, whichever holds it; float as float8; text as what
the place asks for (a date, a uuid, a jsonb); bytes as bytea; a time as timestamptz; a map as jsonb; a list as an array
of its elements, or as jsonb when it holds maps or lists.
What it gets:  bool, ints and floats; numeric as int when it is one that 64 bits hold, else as the nearest float; json
as what it says; bytea as bytes; timestamptz as a time in UTC; arrays as lists; everything else as the text that
Postgres writes (a numeric to the last digit: `total::text`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from magmobo.extensions.sql.errors import ParameterRefused

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.adapt import AdaptersMap, Buffer

MAX_PARAMETERS = 1_000
_UNKNOWN, _BOOL, _BYTEA, _INT8, _INT4, _FLOAT8, _TIMESTAMPTZ, _NUMERIC, _JSONB = (
    0,
    16,
    17,
    20,
    23,
    701,
    1184,
    1700,
    3802,
)
_ARRAYS = {
    _BOOL: 1000, _BYTEA: 1001, _INT4: 1007, _INT8: 1016, _FLOAT8: 1022, _TIMESTAMPTZ: 1185, _NUMERIC: 1231,
}  # fmt: skip
_AS_TEXT = (
    "date", "time", "timetz", "timestamp", "interval", "uuid", "inet", "cidr", "record", "int4range", "int8range",
    "numrange", "daterange", "tsrange", "tstzrange", "int4multirange", "int8multirange", "nummultirange",
    "datemultirange", "tsmultirange", "tstzmultirange", "hstore",
)  # fmt: skip
_INT64 = 1 << 63


class Parameters(Struct, frozen=True):
    """Values and the oids of their types (0: as the place asks for), in order."""

    values: Sequence[bytes | None]
    types: Sequence[int]


def parameters(given: Sequence[Any]) -> Parameters:
    """What goes with a statement. Raises: ParameterRefused."""
    if len(given) > MAX_PARAMETERS:
        raise ParameterRefused(MAX_PARAMETERS + 1, f"at most {MAX_PARAMETERS} are taken")
    values: list[bytes | None] = []
    types: list[int] = []
    for place, value in enumerate(given, 1):
        oid, text = _parameter(place, value)
        if text is not None and "\0" in text:
            raise ParameterRefused(place, "text for Postgres cannot hold a NUL character")
        try:
            values.append(None if text is None else text.encode())
        except UnicodeEncodeError:
            raise ParameterRefused(place, "it is not valid text") from None
        types.append(oid)
    return Parameters(values, types)


def _parameter(place: int, value: Any) -> tuple[int, str | None]:
    if isinstance(value, list):
        return _list(place, value)
    if isinstance(value, Mapping):
        return _JSONB, _json(place, value)
    return _scalar(place, value)


def _scalar(place: int, value: Any) -> tuple[int, str | None]:
    match value:
        case None:
            return _UNKNOWN, None
        case bool():
            return _BOOL, "true" if value else "false"
        case int():
            return (_INT4 if -(1 << 31) <= value < 1 << 31 else _INT8 if -_INT64 <= value < _INT64 else _NUMERIC), str(
                value
            )
        case float():
            return _FLOAT8, repr(value)
        case str():
            return _UNKNOWN, value
        case bytes():
            return _BYTEA, "\\x" + value.hex()
        case datetime():
            return _TIMESTAMPTZ, (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
        case _:
            raise ParameterRefused(place, f"{type(value).__name__} is no value for Postgres")


def _list(place: int, items: list[Any]) -> tuple[int, str]:
    if any(isinstance(item, list | Mapping) for item in items):
        return _JSONB, _json(place, items)
    scalars = [_scalar(place, item) for item in items]
    kinds = {oid for oid, text in scalars if text is not None}
    if kinds <= {_INT4, _INT8, _NUMERIC, _FLOAT8} and kinds:
        kind = max(kinds, key=[_INT4, _INT8, _NUMERIC, _FLOAT8].index)
    elif len(kinds) <= 1:
        kind = next(iter(kinds), _UNKNOWN)
    else:
        raise ParameterRefused(place, "the elements of a list are of one kind")
    return _ARRAYS.get(kind, _UNKNOWN), "{" + ",".join(
        "NULL" if text is None else _quoted(text) for _, text in scalars
    ) + "}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json(place: int, value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterRefused(place, "it cannot be said in JSON") from error


# ---------------------------------------------------------------- the way back


class Context:
    """How results of one connection are read."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.connection, self.adapters = connection, _adapters()


@cache
def _adapters() -> AdaptersMap:
    import psycopg
    from psycopg.adapt import AdaptersMap, Loader
    from psycopg.types.string import TextLoader

    class Number(Loader):
        def load(self, data: Buffer) -> int | float:
            text = bytes(data)
            number = int(text) if text.lstrip(b"-").isdigit() and len(text) <= 20 else float(text)
            return number if isinstance(number, float) or -_INT64 <= number < _INT64 else float(number)

    class Json(Loader):
        def load(self, data: Buffer) -> Any:
            return msgspec.json.decode(bytes(data))

    class Moment(Loader):
        def load(self, data: Buffer) -> datetime | str:
            text = bytes(data).decode()
            try:
                return datetime.fromisoformat(text).astimezone(UTC)
            except (ValueError, OverflowError):
                return text  # infinity, or before the year 1 or past 9999

    adapters = AdaptersMap(psycopg.adapters)
    for name in _AS_TEXT:
        if adapters.types.get(name) is not None:
            adapters.register_loader(name, TextLoader)
    for name, loader in (("numeric", Number), ("json", Json), ("jsonb", Json), ("timestamptz", Moment)):
        adapters.register_loader(name, loader)
    return adapters
