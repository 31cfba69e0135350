"""What a setting accepts, in words a user of TOML understands."""

from __future__ import annotations

import types
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret

_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    Secret: "text (a secret)",
    types.NoneType: "nothing",
}
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("multiple_of", "a multiple of"))


def expectation(type_: Any) -> str:
    """Words for a type, for example `a whole number, >= 0 and <= 65535`."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        limits = [limit for meta in arguments[1:] if isinstance(meta, Meta) for limit in _limits(meta)]
        return ", ".join([expectation(arguments[0]), *([" and ".join(limits)] if limits else [])])
    if origin in (Union, types.UnionType):
        return " or ".join(expectation(option) for option in arguments if option is not types.NoneType)
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in arguments)
    if isinstance(type_, type) and issubclass(type_, Enum):
        return "one of " + ", ".join(f'"{member.value}"' for member in type_)
    if isinstance(type_, type) and issubclass(type_, Struct):
        return "a table"
    if origin is dict or type_ is dict:
        return "a table"
    if origin is not None and arguments:
        return f"a list, each item {expectation(arguments[0])}"
    return _NAMES.get(type_, getattr(type_, "__name__", str(type_)))


def _limits(meta: Meta) -> list[str]:
    limits = [f"{sign} {getattr(meta, name)}" for name, sign in _BOUNDS if getattr(meta, name) is not None]
    if meta.pattern is not None:
        limits.append(f"of the form {meta.pattern}")
    if meta.min_length is not None:
        limits.append(f"at least {meta.min_length} long")
    if meta.max_length is not None:
        limits.append(f"at most {meta.max_length} long")
    return limits
