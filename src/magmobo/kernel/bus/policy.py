"""What a full queue does with an event of a topic.

Where only the newest fact counts, the oldest goes. Where every fact counts, `publish` waits for room. Everywhere else
the new event is shed: its subscribers can tell that they missed something, by `eventbus.backpressure` and by sequence
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from magmobo.kernel.bus.topics import means, parse_pattern


class Overflow(Enum):
    """What a full queue does. `BLOCK_OUTSIDE_HANDLERS`: `publish` waits for room, `emit` sheds the new event."""

    SHED_NEW = "shed_new"
    SHED_OLDEST = "shed_oldest"
    BLOCK_OUTSIDE_HANDLERS = "block_outside_handlers"


DEFAULT_OVERFLOW: Mapping[str, Overflow] = {
    "security.**": Overflow.BLOCK_OUTSIDE_HANDLERS,
    "system.**": Overflow.BLOCK_OUTSIDE_HANDLERS,
    "component.**": Overflow.SHED_OLDEST,
    "health.**": Overflow.SHED_OLDEST,
    "database.schema_changed": Overflow.SHED_OLDEST,
    "database.connection.*": Overflow.SHED_OLDEST,
    "**": Overflow.SHED_NEW,
}
"""The first pattern that means a topic decides."""


def overflow_of(topic: str, *policies: Mapping[str, Overflow]) -> Overflow:
    """The policy of a topic; earlier mappings win."""
    for policy in policies:
        for pattern, overflow in policy.items():
            if means(parse_pattern(pattern), topic):
                return overflow
    return Overflow.SHED_NEW
