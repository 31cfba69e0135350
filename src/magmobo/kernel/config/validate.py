"""Checks sections field by field, so that a user sees all mistakes at once and no secret.

msgspec is quick and stops at the first error; so a section is handed to it whole first, and walked value by value only
when it is refused. Invariant: a value is shown only when it is a plain scalar of a field that neither is nor sounds
secret, and when no secret of this configuration is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.keys import joined
from magmobo.kernel.config.layers import Text
from magmobo.kernel.config.problems import Problems
from magmobo.kernel.config.shapes import Shape, fields_of, shapes_of

if TYPE_CHECKING:
    from magmobo.kernel.config.secret_text import Followed, Reference

Resolve = Callable[["Reference", str], str]


def decode_special(type_: type, value: Any) -> Any:
    """Builds the types that msgspec does not know from what a file can hold. Raises: NotImplementedError for others."""
    if type_ is Secret and isinstance(value, (str, Secret)):
        return value if isinstance(value, Secret) else Secret(value)
    if issubclass(type_, Path) and isinstance(value, (str, Path)):
        return type_(value)
    if type_ in (Secret, Path):
        raise ValueError("expected text")
    raise NotImplementedError(f"a setting of type {type_.__name__}")


class Checker:
    """Builds sections and collects problems.

    Args:
        origins: a setting's path -> who set it.
        resolve: what a reference leads to, for a setting. Raises: ReferenceFailed.
    """

    def __init__(self, origins: Mapping[str, str], resolve: Resolve | None = None) -> None:
        self._resolve = resolve
        self._followed: dict[str, Followed] = {}
        self._found = Problems(origins)
        self._is_careful = False
        self.references: dict[str, str] = {}

    def problems(self) -> list[str]:
        """Everything that is wrong so far, sorted."""
        return self._found.texts()

    def unknown_section(self, name: str, known: Collection[str]) -> None:
        """Note a section that nobody declared."""
        self._found.unknown(name, f'unknown section "{name}"', name, known)

    def build(self, section: type[Struct], value: Any, path: str) -> Struct | None:
        """The section made of `value`, or None after noting at least one problem."""
        before = self._found.count
        self._is_careful = False
        prepared = self._struct(section, value, path)
        try:
            if self._found.count == before:
                return msgspec.convert(prepared, section, dec_hook=decode_special)
            reason = ""
        except msgspec.ValidationError as error:
            reason = str(error)
        self._found.cut(before)
        self._is_careful = True
        self._struct(section, value, path)
        if self._found.count == before:
            # Only what spans several values gets here: lengths of lists, and a section's own `__post_init__`.
            text, _, where = reason.partition(" - at `$")
            self._found.refused(f"{path}{where.rstrip('`')}", f"{text[:1].lower()}{text[1:]}")
        return None

    def _struct(self, struct: type[Struct], value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self._found.note(path, f"{path}: expected a table")
            return value
        shapes = shapes_of(struct)
        prepared: dict[str, Any] = {}
        for key, item in value.items():
            inner = joined(path, str(key))
            if shape := shapes.get(key):
                prepared[key] = self._value(shape, item, inner)
            else:
                self._found.unknown(inner, f"{inner} is unknown", str(key), shapes)
        for name, field in fields_of(struct).items():
            if field.required and name not in value:
                self._found.missing(path, joined(path, name), field.type)
        return prepared

    def _value(self, shape: Shape, value: Any, path: str) -> Any:
        """`value` ready for msgspec; notes what is wrong with it."""
        if isinstance(value, Text) and shape.kind in (list, dict, Struct):
            value = _from_text(shape, value)
        if shape.struct is not None and isinstance(value, Mapping):
            return self._struct(shape.struct, value, path)
        if shape.inner is not None and shape.kind is list and isinstance(value, (list, tuple)):
            return [self._value(shape.inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
        if shape.inner is not None and shape.kind is dict and isinstance(value, Mapping):
            return {key: self._value(shape.inner, item, joined(path, str(key))) for key, item in value.items()}
        return self._leaf(shape, value, path)

    def _leaf(self, shape: Shape, value: Any, path: str) -> Any:
        if shape.is_secret and isinstance(value, str):
            return self._secret(value, path)
        is_text = isinstance(value, Text)
        if not (is_text or self._is_careful):
            return value
        plain = str(value) if is_text else value
        try:
            converted = msgspec.convert(plain, shape.type, strict=not is_text, dec_hook=decode_special)
        except (msgspec.ValidationError, ValueError, TypeError):
            self._found.wrong(path, plain, shape.type)
            return plain
        if is_text and (converted is None or isinstance(converted, (bool, int, float))):
            return converted
        return plain

    def _secret(self, text: str, path: str) -> str:
        """The secret that `text` is, or refers to."""
        self._found.hide(text)
        if self._resolve is None or ":" not in text:  # every reference has one
            return str(text)
        from magmobo.kernel.config.secret_text import follow

        if path not in self._followed:
            followed = follow(text, self._found.origin(path), partial(self._led_to, path=path))
            self._followed[path] = followed
            self._found.hide(followed.text)
            if followed.references:
                self.references[path] = ", ".join(str(reference) for reference in followed.references)
        followed = self._followed[path]
        for problem in followed.problems:
            self._found.note(path, f"{path}: {problem}")
        return followed.text

    def _led_to(self, reference: Reference, *, path: str) -> str:
        secret = self._resolve(reference, path) if self._resolve else ""
        self._found.hide(secret)
        return secret


def _from_text(shape: Shape, text: Text) -> Any:
    """A list or table written as text: JSON, or for a list also `a,b,c`."""
    stripped = text.strip()
    if shape.kind is list and not stripped.startswith("["):
        return [Text(part.strip()) for part in stripped.split(",") if part.strip()]
    import json

    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        return text
