"""JSON text to a Struct, with every mistake at once: where it is, what was expected, what was perhaps meant.

msgspec stops at the first mistake; so when a value does not convert as a whole, its parts are converted one by one.
Boundary: shapes alone, of any Struct. Invariant: bounded by the size of the text; nothing is evaluated or fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec import inspect as shape
from msgspec.structs import fields

from magmobo.extensions.package.errors import Problem

S = TypeVar("S", bound=Struct)
MAX_DEPTH = 32
MAX_PROBLEMS = 100
_PLACE = " - at `"
_TEXT_END = r"(?![\s\S])"
_LINES = ("$.description",)
"""Where a text may have several lines."""


def parse_json(data: bytes, max_bytes: int) -> tuple[Any, list[Problem]]:
    """The value of a JSON text without doubled keys, unprintable characters or more levels than anybody writes; or the
    problems that it has.
    """
    if len(data) > max_bytes:
        return None, [Problem("$", f"it has {len(data)} bytes, at most {max_bytes} are allowed")]
    try:
        value = msgspec.json.decode(data)
        doubled: list[str] = []
        json.loads(data, object_pairs_hook=lambda pairs: _without_doubles(pairs, doubled))
    except (msgspec.DecodeError, ValueError) as error:
        return None, [Problem("$", f"this is not JSON: {_first_line(error)}")]
    except RecursionError:
        return None, [Problem("$", f"it is nested deeper than {MAX_DEPTH} levels")]
    problems = [Problem("$", f"the key {key[:60]!r} stands twice in one object") for key in doubled]
    return value, [*problems, *_text_problems(value, "$", 0)]


def convert_whole(value: Any, type_: type[S]) -> tuple[S | None, list[Problem]]:
    """`value` as a Struct, or everything that keeps it from being one."""
    try:
        return msgspec.convert(value, type_), []
    except msgspec.ValidationError:
        return None, list(islice(_problems(value, type_, "$"), MAX_PROBLEMS))


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean …?`, or nothing."""
    close = get_close_matches(word[:100], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _problems(value: Any, type_: Any, path: str) -> Iterator[Problem]:
    """What keeps `value` from being a `type_`; at least one."""
    described = shape.type_info(type_)
    if isinstance(described, shape.StructType) and isinstance(value, dict):
        found = list(islice(_struct_problems(value, described.cls, path), MAX_PROBLEMS))
    elif isinstance(described, shape.CollectionType) and isinstance(value, list):
        found = list(islice(_list_problems(value, described, path), MAX_PROBLEMS))
    else:
        found = []
    if found:
        yield from found
        return
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        said, _, below = str(error).replace(repr(_TEXT_END)[1:-1], "$").partition(_PLACE)
        yield Problem(path + below.rstrip("`").removeprefix("$"), said[:1].lower() + said[1:])


def _struct_problems(value: Mapping[str, Any], cls: type[Struct], path: str) -> Iterator[Problem]:
    known = {field.encode_name: field for field in fields(cls)}
    for name in value.keys() - known.keys():
        yield Problem(path, f"there is no field {name[:60]!r}{did_you_mean(name, known)}")
    for name, field in known.items():
        if name in value:
            yield from _own_problems(value[name], field.type, f"{path}.{name}")
        elif field.required:
            yield Problem(path, f"the field {name!r} is missing")


def _list_problems(value: list[Any], described: Any, path: str) -> Iterator[Problem]:
    item = described.item_type
    if isinstance(item, shape.StructType):
        for place, one in enumerate(value):
            yield from _own_problems(one, item.cls, f"{path}[{place}]")


def _own_problems(value: Any, type_: Any, path: str) -> Iterator[Problem]:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        yield from _problems(value, type_, path)


def _without_doubles(pairs: list[tuple[str, Any]], doubled: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            doubled.append(key)
        found[key] = value
    return found


def _text_problems(value: Any, path: str, depth: int) -> Iterator[Problem]:
    """Characters that would show something else than they are, to whoever reads before approving."""
    if depth > MAX_DEPTH:
        yield Problem("$", f"it is nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, str):
        if not (value.replace("\n", " ") if path in _LINES else value).isprintable():
            yield Problem(path, "it holds control or invisible characters")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not key.isprintable():
                yield Problem(path, "a key holds control or invisible characters")
            yield from _text_problems(inner, f"{path}.{key if key.isprintable() else '?'}"[:200], depth + 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _text_problems(inner, f"{path}[{place}]"[:200], depth + 1)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["it cannot be read"])[0][:200]
