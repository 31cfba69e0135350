"""docs/schemas: what leaves the node as JSON Schema 2020-12, written from the classes:
`python -m magmobo.cli.schemadocs docs/schemas/events.json docs/schemas/commands.json docs/schemas/manifest.json`.

An event is described as the CloudEvents 1.0 object that others see; a command by its fields and its answer. What
`mag … --json` prints is an object whose `schema` and `command` name what the other fields are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from magmobo.contracts.events import Event, declared_events
from magmobo.contracts.extensions import EXTENSION_COMMANDS
from magmobo.contracts.operations import OPERATIONS
from magmobo.kernel.bus.cloudevents import event_type_name
from magmobo.kernel.commands.schema import special_schema
from magmobo.node.components import DEFAULT_COMPONENTS, DEMO_COMPONENT, load_components

HOW = "python -m magmobo.cli.schemadocs docs/schemas/events.json docs/schemas/commands.json docs/schemas/manifest.json"

Schema = dict[str, Any]
COMMANDS = (*OPERATIONS, *EXTENSION_COMMANDS)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = "#/$defs/{name}"
_STRING: Schema = {"type": "string"}


def events_document() -> Schema:
    """The schema of every event that comes with MagMoBo, by topic under `$defs`."""
    load_components([*DEFAULT_COMPONENTS, DEMO_COMPONENT])  # a component may declare events of its own
    ours = sorted((event for event in declared_events() if event.__module__.startswith("magmobo.")), key=_topic)
    fields, shared = msgspec.json.schema_components(ours, ref_template=_REFERENCE)
    of_events = {
        event.topic: _event(event, shared.pop(_named(schema))) for event, schema in zip(ours, fields, strict=True)
    }
    return {
        "$schema": _DIALECT,
        "title": "Events of a MagMoBo node",
        "description": f"CloudEvents 1.0, JSON format. Written from the classes by `{HOW}`.",
        "oneOf": [{"$ref": _REFERENCE.format(name=topic)} for topic in of_events],
        "$defs": of_events | shared,
    }


def commands_document() -> Schema:
    """The schema of every command that a usual node answers, of its answer, and of the envelope of `--json`."""
    types = [type_ for command in COMMANDS for type_ in (command, command.reply)]
    schemas, shared = msgspec.json.schema_components(types, schema_hook=special_schema, ref_template=_REFERENCE)
    commands = {
        command.name: {
            "summary": command.summary,
            "capability": command.capability,
            "audited": bool(command.audit_action),
            "dry_run": command.dry_run,
            "request": request,
            "reply": reply,
            "cli_schema": cli_schema_name(command.name),
        }
        for command, request, reply in zip(COMMANDS, schemas[::2], schemas[1::2], strict=True)
    }
    return {
        "$schema": _DIALECT,
        "title": "Commands of a MagMoBo node",
        "description": f"`commands` holds every command by name. Written from the classes by `{HOW}`.",
        "commands": dict(sorted(commands.items())),
        "$defs": {"CliEnvelope": _cli_envelope(), **shared},
    }


def cli_schema_name(command: str) -> str:
    """What `schema` says in the JSON that `mag` prints for a command."""
    return f"dev.magmobo.cli.{command.replace(':', '_')}.v1"


def written(document: Mapping[str, Any]) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def manifest_document() -> Schema:
    """The schema of an extension's `manifest.json`."""
    from magmobo.extensions.package.validate import manifest_schema

    return manifest_schema()


DOCUMENTS: Mapping[str, Callable[[], Schema]] = {
    "events.json": events_document,
    "commands.json": commands_document,
    "manifest.json": manifest_document,
}


def _topic(event: type[Event]) -> str:
    return event.topic


def _named(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).removeprefix(_REFERENCE.format(name=""))


def _event(event: type[Event], data: Schema) -> Schema:
    about = " ".join(cleandoc(event.__doc__ or "").split())
    return {
        "title": event.topic,
        "description": about,
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": _STRING,
            "source": {"type": "string", "format": "uri-reference"},
            "type": {"const": event_type_name(event.topic)},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "traceid": _STRING,
            "causationid": _STRING,
            "data": {name: value for name, value in data.items() if name not in ("title", "description")},
        },
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "traceid", "data"],
    }


def _cli_envelope() -> Schema:
    return {
        "title": "CliEnvelope",
        "description": "What `mag … --json` prints: `schema` names the shape, the other fields are the answer.",
        "type": "object",
        "properties": {
            "schema": {"type": "string", "pattern": r"^dev\.magmobo\.cli\.[a-z_]+\.v1$"},
            "command": _STRING,
        },
        "required": ["schema", "command"],
    }


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        Path(argument).write_text(written(DOCUMENTS[Path(argument).name]()), encoding="utf-8")
