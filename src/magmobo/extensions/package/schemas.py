"""The subset of JSON Schema in which extensions describe their settings.

Enough for a form and for a check, and nothing that can run long or fetch: no patterns, no references, no combinations.
Boundary: the schema alone; `settings.py` holds values against it. Invariant: a schema without problems is checked in
time bounded by its size and the value's.
Source: JSON Schema 2020-12, of it the keywords below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from magmobo.extensions.package.errors import Problem
from magmobo.extensions.package.shapes import did_you_mean

MAX_DEPTH = 5
MAX_PROPERTIES = 100
MAX_CHOICES = 100
SECRET = "x-secret"  # noqa: S105 - the name of a keyword
_NAME = re.compile(r"[a-z][A-Za-z0-9_]{0,59}")
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    "array": ("items", "minItems", "maxItems"),
    "boolean": (),
    "integer": _NUMBERS,
    "number": _NUMBERS,
    "object": ("properties", "required", "additionalProperties"),
    "string": ("minLength", "maxLength", SECRET),
}
_OF_ALL = ("type", "title", "description", "default", "enum")
_REFUSED: Mapping[str, str] = {
    "pattern": "patterns could run without end; use enum, minLength and maxLength",
    "patternProperties": "patterns could run without end; name the properties",
    "$ref": "nothing is fetched or referred to; write it out",
    "$dynamicRef": "nothing is fetched or referred to; write it out",
    "$schema": "the dialect is JSON Schema 2020-12, the subset of docs/extension-package.md",
}


def schema_problems(schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Everything in which a schema is not of the subset. An empty one is fine: there are no settings."""
    if not schema:
        return
    if schema.get("type") != "object":
        yield Problem(f"{path}.type", 'settings are an object: "type": "object"')
        return
    walk = _Walk()
    yield from walk.schema(schema, path, 1, in_list=False)
    if walk.count > MAX_PROPERTIES:
        yield Problem(path, f"{walk.count} schemas, at most {MAX_PROPERTIES} are allowed")


class _Walk:
    """One reading of a schema; `count` of the schemas in it."""

    def __init__(self) -> None:
        self.count = 0

    def schema(self, schema: Any, path: str, depth: int, *, in_list: bool) -> Iterator[Problem]:
        self.count += 1
        if self.count > MAX_PROPERTIES:
            return
        if not isinstance(schema, dict) or schema.get("type") not in _TYPES:
            yield Problem(path, f"a schema is an object whose type is one of {', '.join(_TYPES)}")
            return
        if depth > MAX_DEPTH:
            yield Problem(path, f"settings are nested deeper than {MAX_DEPTH} levels")
            return
        kind = schema["type"]
        allowed = (*_OF_ALL, *_OF_TYPE[kind])
        for keyword in schema.keys() - set(allowed):
            why = _REFUSED.get(keyword) or f"{kind} takes {', '.join(_OF_TYPE[kind]) or 'nothing of its own'}"
            hint = "" if keyword in _REFUSED else did_you_mean(keyword, allowed)
            yield Problem(path, f"no keyword {keyword[:60]!r} here: {why}{hint}")
        yield from _keyword_problems(schema, path)
        if schema.get(SECRET) is True and ("default" in schema or "enum" in schema or in_list):
            yield Problem(path, "a secret has no default and no enum, and is not in a list")
        yield from self._inner(schema, path, depth, in_list=in_list)

    def _inner(self, schema: Mapping[str, Any], path: str, depth: int, *, in_list: bool) -> Iterator[Problem]:
        if schema["type"] == "array":
            if "items" in schema:
                yield from self.schema(schema["items"], f"{path}.items", depth + 1, in_list=True)
            else:
                yield Problem(path, "a list says what its items are")
        properties = schema.get("properties", {})
        if schema["type"] == "object" and isinstance(properties, dict):
            for name, inner in properties.items():
                if not _NAME.fullmatch(name):
                    yield Problem(f"{path}.properties", f"{name[:60]!r} is no name of a setting: [a-z][A-Za-z0-9_]*")
                else:
                    yield from self.schema(inner, f"{path}.properties.{name}", depth + 1, in_list=in_list)
            required = schema.get("required", [])
            for name in required if isinstance(required, list) else []:
                if not isinstance(name, str) or name not in properties:
                    yield Problem(f"{path}.required", f"{str(name)[:60]!r} is not among the properties")


def _keyword_problems(schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """That each keyword's own value is of its kind."""
    for name in ("title", "description"):
        if name in schema and not (isinstance(schema[name], str) and len(schema[name]) <= 500):
            yield Problem(f"{path}.{name}", "expected a text of at most 500 characters")
    for name in _COUNTS:
        if name in schema and not (type(schema[name]) is int and 0 <= schema[name] <= 1_000_000):
            yield Problem(f"{path}.{name}", "expected a whole number from 0 to 1000000")
    for name in _NUMBERS:
        if name in schema and type(schema[name]) not in (int, float):
            yield Problem(f"{path}.{name}", "expected a number")
    for name in ("additionalProperties", SECRET):
        if name in schema and type(schema[name]) is not bool:
            yield Problem(f"{path}.{name}", "expected true or false")
    if "properties" in schema and not isinstance(schema["properties"], dict):
        yield Problem(f"{path}.properties", "expected an object of schemas")
    if "required" in schema and not isinstance(schema["required"], list):
        yield Problem(f"{path}.required", "expected a list of names")
    choices = schema.get("enum", [None])
    if not (isinstance(choices, list) and 0 < len(choices) <= MAX_CHOICES and all(map(_is_scalar, choices))):
        yield Problem(f"{path}.enum", f"expected a list of 1 to {MAX_CHOICES} texts, numbers or booleans")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
