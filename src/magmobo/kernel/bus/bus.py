"""The bus of one node.

Emitting is a dict look-up, a counter, one envelope and one call per handler: who gets what is resolved when a
subscription changes. An event goes to those who were subscribed when it was emitted. One emitted on a topic from inside
a handler of that topic waits until the present one has reached everybody, so all handlers see the same order.
Boundary: one event loop, no threads.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from magmobo.contracts.bus import AsyncHandler, Handler, Subscription
from magmobo.contracts.events import Envelope, Event, EventBusBackpressure
from magmobo.kernel.bus.delayed import Delayed
from magmobo.kernel.bus.subscription import (
    BaseSubscription,
    Overflow,
    QueuedSubscription,
    SyncSubscription,
)
from magmobo.kernel.bus.topics import PatternTrie, declared_events, is_topic, parse_pattern

FailureReport = Callable[[str, str, str, BaseException], None]
"""Told about a failing handler: owner, topic, handler name, error."""


class _Topic:
    __slots__ = ("busy", "count", "errors", "name", "overflow", "pending", "pending_shed", "subscriptions")

    def __init__(self, name: str, overflow: Overflow) -> None:
        self.name, self.overflow = name, overflow
        self.count = self.errors = self.pending_shed = 0
        self.busy = False
        self.subscriptions: tuple[BaseSubscription, ...] = ()
        self.pending: deque[tuple[Envelope[Any], tuple[BaseSubscription, ...]]] = deque()


class TopicCounts(Struct, frozen=True):
    """Events emitted on a topic, handler calls that failed, and events that found a queue full."""

    emitted: int
    errors: int
    shed: int


def _silent(owner: str, topic: str, handler: str, error: BaseException) -> None:
    """Counts speak for themselves when nobody asked to be told."""


class EventBus:
    """Implements `contracts.bus.Bus` for the whole node; components get a `ScopedBus` of it.

    Args:
        origin: instance id, stamped on every envelope.
        queue_limit: events one async subscription may have waiting, and nested events one topic may have waiting.
        delayed_limit: delayed events one owner may have waiting.
        handler_timeout_s: an async handler that runs longer is cancelled and counted.
        overflow: policy by topic; default `SHED_NEW`.
        on_failure: told about every failing handler; must not raise.
    """

    def __init__(
        self,
        *,
        origin: str = "",
        time_s: Callable[[], float] = time.time,
        queue_limit: int = 4096,
        delayed_limit: int = 1024,
        handler_timeout_s: float = 30.0,
        overflow: Mapping[str, Overflow] = {},
        on_failure: FailureReport = _silent,
    ) -> None:
        self.queue_limit, self.handler_timeout_s = queue_limit, handler_timeout_s
        self._origin, self._time_s, self._on_failure = origin, time_s, on_failure
        self._overflow = dict(overflow)
        self._topics: dict[str, _Topic] = {}
        self._owner_of_topic: dict[str, type[Event]] = {}
        self._by_type: dict[type[Event], _Topic] = {}
        self._trie: PatternTrie[BaseSubscription] = PatternTrie()
        self._order = itertools.count()
        self._pumping: set[QueuedSubscription] = set()
        self._watchdog: asyncio.TimerHandle | None = None
        self._shed_by_topic: dict[str, int] = {}
        self._subscriptions_by_owner: dict[str, set[BaseSubscription]] = {}
        self._delayed = Delayed(self.emit, limit=delayed_limit)
        for event_type in declared_events():
            self._declare(event_type)

    # ------------------------------------------------------------ emitting

    def emit(self, event: Event) -> None:
        """See `contracts.bus.Bus.emit`. Raises: ValueError only for an event class without a topic of its own."""
        topic = self._by_type.get(event.__class__) or self._topic_of(event.__class__)
        topic.count += 1
        subscriptions = topic.subscriptions
        if not subscriptions:
            return
        envelope = Envelope(topic.name, event, self._time_s(), topic.count, self._origin)
        if topic.busy:
            self._postpone(topic, envelope)
            return
        topic.busy = True
        try:
            for subscription in subscriptions:
                try:
                    subscription.deliver(envelope)
                except Exception as error:
                    self.handler_failed(subscription, envelope, error)
            if topic.pending:
                self._drain(topic)
        finally:
            topic.busy = False

    async def publish(self, event: Event) -> None:
        """See `contracts.bus.Bus.publish`. Inside an async handler it only queues: it might wait for itself."""
        topic = self._by_type.get(event.__class__) or self._topic_of(event.__class__)
        if asyncio.current_task() in {subscription.task for subscription in self._pumping}:
            self.emit(event)
            return
        if topic.overflow is Overflow.BLOCK_OUTSIDE_HANDLERS:
            while full := [s for s in topic.subscriptions if isinstance(s, QueuedSubscription) and s.is_full]:
                oldest = full[0].queue[0]
                await full[0].completion(oldest.topic, oldest.seq)
        seq = topic.count + 1  # nothing can be emitted between here and `emit`
        done = [s.completion(topic.name, seq) for s in topic.subscriptions if isinstance(s, QueuedSubscription)]
        self.emit(event)
        for future in done:
            await future

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        """See `contracts.bus.Bus.queue`; the delayed event belongs to nobody and ends with the bus."""
        return self.delay("", event, delay_s)

    def delay(self, owner: str, event: Event, delay_s: float) -> Subscription:
        """Like `queue`, for `owner`: `cancel_all(owner)` ends it. Raises: as `queue`."""
        if event.__class__ not in self._by_type:
            self._topic_of(event.__class__)
        return self._delayed.add(owner, event, delay_s)

    def _postpone(self, topic: _Topic, envelope: Envelope[Any]) -> None:
        if len(topic.pending) >= self.queue_limit:
            topic.pending_shed += 1
            return
        topic.pending.append((envelope, topic.subscriptions))

    def _drain(self, topic: _Topic) -> None:
        while topic.pending:
            envelope, subscriptions = topic.pending.popleft()
            for subscription in subscriptions:
                try:
                    subscription.deliver(envelope)
                except Exception as error:
                    self.handler_failed(subscription, envelope, error)

    # ------------------------------------------------------------ subscribing

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        """See `contracts.bus.Bus.on`; the subscription belongs to nobody and lives until it is cancelled."""
        return self.subscribe("", pattern, handler, priority=priority)

    def subscribe(
        self, owner: str, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0
    ) -> Subscription:
        """Like `on`, for `owner`: `cancel_all(owner)` ends it."""
        if isinstance(pattern, type):
            pattern = self._topic_of(pattern).name
        words = parse_pattern(pattern)
        self._learn_new_events()
        if not (topics := [topic for topic in self._topics.values() if _means(words, topic.name)]):
            raise ValueError(f"no event has a topic that {pattern!r} means")
        kind: Any = QueuedSubscription if _is_async(handler) else SyncSubscription
        subscription: BaseSubscription = kind(self, owner, pattern, words, (-priority, next(self._order)), handler)
        self._trie.add(words, subscription)
        self._subscriptions_by_owner.setdefault(owner, set()).add(subscription)
        for topic in topics:
            self._resolve(topic)
        return subscription

    def has_listeners(self, event_type: type[Event]) -> bool:
        """See `contracts.bus.Bus.has_listeners`."""
        return bool((self._by_type.get(event_type) or self._topic_of(event_type)).subscriptions)

    def cancel_all(self, owner: str) -> None:
        """End every subscription and delayed event of `owner`; nothing of it is delivered or emitted any more."""
        self._delayed.cancel_all(owner)
        for subscription in list(self._subscriptions_by_owner.get(owner, ())):
            subscription.cancel()

    async def close_owner(self, owner: str, *, grace_s: float = 2.0) -> None:
        """`cancel_all`, then return once no handler of `owner` runs any more, or `grace_s` passed."""
        running = {s.task for s in self._pumping if s.owner == owner and s.task is not None}
        self.cancel_all(owner)
        running.discard(asyncio.current_task())
        if running:
            await asyncio.wait(running, timeout=grace_s)

    def scoped(self, owner: str) -> ScopedBus:
        """The bus as one component sees it."""
        return ScopedBus(self, owner)

    # ------------------------------------------------------------ what it counts

    def delayed_count(self, owner: str | None = None) -> int:
        """Delayed events that wait, of one owner or of all."""
        return self._delayed.count(owner)

    def subscription_count(self, owner: str | None = None) -> int:
        """Live subscriptions, of one owner or of all."""
        owners = self._subscriptions_by_owner if owner is None else {owner}
        return sum(len(self._subscriptions_by_owner.get(name, ())) for name in owners)

    def counts(self) -> dict[str, TopicCounts]:
        """By topic, since the bus was made; topics without any event are left out."""
        return {
            topic.name: TopicCounts(
                topic.count, topic.errors, topic.pending_shed + self._shed_by_topic.get(topic.name, 0)
            )
            for topic in self._topics.values()
            if topic.count
        }

    # ------------------------------------------------------------ called by subscriptions

    def handler_failed(self, subscription: BaseSubscription, envelope: Envelope[Any], error: BaseException) -> None:
        """Count and report one failed call."""
        self._topics[envelope.topic].errors += 1
        if isinstance(subscription, SyncSubscription):
            subscription.failed += 1
        self._on_failure(subscription.owner, envelope.topic, subscription.handler_name, error)

    def event_shed(self, subscription: QueuedSubscription, topic: str) -> None:
        """Count a lost event; announce the 1st, 2nd, 4th, 8th … of a subscription, so that a flood stays small."""
        self._shed_by_topic[topic] = self._shed_by_topic.get(topic, 0) + 1
        lost = subscription.lost
        if lost & (lost - 1) == 0 and topic != EventBusBackpressure.topic:
            self.emit(EventBusBackpressure(depth=len(subscription.queue), shed=lost, shed_topic=topic))

    def overflow(self, topic: str) -> Overflow:
        """The policy of a topic."""
        return self._topics[topic].overflow

    def pump_started(self, subscription: QueuedSubscription) -> None:
        """Watch a handler that begins to run."""
        self._pumping.add(subscription)
        if self._watchdog is None:
            self._arm()

    def pump_ended(self, subscription: QueuedSubscription) -> None:
        """Stop watching it."""
        self._pumping.discard(subscription)

    def forget(self, subscription: BaseSubscription) -> None:
        """Take a cancelled subscription out of everything."""
        self._trie.remove(subscription.words, subscription)
        owned = self._subscriptions_by_owner[subscription.owner]
        owned.discard(subscription)
        if not owned:
            del self._subscriptions_by_owner[subscription.owner]
        for topic in self._topics.values():
            if subscription in topic.subscriptions:
                self._resolve(topic)

    # ------------------------------------------------------------ inside

    def _arm(self) -> None:
        # A quarter of the deadline: a handler is cancelled at most 25 % late, for one timer in all.
        self._watchdog = asyncio.get_running_loop().call_later(self.handler_timeout_s / 4, self._check_deadlines)

    def _check_deadlines(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for subscription in list(self._pumping):
            if now_s - subscription.running_since_s > self.handler_timeout_s:
                subscription.overran()
        self._watchdog = None
        if self._pumping:
            self._arm()

    def _resolve(self, topic: _Topic) -> None:
        topic.subscriptions = tuple(sorted(self._trie.match(topic.name), key=lambda subscription: subscription.order))

    def _topic_of(self, event_type: type[Event]) -> _Topic:
        self._learn_new_events()
        topic = self._by_type.get(event_type)
        if topic is None:
            raise ValueError(f"{event_type.__qualname__} declares no topic of its own, so nobody could listen to it")
        return topic

    def _learn_new_events(self) -> None:
        """Event classes may be declared after this bus was made, by a component that is loaded later."""
        for event_type in declared_events():
            if event_type not in self._by_type:
                self._declare(event_type)

    def _declare(self, event_type: type[Event]) -> None:
        name = event_type.topic
        if not is_topic(name) or self._owner_of_topic.setdefault(name, event_type) is not event_type:
            return  # a malformed topic, or a second class for one, stays unknown: using it is refused
        topic = _Topic(name, self._overflow.get(name, Overflow.SHED_NEW))
        self._topics[name] = self._by_type[event_type] = topic
        self._resolve(topic)


class ScopedBus:
    """The bus for one owner: everything it subscribes ends with it."""

    def __init__(self, bus: EventBus, owner: str) -> None:
        self._bus, self.owner = bus, owner
        # Bound once, so that the scope adds nothing to the cost of an event.
        self.emit = bus.emit
        self.publish = bus.publish
        self.has_listeners = bus.has_listeners

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        """See `contracts.bus.Bus.on`."""
        return self._bus.subscribe(self.owner, pattern, handler, priority=priority)

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        """See `contracts.bus.Bus.queue`."""
        return self._bus.delay(self.owner, event, delay_s)

    def cancel_all(self) -> None:
        """End every subscription and delayed event made through this view."""
        self._bus.cancel_all(self.owner)

    async def close(self) -> None:
        """End every subscription, then return once none of its handlers runs."""
        await self._bus.close_owner(self.owner)


def _is_async(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _means(words: tuple[str, ...], topic: str) -> bool:
    """Whether a parsed pattern means a topic."""
    trie: PatternTrie[bool] = PatternTrie()
    trie.add(words, True)
    return bool(trie.match(topic))
