"""Events as extensions see them: a map in msgpack for each, bounded, whatever rows and payloads hold.

Rows and payloads are JSON text that came from elsewhere; what msgpack cannot say is put so that it can: whole numbers
beyond 64 bits become texts. Invariant: making a body never raises. What is too large or cannot be read is left out, and
`omitted` says so. Private fields of kinds we do not know leave the node to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from magmobo.contracts.events import DatabaseChange, Envelope, Event
from magmobo.extensions.events.log import Entry, Logged

MAX_BODY_BYTES = 262_144
GAP_TOPIC = "extension.gap"
"""Topic of the record that stands in a subscription for events that it did not get; no event of the bus has it."""
RETRIED_TOPIC = "extension.retried"
"""Topic in the log of an event that one subscription, which `about` names, is to be told again; nobody sees it."""
CHANGE_TOPIC, PUBLISHED_TOPIC = "database.change", "extension.published"
GAP_OF_NODE, GAP_OF_CHANGES = "node", "changes"
"""What a gap in the log concerns: events of a node's life, or changes of tables."""
_INT64, _UINT64 = -(2**63), 2**64
_MAX_DEPTH = 100
_encoder = msgspec.msgpack.Encoder()


def of_envelope(envelope: Envelope[Any], source: str) -> Entry:
    """An event of the bus. `source` names this life of the node, so that ids of the next one differ."""
    event: Event = envelope.data
    fields = {
        name: None if name in event.private else _builtins(getattr(event, name)) for name in event.__struct_fields__
    }
    data = pack(fields, ())
    return Entry(f"{source}/{envelope.topic}/{envelope.seq}", envelope.topic, "", envelope.time_s, data)


def of_change(change: DatabaseChange, epoch: str, time_s: float) -> Entry:
    """A row change; its rows are objects by column."""
    omitted: list[str] = []
    fields: dict[str, Any] = {
        name: getattr(change, name) for name in ("source", "schema", "table", "op", "position", "commit_time")
    }
    fields["epoch"] = epoch
    for name, row in (("record", change.record), ("old_record", change.old_record)):
        fields[name] = None if row is None else _row(row)
        if row is not None and fields[name] is None:
            omitted.append(name)
    if omitted:
        fields["omitted"] = omitted
    return Entry(
        f"{epoch}/{change.position}",
        CHANGE_TOPIC,
        f"{change.schema}.{change.table}",
        time_s,
        pack(fields, ("old_record", "record")),
        position=change.position,
    )


def of_published(event_id: str, fields: Mapping[str, Any], depth: int, time_s: float) -> Entry:
    """An event that an extension published; its payload was bounded when it came."""
    return Entry(event_id, PUBLISHED_TOPIC, str(fields["extension_id"]), time_s, pack(fields, ("payload",)), depth)


def of_gap(gap_id: str, about: str, facts: Mapping[str, Any], time_s: float) -> Entry:
    """A gap that everybody whom it concerns is told. `facts` as in `gap_facts`."""
    return Entry(gap_id, GAP_TOPIC, about, time_s, pack(facts, ()))


def of_retried(subscription: str, topic: str, event_id: str, time_s: float, data: bytes) -> Entry:
    """An event that `subscription` (`<extension id>/<name>`) could not take, for it to try once more."""
    return Entry(event_id, RETRIED_TOPIC, subscription, time_s, _encoder.encode({"topic": topic, "data": data}))


def opened(row: Logged) -> tuple[Logged, dict[str, Any]]:
    """A row of the log and its body; one that is told again as it was at first."""
    data = unpack(row.data)
    if row.topic != RETRIED_TOPIC:
        return row, data
    topic, body = data["topic"], unpack(data["data"])
    about = row.about if topic == GAP_TOPIC else ""
    if topic == CHANGE_TOPIC:
        about = f"{body.get('schema')}.{body.get('table')}"
    elif topic == PUBLISHED_TOPIC:
        about = str(body.get("extension_id"))
    return Logged(row.seq, row.id, topic, about, row.depth, row.time_s, data["data"]), body


def gap_facts(reason: str, since_s: float, until_s: float, **more: Any) -> dict[str, Any]:
    """What a gap says: why, and between which times events may be missing; perhaps how many, or of which tables."""
    return {"reason": reason, "since_s": since_s, "until_s": until_s, **more}


def pack(fields: Mapping[str, Any], heavy: tuple[str, ...]) -> bytes:
    """The map as msgpack; `heavy` fields are left out, one after another, until it is small enough."""
    kept = dict(fields)
    for name in (*heavy, ""):
        data = _encoded(kept)
        if data is not None and len(data) <= MAX_BODY_BYTES:
            return data
        if name:
            kept[name], kept["omitted"] = None, [*kept.get("omitted", ()), name]
    return _encoder.encode({"omitted": sorted(map(str, fields))[:100]})


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` made."""
    return msgspec.msgpack.decode(data, type=dict[str, Any])


def _encoded(fields: Mapping[str, Any]) -> bytes | None:
    try:
        return _encoder.encode(fields)
    except (OverflowError, ValueError, RecursionError, TypeError, UnicodeError):
        pass
    try:
        return _encoder.encode(_sayable(fields, 0))
    except (OverflowError, ValueError, RecursionError, TypeError, UnicodeError):
        return None


def _row(row: Raw) -> dict[str, Any] | None:
    """A row by column; None when it is no JSON object that can be read (type json keeps any nesting)."""
    if len(row) > 4 * MAX_BODY_BYTES:
        return None
    try:
        return msgspec.json.decode(row, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError):
        return None


def _builtins(value: Any) -> Any:
    if isinstance(value, Raw):
        return _row(value)
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _sayable(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {str(key): _sayable(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(one, depth + 1) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and not _INT64 <= value < _UINT64:
        return str(value) if value.bit_length() < 10_000 else None
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return value
