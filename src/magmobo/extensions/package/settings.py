"""Settings of an extension, held against the schema of its manifest; its defaults, and which of them are secrets.

Boundary: values in, values or problems out; where secrets are kept is for the lifecycle. Invariant: no problem quotes a
value, and nothing is fetched: the subset has no references, and the validator has no way to retrieve any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from magmobo.extensions.package.errors import Problem, SettingsRefused
from magmobo.extensions.package.schemas import SECRET
from magmobo.extensions.package.shapes import did_you_mean

MAX_SETTINGS_BYTES = 65_536
_NUL = b"\\u0000"


def check_settings(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` with the schema's defaults where they say nothing.

    Args:
        schema: `Manifest.settings` of a manifest that was read; empty: there are no settings.
    Raises: SettingsRefused with every problem.
    """
    if not schema and not values:
        return {}
    packed = msgspec.json.encode(values)
    if len(packed) > MAX_SETTINGS_BYTES:
        raise SettingsRefused([Problem("$", f"the settings take more than {MAX_SETTINGS_BYTES} bytes")])
    if _NUL in packed and _holds_nul(values):
        raise SettingsRefused([Problem("$", "a text holds a NUL character, which Postgres does not keep")])
    complete = with_defaults(schema, values)
    problems = [*_unknown(schema, values, "$"), *_violations(schema, complete)]
    if problems:
        raise SettingsRefused(sorted(set(problems)))
    return complete


def with_defaults(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, and what the schema gives where they say nothing; objects inside are filled likewise."""
    filled = dict(values)
    for name, inner in schema.get("properties", {}).items():
        if name not in filled:
            if "default" in inner:
                filled[name] = inner["default"]
            elif inner.get("type") == "object" and (below := with_defaults(inner, {})):
                filled[name] = below
        elif inner.get("type") == "object" and isinstance(filled[name], dict):
            filled[name] = with_defaults(inner, filled[name])
    return filled


def secret_paths(schema: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """Where secrets are, as names from the outermost object inwards, in order."""
    return sorted(_secrets(schema, ()))


def default_problems(schema: Mapping[str, Any]) -> Sequence[Problem]:
    """Defaults that are not as their own schema wants them. The schema is of the subset."""
    return list(_bad_defaults(schema, "$.settings"))


def _bad_defaults(schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if "default" in schema:
        for found in _violations(schema, schema["default"]):
            yield Problem(f"{path}.default", found.reason)
    for name, inner in schema.get("properties", {}).items():
        yield from _bad_defaults(inner, f"{path}.properties.{name}")
    if "items" in schema:
        yield from _bad_defaults(schema["items"], f"{path}.items")


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(one) for pair in value.items() for one in pair)
        case list():
            return any(map(_holds_nul, value))
    return False


def _secrets(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, inner in schema.get("properties", {}).items():
        if inner.get(SECRET) is True:
            yield (*path, name)
        yield from _secrets(inner, (*path, name))


def _unknown(schema: Mapping[str, Any], values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Settings that the schema does not name: a typing mistake, unless the schema says `additionalProperties`."""
    known = schema.get("properties", {})
    for name, value in values.items():
        if name not in known:
            if schema.get("additionalProperties") is not True:
                yield Problem(path, f"there is no setting {name[:60]!r}{did_you_mean(name, known)}")
        elif isinstance(value, dict) and known[name].get("type") == "object":
            yield from _unknown(known[name], value, f"{path}.{name}")


def _violations(schema: Mapping[str, Any], value: Any) -> Iterator[Problem]:
    import jsonschema_rs  # 10 ms, for those that have settings

    if not schema:
        return
    validator = jsonschema_rs.Draft202012Validator(dict(schema), retriever=_refuse, validate_formats=False)
    for error in validator.iter_errors(value):
        place = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        steps = [str(step) for step in error.schema_path]
        if steps[-1:] == ["required"]:
            yield Problem(place[:200], f"there must be {_missing(schema, value, steps, error.instance_path)}")
        else:
            yield Problem(place[:200], _expected(schema, steps))


def _missing(schema: Any, value: Any, steps: Sequence[str], place: Sequence[Any]) -> str:
    """The settings that are not there, as the schema calls them."""
    for step in steps:
        schema = schema[int(step)] if isinstance(schema, list) else schema[step]
    for inner in place:
        value = value[inner]
    return ", ".join(name for name in schema if name not in value)[:200]


def _expected(schema: Any, steps: Sequence[str]) -> str:
    """What the broken keyword wants, without the value that breaks it."""
    wanted: Any = schema
    for step in steps:
        wanted = wanted[int(step)] if isinstance(wanted, list) else wanted.get(step)
        if wanted is None:
            break
    return f"does not satisfy {steps[-1] if steps else 'the schema'}: {msgspec.json.encode(wanted).decode()[:200]}"


def _refuse(uri: str) -> Any:
    raise ValueError(f"nothing is fetched, also not {uri[:100]}")
