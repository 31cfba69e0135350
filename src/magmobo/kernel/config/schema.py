"""The JSON Schema of a settings file, for editors that complete and warn while somebody writes one.

It describes one file of several, so no key of a table is required: another layer may set it. What stands in a list is
whole in one place, so its keys are. TOML has no null, so an optional key is one that may be left out.
Source: https://json-schema.org/draft/2020-12/schema
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from magmobo.contracts.secret import Secret
from magmobo.contracts.settings import AUTHORITY, CAPABILITY_MARK, MARK, Effect
from magmobo.kernel.config.core import CORE_SECTIONS
from magmobo.kernel.config.shapes import fields_of, holds_secret, structure

Schema = dict[str, Any]

_SECRET: Schema = {
    "type": "string",
    "format": "password",
    "writeOnly": True,
    f"x-{CAPABILITY_MARK}": AUTHORITY,
}
_DROPPED = ("title", "$defs")


def tree_schema(sections: Mapping[str, type[Struct]]) -> Schema:
    """The whole tree, JSON Schema 2020-12. `x-reload` says what a change takes; of a section, of keys without one.

    `x-capability`: what changing the key at run time asks for, besides what the command does.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a MagMoBo node",
        "description": "mag.toml and the files beside it. Unknown keys are refused.",
        "type": "object",
        "properties": {name: _section(name, section) for name, section in sections.items()},
        "additionalProperties": False,
    }


def _section(name: str, section: type[Struct]) -> Schema:
    effect = Effect.NODE if name in CORE_SECTIONS else Effect.COMPONENT
    return {**_table(section, is_whole=False), f"x-{MARK}": effect.value}


def _table(struct: type[Struct], *, is_whole: bool) -> Schema:
    """`is_whole`: the table is in one place, so what must be set must be set there."""
    fields = fields_of(struct)
    about = " ".join(cleandoc(struct.__doc__ or "").split())
    schema: Schema = {
        "type": "object",
        **({"description": about} if about else {}),
        "properties": {name: _field(field, is_whole=is_whole) for name, field in fields.items()},
        "additionalProperties": False,
    }
    required = [name for name, field in fields.items() if field.required]
    return {**schema, "required": required} if is_whole and required else schema


def _field(field: msgspec.structs.FieldInfo, *, is_whole: bool) -> Schema:
    schema = _value(field.type, is_whole=is_whole)
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default is msgspec.NODEFAULT or default is None or isinstance(default, (Secret, Struct)):
        return schema
    if holds_secret(field.type) and default:
        return schema
    return {**schema, "default": msgspec.json.decode(msgspec.json.encode(default, enc_hook=str))}


def _value(type_: Any, *, is_whole: bool) -> Schema:
    type_, notes = _unwrapped(type_)
    kind, arguments = structure(type_)
    if kind is Struct:
        schema = _table(arguments[0], is_whole=is_whole)
    elif kind is list:
        schema = {"type": "array", "items": _value(arguments[0], is_whole=True), **_limits(notes, "Items")}
    elif kind is dict:
        schema = {"type": "object", "additionalProperties": _value(arguments[1], is_whole=False)}
        schema |= _limits(notes, "Properties")
    else:
        return _single(type_, notes)
    for note in notes:
        schema |= {"description": note.description} if note.description else {}
        schema |= note.extra_json_schema or {}
    return schema


def _single(type_: Any, notes: list[Meta]) -> Schema:
    """Of anything that is neither table nor list, or that is one of several of them: as msgspec says it."""
    annotated = type_
    for note in notes:
        annotated = Annotated[annotated, note]
    schema, shared = msgspec.json.schema_components([annotated], schema_hook=_special)
    whole: Schema = _inlined(schema[0], shared)
    return whole


def _special(type_: type) -> Schema:
    """Raises: NotImplementedError for a type that no setting can have."""
    if type_ is Secret:
        return dict(_SECRET)
    if issubclass(type_, Path):
        return {"type": "string"}
    raise NotImplementedError(f"a setting of type {type_.__name__}")


def _unwrapped(type_: Any) -> tuple[Any, list[Meta]]:
    """Without `None`, and the notes around it from the inside to the outside."""
    if get_origin(type_) is Annotated:
        inner, *notes = get_args(type_)
        bare, within = _unwrapped(inner)
        return bare, [*within, *(note for note in notes if isinstance(note, Meta))]
    if get_origin(type_) in (Union, types.UnionType):
        options = [option for option in get_args(type_) if option is not types.NoneType]
        if len(options) == 1:
            return _unwrapped(options[0])
        return Union[tuple(options)], []  # noqa: UP007 - made of what is known only now
    return type_, []


def _limits(notes: list[Meta], what: str) -> Schema:
    limits: Schema = {}
    for note in notes:
        limits |= {f"min{what}": note.min_length} if note.min_length is not None else {}
        limits |= {f"max{what}": note.max_length} if note.max_length is not None else {}
    return limits


def _inlined(schema: Any, shared: Mapping[str, Any]) -> Any:
    """Without references to shared parts: an editor shows what stands at a key, not where it is defined."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            target = shared[str(schema["$ref"]).rpartition("/")[2]]
            schema = {**target, **{key: item for key, item in schema.items() if key != "$ref"}}
        return {key: _inlined(item, shared) for key, item in schema.items() if key not in _DROPPED}
    return [_inlined(item, shared) for item in schema] if isinstance(schema, list) else schema
