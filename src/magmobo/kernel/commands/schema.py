"""JSON Schemas of commands and their answers, for `kernel:commands` and for whoever writes a client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from magmobo.contracts.commands import Command
from magmobo.contracts.operations import CommandCatalogue, CommandInfo
from magmobo.contracts.secret import Secret


def catalogue_of(command_types: Iterable[type[Command]]) -> CommandCatalogue:
    """All of them, in the order given."""
    return CommandCatalogue([_info(command_type) for command_type in command_types])


def schema_of(type_: type[Any]) -> Mapping[str, Any]:
    """A JSON Schema that stands alone: what it refers to is under `$defs`.

    A class that JSON Schema cannot describe, for instance one with a default that JSON cannot say, is just an object,
    so that it does not cost the others theirs.
    """
    try:
        (schema,), definitions = msgspec.json.schema_components(
            (type_,), schema_hook=special_schema, ref_template="#/$defs/{name}"
        )
    except (TypeError, ValueError):
        return {"type": "object", "title": type_.__name__}
    return {**schema, "$defs": definitions} if definitions else schema


def _info(command_type: type[Command]) -> CommandInfo:
    return CommandInfo(
        name=command_type.name,
        summary=command_type.summary,
        capability=command_type.capability,
        audited=bool(command_type.audit_action),
        dry_run=command_type.dry_run,
        request=schema_of(command_type),
        reply=schema_of(command_type.reply),
    )


def special_schema(type_: type[Any]) -> dict[str, Any]:
    """The `schema_hook` for types that msgspec does not know."""
    if type_ is Secret:
        return {"type": "string", "writeOnly": True, "format": "password"}
    return {"type": "string"} if issubclass(type_, Path) else {}
