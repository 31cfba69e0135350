"""What the event bus refuses."""

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
