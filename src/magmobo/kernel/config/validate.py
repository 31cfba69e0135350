"""Checks one section field by field, so that a user sees all mistakes at once and no secret.

msgspec stops at the first error; this walks Structs, lists and tables itself and leaves single values to msgspec.
Invariant: a value is shown only when it is a plain scalar of a field that neither is nor sounds secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from magmobo.contracts.secret import Secret
from magmobo.kernel.config.expected import expectation
from magmobo.kernel.config.layers import Text
from magmobo.kernel.config.shapes import fields_of, holds_secret, structure

_SENSITIVE = r"(?i)pass(word|wd|phrase)?|secret|token|credential|authorization|private|key|dsn"
_USERINFO = r"(://[^\s:/@]*):\S*@"
_SHOWN_CHARS = 80


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
    """Builds sections and collects problems. `origins` maps a setting's path to who set it."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self._origins = origins
        self.problems: list[str] = []

    def problem(self, path: str, text: str) -> None:
        """Note `text`, with the origin of `path` when it is known."""
        origin = self._origin(path)
        self.problems.append(f"{text} ({origin})" if origin else text)

    def build(self, section: type[Struct], value: Any, path: str) -> Struct | None:
        """The section made of `value`, or None after noting at least one problem."""
        before = len(self.problems)
        prepared = self._struct(section, value, path)
        if len(self.problems) > before:
            return None
        try:
            return msgspec.convert(prepared, section, dec_hook=decode_special)
        except msgspec.ValidationError as error:
            # Only what spans several values gets here: lengths of lists, and a section's own `__post_init__`.
            text, _, where = str(error).partition(" - at `$")
            self.problem(path, f"{path}{where.rstrip('`')}: {text[:1].lower()}{text[1:]}")
            return None

    def _struct(self, struct: type[Struct], value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            self.problem(path, f"{path}: expected a table")
            return value
        fields = fields_of(struct)
        prepared: dict[str, Any] = {}
        for key, item in value.items():
            if field := fields.get(key):
                prepared[key] = self._value(field.type, item, f"{path}.{key}")
            else:
                self._unknown(str(key), fields.keys(), path)
        for name, field in fields.items():
            if field.required and name not in value:
                self.problem(path, f"{path}.{name} is not set: expected {expectation(field.type)}")
        return prepared

    def _unknown(self, key: str, known: Any, path: str) -> None:
        import difflib  # for slips of the keyboard

        near = difflib.get_close_matches(key, known, n=1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(known))}"
        self.problem(f"{path}.{key}", f"{path}.{key} is unknown{hint}")

    def _value(self, type_: Any, value: Any, path: str) -> Any:
        """`value` ready for msgspec; notes what is wrong with it."""
        shape, arguments = structure(type_)
        if isinstance(value, Text) and shape in (list, dict, Struct):
            value = self._from_text(shape, value, path, type_)
        if shape is Struct and isinstance(value, Mapping):
            return self._struct(arguments[0], value, path)
        if shape is list and isinstance(value, (list, tuple)):
            return [self._value(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value)]
        if shape is dict and isinstance(value, Mapping):
            return {key: self._value(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
        return self._leaf(type_, value, path)

    def _from_text(self, shape: type, text: Text, path: str, type_: Any) -> Any:
        """A list or table written as text: JSON, or for a list also `a,b,c`."""
        stripped = text.strip()
        if shape is list and not stripped.startswith("["):
            return [Text(part.strip()) for part in stripped.split(",") if part.strip()]
        import json

        try:
            return json.loads(stripped)
        except (ValueError, RecursionError):
            return text

    def _leaf(self, type_: Any, value: Any, path: str) -> Any:
        is_text = isinstance(value, Text)
        plain = str(value) if is_text else value
        try:
            converted = msgspec.convert(plain, type_, strict=not is_text, dec_hook=decode_special)
        except (msgspec.ValidationError, ValueError, TypeError):
            self.problem(path, f"{path} = {shown(value, path, type_)}: expected {expectation(type_)}")
            return plain
        if is_text and (converted is None or isinstance(converted, (bool, int, float))):
            return converted
        return plain

    def _origin(self, path: str) -> str:
        while path:
            if path in self._origins:
                return self._origins[path]
            below = [origin for key, origin in self._origins.items() if key.startswith(f"{path}.")]
            if below:
                return ", ".join(sorted(set(below)))
            path = re.sub(r"(\.[^.\[]*|\[\d+\])$", "", path) if re.search(r"[.\[]", path) else ""
        return ""


def shown(value: Any, path: str, type_: Any) -> str:
    """A wrong value as an error may show it: never a secret, never a whole table, never long."""
    import json

    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Secret) or holds_secret(type_) or re.search(_SENSITIVE, path):
        return "***"
    if isinstance(value, str):
        text = re.sub(_USERINFO, r"\1:***@", value)
        return json.dumps(text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…", ensure_ascii=False)
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)[:_SHOWN_CHARS]
