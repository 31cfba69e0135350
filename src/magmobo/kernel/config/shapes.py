"""What the types of settings are made of, and how a setting inside of them is named.

A key is the names on the way to it, joined by dots, with `[0]` for an item of a list: `jwt.secret`, `apps[0].secret`.
A name of another form than a bare key of TOML stands in quotes: `labels."a.b"`.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from magmobo.contracts.secret import Secret

_BARE = re.compile(r"[A-Za-z0-9_-]+(?![\s\S])")
_STEP = re.compile(r'"((?:[^"\\]|\\.)*)"|\[(\d+)\]|([^.\["]+)')


@lru_cache(maxsize=1024)
def fields_of(struct: type[Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The fields of a Struct by the name they have in a file. Kept, because finding them takes 0.1 ms a class."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def structure(type_: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type is made of: (Struct, (class,)), (list, (item,)), (dict, (key, item)) or (None, ()) for a single
    value. `X | None` counts as X.
    """
    if get_origin(type_) is Annotated:
        return structure(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        options = [option for option in get_args(type_) if option is not types.NoneType]
        return structure(options[0]) if len(options) == 1 else (None, ())
    if isinstance(type_, type) and issubclass(type_, Struct):
        return Struct, (type_,)
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (list, Sequence, set, frozenset) and len(arguments) == 1:
        return list, arguments
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return list, arguments[:1]
    if origin in (dict, Mapping) and len(arguments) == 2:
        return dict, arguments
    return None, ()


def holds_secret(type_: Any) -> bool:
    """Whether a `Secret` occurs anywhere in a type."""
    if isinstance(type_, type) and issubclass(type_, Struct):
        return any(holds_secret(field.type) for field in fields_of(type_).values())
    return type_ is Secret or any(holds_secret(argument) for argument in get_args(type_))


def inside(type_: Any, step: str | int) -> Any:
    """The type of what `step` (a name, or the index of an item) leads to inside of `type_`, or None."""
    shape, arguments = structure(type_)
    if isinstance(step, int):
        return arguments[0] if shape is list else None
    if shape is Struct:
        field = fields_of(arguments[0]).get(step)
        return field and field.type
    return arguments[1] if shape is dict else None


def joined(path: str, name: str) -> str:
    """The key of `name` inside of `path`, which may be empty."""
    spelled = name if name.isidentifier() or _BARE.match(name) else json.dumps(name, ensure_ascii=False)
    return f"{path}.{spelled}" if path else spelled


def steps(key: str) -> list[str | int]:
    """The names and indexes that a key is made of, from the outside."""
    return [int(index) if index else name or json.loads(f'"{quoted}"') for quoted, index, name in _STEP.findall(key)]


def around(key: str) -> str:
    """The key of the table or list that `key` stands in; empty for a section."""
    ends = [match.start() for match in _STEP.finditer(key)]
    return key[: ends[-1]].removesuffix(".") if ends else ""
