"""Which event or trace the code that runs now belongs to.

While handlers are called directly nothing else can run, so the bus keeps their event in an attribute, which costs the
hot path next to nothing; what runs in tasks finds it in a context variable. An event that nothing caused has no trace
id: its own id names the trace that its consequences carry.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from magmobo.contracts.events import Envelope, Event

Cause = Envelope[Any]
"""The event being handled, or one that only carries a trace id: then `seq` is 0."""

cause_here: ContextVar[Cause | None] = ContextVar("magmobo_event_cause", default=None)


def in_trace(trace_id: str, cause: Cause | None) -> Cause:
    """`cause` under another trace id."""
    if cause is None:
        return Envelope("", None, 0.0, 0, "", trace_id)
    return Envelope(cause.topic, cause.data, cause.time_s, cause.seq, cause.origin, trace_id, cause.causation_id)


def caused(topic: str, event: Event, time_s: float, seq: int, origin: str, cause: Cause) -> Envelope[Any]:
    """The envelope of an event that was emitted because of `cause`."""
    causation_id = cause.id if cause.seq else ""
    return Envelope(topic, event, time_s, seq, origin, cause.trace_id or causation_id, causation_id)
