"""Events as they leave the node: CloudEvents 1.0, JSON format.

Type `dev.magmobo.<topic>.v1`. `traceid` and `causationid` are our extensions; what nothing caused has no `causationid`.
What people are told of a node leaves out users' data: rows belong to whom the database shows them.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw, to_builtins

from magmobo.contracts.events import Envelope, Event
from magmobo.contracts.secret import HIDDEN


def event_type_name(topic: str) -> str:
    """The `type` attribute of a topic."""
    return f"dev.magmobo.{topic}.v1"


def operator_view(envelope: Envelope[Any], source: str, mask: Callable[[Any, str], Any]) -> dict[str, Any]:
    """As `cloudevent`, with `***` in place of every private field that is set; `mask` gives a copy of the others
    without their secrets. What it shortens was longer than people read.
    """
    told = cloudevent(envelope, source)
    told["data"] = {
        name: value if isinstance(value, Raw) or name in envelope.data.private else mask(value, name)
        for name, value in told["data"].items()
    }
    for name in envelope.data.private:
        if told["data"][name] is not None:
            told["data"][name] = HIDDEN
    return told


def cloudevent(envelope: Envelope[Any], source: str) -> dict[str, Any]:
    """One event as a dict that `msgspec.json.encode` writes. JSON that an event carries passes through unread.

    Args:
        source: a URI reference that names this node, such as `/nodes/<instance id>`.
    """
    told = {
        "specversion": "1.0",
        "id": envelope.id,
        "source": source,
        "type": event_type_name(envelope.topic),
        "time": datetime.fromtimestamp(envelope.time_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "traceid": envelope.trace_id or envelope.id,
        "data": _fields(envelope.data),
    }
    if envelope.causation_id:
        told["causationid"] = envelope.causation_id
    return told


def _fields(event: Event) -> dict[str, Any]:
    values = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return {name: value if isinstance(value, Raw) else to_builtins(value) for name, value in values}
