"""Which settings give whoever sets them more than his role holds: those marked `ADMINS_ONLY`, and every secret.

A secret may refer to any file, variable or entry of the vault, and a connection string may carry what it refers to to
a server of somebody's choice. Boundary: compares and says; who may is for the gate, files are for who can write them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Set
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Meta, Struct

from magmobo.contracts.settings import AUTHORITY, CAPABILITY_MARK
from magmobo.kernel.config.keys import joined, steps
from magmobo.kernel.config.shapes import fields_of, holds_secret, inside, structure
from magmobo.kernel.config.source import Base, Runtime


def is_reserved(section: type[Struct], key: str) -> bool:
    """Whether `key` (relative to the section) is for admins: marked, inside of what is, or around something that is.

    A key that the section does not have is not; nobody can set it.
    """
    type_: Any = section
    for step in steps(key):
        type_ = inside(type_, step)
        if type_ is None:
            return False
        if _is_marked(type_):
            return True
    return _holds_reserved(type_)


def set_anew(before: Runtime, after: Runtime) -> Set[str]:
    """Keys of which something else is said at run time, or for another time; also where the same counts in the end."""
    said, says = (
        {(kind, key): (one.value, one.expires_at_s) for kind, settings in layers for key, one in settings.items()}
        for layers in (enumerate((runtime.overrides, runtime.patches)) for runtime in (before, after))
    )
    return frozenset(key for kind, key in said.keys() | says.keys() if said.get((kind, key)) != says.get((kind, key)))


def said_anew(before: Base, after: Base) -> Set[str]:
    """Keys of which something else is said below that, references as they are written."""
    return frozenset(_differences(before.values, after.values, ""))


def reserved(keys: Set[str], sections: Mapping[str, type[Struct]]) -> list[str]:
    """Those that are for admins, sorted."""
    found = []
    for key in keys:
        section, _, inner = key.partition(".")
        if section in sections and inner and is_reserved(sections[section], inner):
            found.append(key)
    return sorted(found)


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in before.keys() | after.keys():
        old, new, key = before.get(name), after.get(name), joined(prefix, name)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from _differences(_table(old), _table(new), key)
            old, new = (None if isinstance(value, Mapping) else value for value in (old, new))
        if old != new:
            yield key


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _holds_reserved(type_: Any) -> bool:
    kind, arguments = structure(type_)
    if kind is Struct:
        return any(_is_marked(field.type) or _holds_reserved(field.type) for field in fields_of(arguments[0]).values())
    return holds_secret(type_) or (kind in (list, dict) and _holds_reserved(arguments[-1]))


def _is_marked(type_: Any) -> bool:
    if get_origin(type_) is Annotated:
        inner, *notes = get_args(type_)
        said = [note.extra for note in notes if isinstance(note, Meta) and note.extra]
        return any(extra.get(CAPABILITY_MARK) == AUTHORITY for extra in said) or _is_marked(inner)
    if get_origin(type_) in (Union, types.UnionType):
        return any(_is_marked(option) for option in get_args(type_))
    return False
