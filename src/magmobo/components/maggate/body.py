"""The JSON body of a write: its keys are read, its values pass to Postgres as they came. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from magmobo.components.maggate.errors import InvalidBody

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[dict[str, Raw]])
_MISMATCH = "All object keys must match"


class Rows(Struct, frozen=True):
    """What a body holds: `count` objects with these keys."""

    keys: tuple[str, ...]
    is_array: bool
    count: int


def read_rows(body: bytes, *, array_allowed: bool, same_keys: bool = True) -> Rows:
    """Look into a body. Values stay undecoded.

    Raises: InvalidBody when it is not JSON, not an object (or, where allowed, an array of objects), or when the keys of
    its objects differ and `same_keys` asks for them.
    """
    if b"\0" in body:
        raise InvalidBody("the body holds a zero byte")
    is_array = body.lstrip(b" \t\r\n").startswith(b"[")
    if is_array and not array_allowed:
        raise InvalidBody("expected one JSON object, not an array")
    if not is_array:
        return Rows(tuple(_decode(_OBJECT, body)), False, 1)
    rows: list[dict[str, Raw]] = _decode(_ARRAY, body)
    keys = rows[0].keys() if rows else set[str]()
    if same_keys and any(row.keys() != keys for row in rows):
        raise InvalidBody(_MISMATCH)
    return Rows(tuple(keys), True, len(rows))


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    if not body.strip():
        raise InvalidBody("the body is empty; expected JSON")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidBody(f"the JSON has another shape: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidBody("the JSON is nested too deeply") from error
