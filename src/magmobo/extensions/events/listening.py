"""Which events of the bus go into the log: those that a subscription names, each once, however many name it.

Where every subscription of a topic has a condition, and nothing of the event is hidden from anybody, what meets none of
them is left out already here. Topics that have a way of their own into the log are not taken from the bus.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from magmobo.contracts.bus import Bus, Subscription
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import Envelope
from magmobo.extensions.events.bodies import CHANGE_TOPIC, PUBLISHED_TOPIC, of_envelope, unpack
from magmobo.extensions.events.intake import Intake, Logger
from magmobo.extensions.events.subscriptions import Followed
from magmobo.extensions.languages.filters import Predicate, compile_filter
from magmobo.extensions.package.scopes import topic_words, topics_meet

_OWN_WAY = (CHANGE_TOPIC, PUBLISHED_TOPIC)


class Listening:
    """The subscriptions of the plane on this node's bus."""

    def __init__(self, bus: Bus, intake: Intake, logger: Logger) -> None:
        self._bus, self._intake, self._logger = bus, intake, logger
        self._handles: dict[str, Subscription] = {}
        self._wanted: dict[str, list[Predicate | None]] = {}
        self._last: dict[str, int] = {}
        self._conditions: dict[str, list[Predicate] | None] = {}

    def follow(self, subscriptions: Iterable[Followed]) -> None:
        """Exactly these from now on."""
        wanted: dict[str, list[Predicate | None]] = {}
        for one in subscriptions:
            if one.topic not in _OWN_WAY:
                wanted.setdefault(one.topic, []).append(_predicate(one))
        self._wanted = wanted
        self._conditions.clear()
        for pattern in self._handles.keys() - wanted.keys():
            self._handles.pop(pattern).cancel()
        for pattern in wanted.keys() - self._handles.keys():
            try:
                self._handles[pattern] = self._bus.on(pattern, self._on_event)
            except ValueError as error:  # a component that declared the topic is not part of this node
                self._logger.warning("a topic is not known here", topic=pattern, error=str(error)[:200])

    def stop(self) -> None:
        """Take nothing more."""
        while self._handles:
            self._handles.popitem()[1].cancel()

    def _on_event(self, envelope: Envelope[Any]) -> None:
        topic = envelope.topic
        if topic in _OWN_WAY or envelope.seq <= self._last.get(topic, 0):  # another pattern brought it
            return
        self._last[topic] = envelope.seq
        if self._is_wanted(envelope):
            self._intake.offer_envelope(envelope)

    def _is_wanted(self, envelope: Envelope[Any]) -> bool:
        topic = envelope.topic
        if topic not in self._conditions:
            self._conditions[topic] = self._conditions_of(topic)
        conditions = self._conditions[topic]
        if conditions is None or envelope.data.private:
            return True
        entry = of_envelope(envelope, self._intake.source)
        event = {"id": entry.id, "topic": topic, "time_s": envelope.time_s, "data": unpack(entry.data)}
        return any(accepts(event) for accepts in conditions)

    def _conditions_of(self, topic: str) -> list[Predicate] | None:
        """One of these must be met; None: somebody wants all."""
        found = [
            one
            for pattern, wanted in self._wanted.items()
            if topics_meet(topic_words(pattern), topic)
            for one in wanted
        ]
        return None if None in found else [one for one in found if one is not None]


def _predicate(one: Followed) -> Predicate | None:
    if not one.condition:
        return None
    try:
        return compile_filter(one.condition)
    except MagError:
        return None
