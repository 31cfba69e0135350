"""What every event is, and the envelope it travels in. See the package for the rules of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from msgspec import Struct


class Event(Struct, frozen=True, gc=False):
    """Base of every event; a subclass sets `topic`, lower-case words joined by dots.

    `private` names fields that hold users' data: subscribers get them, people who look at the node do not.
    """

    topic: ClassVar[str] = ""
    private: ClassVar[tuple[str, ...]] = ()


E = TypeVar("E", bound=Event, covariant=True)


class Envelope(Struct, Generic[E], frozen=True, gc=False):
    """One event on its way. `seq` counts per topic from 1; `time_s` is seconds since 1970 UTC."""

    topic: str
    data: E
    time_s: float
    seq: int
    origin: str = ""
    trace_id: str = ""
    causation_id: str = ""

    @property
    def id(self) -> str:
        """Unique while the node lives: origin (instance id), topic and sequence number."""
        return f"{self.origin}/{self.topic}/{self.seq}"


def declared_events() -> Iterator[type[Event]]:
    """Every event that names a topic, in order of declaration; those of components are among them once imported."""
    waiting = list(Event.__subclasses__())
    for event_type in waiting:
        waiting.extend(event_type.__subclasses__())
        if event_type.topic:
            yield event_type
