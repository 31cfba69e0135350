"""Which topics exist and who listens to them. Everything here happens when something changes, never when an event is
emitted.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from magmobo.contracts.bus import AsyncHandler, Handler, Subscription
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import Event, declared_events
from magmobo.kernel.bus.dispatch import Topic
from magmobo.kernel.bus.errors import UnknownTopic
from magmobo.kernel.bus.history import History
from magmobo.kernel.bus.policy import DEFAULT_OVERFLOW, Overflow, overflow_of
from magmobo.kernel.bus.rounds import Host, Round
from magmobo.kernel.bus.subscription import BaseSubscription, Place, QueuedSubscription, SyncSubscription
from magmobo.kernel.bus.topics import PatternTrie, is_topic, means, parse_pattern


class TopicCounts(Struct, frozen=True):
    """Events emitted on a topic, handler calls that failed, and events that found a queue full."""

    emitted: int
    errors: int
    shed: int


class Directory:
    """Topics by name and by event class, subscriptions by pattern and by owner."""

    def __init__(self, post: Host, overflow: Mapping[str, Overflow], history: History) -> None:
        self._post, self._overflow, self._history = post, dict(overflow), history
        self.topics: dict[str, Topic] = {}
        self.by_type: dict[type[Event], Topic] = {}
        self.rounds: dict[type[Event], Round] = {}
        self._owner_of_topic: dict[str, type[Event]] = {}
        self._trie: PatternTrie[BaseSubscription] = PatternTrie()
        self._order = itertools.count()
        self._by_owner: dict[str, set[BaseSubscription]] = {}
        self._closed = False
        self._learn_new_events()

    # ------------------------------------------------------------ topics

    def topic_of(self, event_type: type[Event]) -> Topic:
        """The topic of an event class. Raises: ValueError when it has none of its own."""
        self._learn_new_events()
        topic = self.by_type.get(event_type)
        if topic is None:
            raise ValueError(f"{event_type.__qualname__} declares no topic of its own, so nobody could listen to it")
        return topic

    def _learn_new_events(self) -> None:
        """Event classes may be declared after this bus was made, by a component that is loaded later."""
        for event_type in declared_events():
            if event_type not in self.by_type:
                self._declare(event_type)

    def _declare(self, event_type: type[Event]) -> None:
        name = event_type.topic
        if not is_topic(name) or self._owner_of_topic.setdefault(name, event_type) is not event_type:
            return  # a malformed topic, or a second class for one, stays unknown: using it is refused
        topic = Topic(name, overflow_of(name, self._overflow, DEFAULT_OVERFLOW), self._history, self._post)
        self.topics[name] = self.by_type[event_type] = topic
        self._resolve(topic)

    # ------------------------------------------------------------ subscriptions

    def subscribe(
        self, owner: str, pattern: str | type[Event], handler: Handler | AsyncHandler, priority: int
    ) -> Subscription:
        """See `EventBus.subscribe`."""
        if self._closed:
            raise Unavailable("the event bus")
        if isinstance(pattern, type):
            pattern = self.topic_of(pattern).name
        words = parse_pattern(pattern)
        self._learn_new_events()
        if not (topics := [topic for topic in self.topics.values() if means(words, topic.name)]):
            raise UnknownTopic(pattern)
        place = Place(owner, pattern, words, (-priority, next(self._order)))
        kind: Any = QueuedSubscription if _is_async(handler) else SyncSubscription
        subscription: BaseSubscription = kind(self._post, place, handler)
        self._trie.add(words, subscription)
        self._by_owner.setdefault(owner, set()).add(subscription)
        for topic in topics:
            self._resolve(topic)
        return subscription

    def forget(self, subscription: BaseSubscription) -> None:
        """Take a cancelled subscription out of everything."""
        self._trie.remove(subscription.words, subscription)
        owned = self._by_owner[subscription.owner]
        owned.discard(subscription)
        if not owned:
            del self._by_owner[subscription.owner]
        for topic in self.topics.values():
            if subscription in topic.subscriptions:
                self._resolve(topic)

    def _resolve(self, topic: Topic) -> None:
        topic.resolve(tuple(sorted(self._trie.match(topic.name), key=lambda subscription: subscription.order)))
        self.rounds[self._owner_of_topic[topic.name]] = topic.round

    def close(self) -> None:
        """Take no more subscriptions."""
        self._closed = True

    # ------------------------------------------------------------ who is there

    def counts(self) -> dict[str, TopicCounts]:
        """See `EventBus.counts`."""
        topics = self.topics.values()
        return {topic.name: TopicCounts(topic.count, topic.errors, topic.shed) for topic in topics if topic.count}

    def owners(self) -> list[str]:
        """Who has a subscription."""
        return list(self._by_owner)

    def of(self, owner: str) -> list[BaseSubscription]:
        """The subscriptions of one owner."""
        return list(self._by_owner.get(owner, ()))

    def count(self, owner: str | None) -> int:
        """Subscriptions of one owner or of all."""
        owners = self._by_owner if owner is None else {owner}
        return sum(len(self._by_owner.get(name, ())) for name in owners)


def _is_async(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
