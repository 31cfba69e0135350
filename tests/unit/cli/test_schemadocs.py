"""The published schemas are as the classes are, and what the node tells fits them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from magmobo.cli import output, schemadocs
from magmobo.contracts.events import ComponentFailed, DatabaseChange, Envelope, Event
from magmobo.kernel.bus.cloudevents import cloudevent

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"


@pytest.mark.parametrize("name", schemadocs.DOCUMENTS)
def test_the_published_schemas_are_as_the_classes_are(name: str) -> None:
    written = (SCHEMAS / name).read_text(encoding="utf-8")
    assert written == schemadocs.written(schemadocs.DOCUMENTS[name]()), f"run `{schemadocs.HOW}`"


@pytest.mark.parametrize("name", schemadocs.DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = schemadocs.DOCUMENTS[name]()
    broken = [reference for reference in references(document) if reference not in document["$defs"]]
    assert not broken


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_every_topic_and_every_operation_is_described() -> None:
    described = schemadocs.events_document()["$defs"]
    declared = [cls.topic for cls in Event.__subclasses__() if cls.topic and cls.__module__.startswith("magmobo.")]
    assert set(declared) <= set(described)
    assert set(schemadocs.commands_document()["commands"]) == {command.name for command in schemadocs.COMMANDS}


@pytest.mark.parametrize(
    "event",
    [
        ComponentFailed(name="magds", error="gone"),
        DatabaseChange("magds", "public", "t", "insert", "0", "2026-01-01T00:00:00Z", Raw(b'{"id":1}')),
    ],
    ids=lambda event: event.topic,
)
def test_a_told_event_has_the_described_attributes(event: Event) -> None:
    schema = schemadocs.events_document()["$defs"][event.topic]
    told = cloudevent(Envelope(event.topic, event, 1.5, 1, "node", "trace", "cause"), "/nodes/node")
    assert set(told) == set(schema["properties"])
    assert told["type"] == schema["properties"]["type"]["const"]
    assert set(told["data"]) == set(schema["properties"]["data"]["properties"])


def test_the_envelope_of_the_cli_is_the_described_one(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json("component:show", {})
    printed = json.loads(capsys.readouterr().out)
    commands = schemadocs.commands_document()
    assert printed["schema"] == commands["commands"]["component:show"]["cli_schema"]
    assert list(printed) == commands["$defs"]["CliEnvelope"]["required"]
