"""What the event bus refuses. What a caller of `contracts.bus` may catch as ValueError is one."""

from __future__ import annotations

from magmobo.contracts.errors import MagError


class QueueFull(MagError):
    """A component has as many delayed events waiting as one component may have."""

    code = "MAG-BUS-001"
    http_status = 503
    retryable = True
    remedy = "Wait until some of them were emitted or cancel some; one delayed event can stand for many."

    def __init__(self, owner: str, limit: int) -> None:
        super().__init__(owner, limit)
        self.owner, self.limit = owner, limit

    def __str__(self) -> str:
        return f'component "{self.owner}" already has {self.limit:,} delayed events waiting'


class BadPattern(MagError, ValueError):
    """An event pattern is malformed."""

    code = "MAG-BUS-002"
    exit_code = 2
    http_status = 400
    remedy = "Write lower-case words joined by dots: `component.started`, `component.*` (one word), `health.**` (any)."

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.pattern = pattern

    def __str__(self) -> str:
        return f"malformed event pattern {self.pattern[:200]!r}"


class UnknownTopic(MagError, ValueError):
    """No event of this node has the topic, or one that the pattern means."""

    code = "MAG-BUS-003"
    exit_code = 2
    http_status = 404
    remedy = "docs/schemas/events.json lists every topic."

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic

    def __str__(self) -> str:
        return f"no event has a topic that {self.topic[:200]!r} means"


class EventTooLarge(MagError):
    """An event that came in as bytes is larger than the bus takes; it was not read."""

    code = "MAG-BUS-004"
    exit_code = 2
    http_status = 413
    remedy = "Send what the event is about by reference, not as a whole."

    def __init__(self, topic: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(topic, size_bytes, limit_bytes)
        self.topic, self.size_bytes, self.limit_bytes = topic, size_bytes, limit_bytes

    def __str__(self) -> str:
        return f"an event of {self.topic} may have {self.limit_bytes:,} bytes, this one has {self.size_bytes:,}"


class EventRefused(MagError):
    """An event that came in as bytes is not JSON, or its fields are not those of its topic."""

    code = "MAG-BUS-005"
    exit_code = 2
    http_status = 422
    remedy = "Compare it with the schema of its topic in docs/schemas/events.json."

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(topic, reason)
        self.topic, self.reason = topic, reason

    def __str__(self) -> str:
        return f"not an event of {self.topic}: {self.reason}"
