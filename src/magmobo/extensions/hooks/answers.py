"""What a hook may answer at a point: some of the mutable fields, each of its type, and nothing else.

Boundary: no policy. Invariant: whatever an extension answers, the other fields of the context stay as they were.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType, structs

from magmobo.contracts.hooks import HookContext, HookSpec

C = TypeVar("C", bound=HookContext)
_NOTHING = (b"\xc0", b"\x80")  # nil, and a map without entries
_REASON_CHARS = 300


class BadAnswer(Exception):
    """The answer is not one; the text says why."""


class Answers:
    """Reads answers at one point."""

    def __init__(self, spec: HookSpec) -> None:
        types = {field.name: field.type for field in structs.fields(spec.context)}
        changes = msgspec.defstruct(
            "Changes",
            [(name, types[name] | UnsetType, UNSET) for name in spec.mutable],
            frozen=True,
            forbid_unknown_fields=True,
        )
        self._changes = msgspec.msgpack.Decoder(changes)
        self._mutable = spec.mutable

    def apply(self, context: C, answer: Raw) -> C:
        """The context with what the answer changes, the same object when nothing. Raises: BadAnswer."""
        packed = bytes(answer)
        if packed in _NOTHING:
            return context
        try:
            changes = self._changes.decode(packed)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise BadAnswer(str(error)[:_REASON_CHARS]) from error
        asked = {name: getattr(changes, name) for name in self._mutable if getattr(changes, name) is not UNSET}
        return structs.replace(context, **asked) if asked else context

    @staticmethod
    def mapping(answer: Raw) -> dict[str, Any] | None:
        """The answer as a map of whatever it holds; None when it says nothing. Raises: BadAnswer."""
        if bytes(answer) == _NOTHING[0]:
            return None
        try:
            return msgspec.msgpack.decode(answer, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise BadAnswer(str(error)[:_REASON_CHARS]) from error
