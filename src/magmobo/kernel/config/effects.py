"""What it takes until a changed setting counts, by the marks that the sections carry.

Boundary: reads types only. Source of the marks: `contracts/settings.py`.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Meta, Struct

from magmobo.contracts.settings import MARK, Effect
from magmobo.kernel.config.keys import steps
from magmobo.kernel.config.shapes import inside


def effect_of(section: type[Struct], key: str, *, default: Effect) -> Effect:
    """The mark nearest to `key` (relative to the section: `jwt.secret`, `apps[0].secret`) on the way to it.

    default: for a key that neither carries a mark nor stands inside of something that does.
    """
    effect, type_ = default, section
    for step in steps(key):
        type_ = inside(type_, step)
        if type_ is None:
            break
        effect = _mark_of(type_) or effect
    return effect


def _mark_of(type_: Any) -> Effect | None:
    if get_origin(type_) is Annotated:
        inner, *notes = get_args(type_)
        # The last one stands farthest outside: `Annotated[Seconds, LIVE]` wins over what `Seconds` says itself.
        for note in reversed(notes):
            if isinstance(note, Meta) and note.extra and MARK in note.extra:
                return Effect(note.extra[MARK])
        return _mark_of(inner)
    if get_origin(type_) in (Union, types.UnionType):
        return next((mark for option in get_args(type_) if (mark := _mark_of(option))), None)
    return None
