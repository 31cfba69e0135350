"""What the types of settings are made of."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from magmobo.contracts.secret import Secret


@lru_cache(maxsize=1024)
def fields_of(struct: type[Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The fields of a Struct by the name they have in a file. Kept, because finding them takes 0.1 ms a class."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


class Shape(Struct, frozen=True):
    """A type, taken apart once. `kind` is Struct, list, dict or None for a single value; `struct` the class of a table
    with known keys, `inner` the shape of the items of a list or of the values of a table.
    """

    type: Any
    kind: Any
    struct: type[Struct] | None
    inner: Shape | None
    is_secret: bool


@lru_cache(maxsize=1024)
def shapes_of(struct: type[Struct]) -> Mapping[str, Shape]:
    """The shapes of the fields of a Struct by the name they have in a file."""
    return {name: shape_of(field.type) for name, field in fields_of(struct).items()}


def shape_of(type_: Any) -> Shape:
    """Taken apart down to the next Struct."""
    kind, arguments = structure(type_)
    if kind is Struct:
        return Shape(type_, Struct, arguments[0], None, False)
    inner = shape_of(arguments[-1]) if kind in (list, dict) else None
    return Shape(type_, kind, None, inner, kind is None and is_secret(type_))


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


def is_secret(type_: Any) -> bool:
    """Whether a type is `Secret`, or `Secret | None`."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return is_secret(arguments[0])
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not types.NoneType]
        return len(options) == 1 and is_secret(options[0])
    return type_ is Secret


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


def type_at(section: type[Struct], way: Sequence[str | int]) -> Any:
    """The type of what `way` leads to inside of a section, or None."""
    type_: Any = section
    for step in way:
        type_ = None if type_ is None else inside(type_, step)
    return type_
