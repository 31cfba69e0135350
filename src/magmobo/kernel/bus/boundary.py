"""Where events enter as bytes: nothing passes that is not an event of a declared topic with exactly its fields."""

from __future__ import annotations

from typing import Any

import msgspec

from magmobo.contracts.events import Event, declared_events
from magmobo.kernel.bus.errors import EventRefused, EventTooLarge, UnknownTopic

EVENT_LIMIT_BYTES = 1 << 20


def decode_event(topic: str, data: bytes, *, limit_bytes: int = EVENT_LIMIT_BYTES) -> Event:
    """The event of `topic` whose fields are the JSON object `data`. No message repeats a value.

    Raises: UnknownTopic, EventTooLarge (before reading anything), EventRefused.
    """
    event_type = next((declared for declared in declared_events() if declared.topic == topic), None)
    if event_type is None:
        raise UnknownTopic(topic)
    if len(data) > limit_bytes:
        raise EventTooLarge(topic, len(data), limit_bytes)
    try:
        fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        if unknown := fields.keys() - set(event_type.__struct_encode_fields__):
            raise EventRefused(topic, f"unknown field {min(unknown)[:100]!r}")
        return msgspec.json.decode(data, type=event_type)
    except msgspec.ValidationError as error:
        raise EventRefused(topic, _without_values(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EventRefused(topic, "not a JSON object") from None


def _without_values(message: str) -> str:
    """msgspec repeats what it read only where a field has a set of values."""
    if message.startswith("Invalid enum value"):
        _, marker, path = message.rpartition(" - at ")
        return f"Invalid enum value{marker}{path}"
    return message
