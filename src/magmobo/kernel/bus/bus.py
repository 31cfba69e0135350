"""The bus of one node.

Emitting is a dict look-up, a number, one envelope and one call per handler: who gets what is resolved when a
subscription changes. An event goes to those who were subscribed when it was emitted. One emitted on a topic from inside
a handler of that topic waits until the present one has reached everybody, so all handlers see the same order. What is
emitted inside a handler carries the handled event as its cause, and its trace.
Boundary: one event loop, no threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from magmobo.contracts.bus import AsyncHandler, Handler, Subscription
from magmobo.contracts.events import Envelope, Event, EventBusBackpressure
from magmobo.kernel.bus.deadlines import Deadlines
from magmobo.kernel.bus.delayed import Delayed
from magmobo.kernel.bus.directory import Directory, TopicCounts
from magmobo.kernel.bus.dispatch import Receiver, Sampled, Timing, Topic
from magmobo.kernel.bus.history import DeadLetters, History
from magmobo.kernel.bus.policy import Overflow
from magmobo.kernel.bus.rounds import DONE
from magmobo.kernel.bus.scoped import ScopedBus
from magmobo.kernel.bus.subscription import (
    BaseSubscription,
    QueuedSubscription,
    position_of_pressure,
)
from magmobo.kernel.bus.trace import Cause, cause_here, caused, in_trace

FailureReport = Callable[[str, str, str, BaseException], None]
"""Told about a failing handler: owner, topic, handler name, error."""

_CALM_S = 0.25  # a topic that floods is looked at again after so long
_cause_in_task = cause_here.get


def _silent(owner: str, topic: str, handler: str, error: BaseException) -> None:
    """Counts and dead letters speak for themselves when nobody asked to be told."""


class EventBus:
    """Implements `contracts.bus.Bus` for the whole node; components get a `ScopedBus` of it.

    Args:
        origin: instance id, stamped on every envelope.
        monotonic_s: tells how fast a topic is.
        queue_limit: events one async subscription may have waiting, and nested events one topic may have waiting.
        delayed_limit: delayed events one owner may have waiting.
        handler_timeout_s: an async handler that runs longer is cancelled and counted.
        overflow: policy by topic or pattern, before those of `policy.DEFAULT_OVERFLOW`.
        history_limit, history_bytes: see `history.History`; dead letters have the same bound of bytes.
        on_failure: told about every failing handler; must not raise.
        on_timing: told what about 1 handler call in 64 took; must not raise.
    """

    def __init__(
        self,
        *,
        origin: str = "",
        time_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        queue_limit: int = 4096,
        delayed_limit: int = 1024,
        handler_timeout_s: float = 30.0,
        overflow: Mapping[str, Overflow] = {},
        history_limit: int = 2000,
        history_bytes: int = 4 << 20,
        dead_letter_limit: int = 256,
        on_failure: FailureReport = _silent,
        on_timing: Timing | None = None,
    ) -> None:
        self.queue_limit = queue_limit
        self.origin, self.time_s, self._monotonic_s = origin, time_s, monotonic_s
        self._on_failure, self._on_timing = on_failure, on_timing
        self.history = History(limit=history_limit, limit_bytes=history_bytes)
        self.dead_letters = DeadLetters(limit=dead_letter_limit, limit_bytes=history_bytes)
        self._directory = Directory(self, overflow, self.history)
        self._by_type, self._rounds = self._directory.by_type, self._directory.rounds
        self.cause: Cause | None = None  # the event being delivered now
        self._deadlines = Deadlines(handler_timeout_s)
        self._running = self._deadlines.running
        self.at_work: set[QueuedSubscription] = set()  # those that are not idle
        self._delayed = Delayed(self.emit, limit=delayed_limit)
        self._calm_timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ emitting

    def emit(self, event: Event) -> None:
        """See `contracts.bus.Bus.emit`. Raises: ValueError only for an event class without a topic of its own."""
        # The hot path, measured by benchmarks/bench_bus.py; each line below costs 5 to 20 of its 220 ns.
        try:
            topic = self._by_type[type(event)]
        except KeyError:
            topic = self._directory.topic_of(type(event))
        for seq in topic.tickets:  # noqa: B007 - the cheapest way to take one number and notice the last
            break
        else:
            self._emit_sampled(topic, event)
            return
        if (receiver := topic.receiver) is None:
            return
        if self.cause is not None or _cause_in_task() is not None:
            self._emit_caused(topic, event, seq, receiver)
            return
        time_s, deliver = self.time_s, receiver.deliver  # in variables: the interpreter looks for no method
        self.cause = envelope = Envelope(topic.name, event, time_s(), seq, self.origin)
        try:
            deliver(envelope)
        except Exception as error:  # of a handler that is alone
            receiver.blame(envelope, error)
        finally:
            self.cause = None
            if topic.has_pending:
                self.drain(topic)

    def _emit_sampled(self, topic: Topic, event: Event) -> None:
        """The first event of a block: it is always remembered, and its handlers are timed."""
        seq = self.next_block(topic)
        if topic.subscriptions or topic.remember is not None:
            self._emit_caused(topic, event, seq, Sampled(topic.subscriptions, topic.remember, self.handler_took))

    def _emit_caused(self, topic: Topic, event: Event, seq: int, receiver: Receiver) -> None:
        """Emit what a handler or a trace caused, or what might have been."""
        delivering = self.cause
        envelope = self.envelope(topic, event, seq, delivering or _cause_in_task())
        if delivering is None:
            self._deliver(topic, envelope, receiver)
        elif not receiver.reaches_anybody:
            receiver.hand_over(envelope)  # to be remembered: no handler could see it too early
        elif topic.busy or delivering.topic == topic.name:
            self._postpone(topic, envelope, receiver)
        else:
            outer = self._directory.topics[delivering.topic]
            was_busy, outer.busy = outer.busy, True
            try:
                self._deliver(topic, envelope, receiver)
            finally:
                outer.busy = was_busy

    def envelope(self, topic: Topic, event: Event, seq: int, cause: Cause | None) -> Envelope[Any]:
        """The envelope of an event that `cause` caused, or nothing."""
        if cause is None:
            return Envelope(topic.name, event, self.time_s(), seq, self.origin)
        return caused(topic.name, event, self.time_s(), seq, self.origin, cause)

    def _deliver(self, topic: Topic, envelope: Envelope[Any], receiver: Receiver) -> None:
        outer, self.cause = self.cause, envelope
        try:
            receiver.hand_over(envelope)
        finally:
            self.cause = outer
            if topic.has_pending:
                self.drain(topic)

    def _postpone(self, topic: Topic, envelope: Envelope[Any], receiver: Receiver) -> None:
        if len(topic.pending) >= self.queue_limit:
            if topic.name != EventBusBackpressure.topic:
                topic.pending_shed += 1
                self._shed(topic, topic.pending_shed, len(topic.pending))
                return
            older = position_of_pressure((waiting for waiting, _ in topic.pending), envelope)
            if older is not None:  # the newest says it all, and is never shed
                del topic.pending[older]
        topic.pending.append((envelope, receiver))
        topic.has_pending = True

    def drain(self, topic: Topic) -> None:
        """Deliver what was emitted on a topic while it was busy."""
        outer = self.cause
        try:
            while topic.pending:
                envelope, receiver = topic.pending.popleft()
                self.cause = envelope
                receiver.hand_over(envelope)
            topic.has_pending, topic.pending_shed = False, 0
        finally:
            self.cause = outer

    def next_block(self, topic: Topic) -> int:
        """The first number of a new block; see `Topic.next_block`."""
        seq = topic.next_block(self._monotonic_s())
        if topic.flooding and self._calm_timer is None:
            try:
                self._calm_timer = asyncio.get_running_loop().call_later(_CALM_S, self._calm)
            except RuntimeError:  # no loop, so nobody who could see a topic calm down either
                return seq
        return seq

    def _calm(self) -> None:
        self._calm_timer = None
        for topic in self._directory.topics.values():
            topic.calm()

    # ------------------------------------------------------------ publishing and delaying

    async def publish(self, event: Event) -> None:
        """See `contracts.bus.Bus.publish`. Inside an async handler it only queues: it might wait for itself."""
        # The other hot path of the bus goes from here through `rounds`.
        try:
            round_ = self._rounds[type(event)]
        except KeyError:
            round_ = self._directory.topic_of(type(event)).round
        if self.cause is not None:
            self.emit(event)
            return
        if self.at_work:  # handlers that wait or have a queue, of any topic
            if asyncio.current_task() in self._running:
                self.emit(event)
                return
            if not self.at_work.isdisjoint(round_.topic.queued):
                await self._publish_queued(round_.topic, event)
                return
        begin = round_.begin  # in a variable: the interpreter looks for no method
        try:
            if (waiting_for := begin(event)) is DONE:
                return
            rest = round_.rest(event, waiting_for)
        except BaseException:
            round_.break_off()
            raise
        if rest is not None:
            await rest

    async def _publish_queued(self, topic: Topic, event: Event) -> None:
        if topic.overflow is Overflow.BLOCK_OUTSIDE_HANDLERS:
            while full := [subscription for subscription in topic.queued if subscription.is_full]:
                oldest = full[0].queue[0]
                await full[0].completion(oldest.topic, oldest.seq)
        seq = topic.count + 1  # nothing can be emitted between here and `emit`
        done = [subscription.completion(topic.name, seq) for subscription in topic.queued]
        self.emit(event)
        for future in done:
            await future

    def queue(self, event: Event, *, delay_s: float) -> Subscription:
        """See `contracts.bus.Bus.queue`; the delayed event belongs to nobody and ends with the bus."""
        return self.delay("", event, delay_s)

    def delay(self, owner: str, event: Event, delay_s: float) -> Subscription:
        """Like `queue`, for `owner`: `cancel_all(owner)` ends it. Raises: as `queue`; Unavailable once closed."""
        if type(event) not in self._by_type:
            self._directory.topic_of(type(event))
        return self._delayed.add(owner, event, delay_s, self.cause or _cause_in_task())

    @contextmanager
    def trace(self, trace_id: str) -> Iterator[None]:
        """What is emitted inside, also by handlers and by tasks that are started inside, carries `trace_id`."""
        delivering = self.cause
        if delivering is not None:
            self.cause = traced = in_trace(trace_id, delivering)
            try:
                yield
            finally:
                if self.cause is traced:
                    self.cause = delivering
                else:  # it is an async handler that waited inside of this block
                    cause_here.set(delivering)
            return
        token = cause_here.set(in_trace(trace_id, _cause_in_task()))
        try:
            yield
        finally:
            cause_here.reset(token)

    # ------------------------------------------------------------ subscribing

    def on(self, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0) -> Subscription:
        """See `contracts.bus.Bus.on`; the subscription belongs to nobody and lives until it is cancelled."""
        return self.subscribe("", pattern, handler, priority=priority)

    def subscribe(
        self, owner: str, pattern: str | type[Event], handler: Handler | AsyncHandler, *, priority: int = 0
    ) -> Subscription:
        """Like `on`, for `owner`: `cancel_all(owner)` ends it. Raises: BadPattern, UnknownTopic; Unavailable once
        closed.
        """
        return self._directory.subscribe(owner, pattern, handler, priority)

    def has_listeners(self, event_type: type[Event]) -> bool:
        """See `contracts.bus.Bus.has_listeners`."""
        return bool((self._by_type.get(event_type) or self._directory.topic_of(event_type)).subscriptions)

    def remember(self, limit: int) -> None:
        """Keep the last `limit` events from now on, 0 for none; see `history.History`."""
        self.history.resize(limit)
        for topic in self._directory.topics.values():
            topic.remember_anew()

    def scoped(self, owner: str) -> ScopedBus:
        """The bus as one component sees it."""
        return ScopedBus(self, owner)

    def cancel_all(self, owner: str) -> None:
        """End every subscription and delayed event of `owner`; nothing of it is delivered or emitted any more."""
        self._delayed.cancel_all(owner)
        for subscription in self._directory.of(owner):
            subscription.cancel()

    async def close_owner(self, owner: str, *, grace_s: float = 2.0) -> None:
        """`cancel_all`, then return once no handler of `owner` runs any more, or `grace_s` passed."""
        await self._end([owner], grace_s)

    async def close(self, *, grace_s: float = 2.0) -> None:
        """End everything: subscriptions, delayed events, timers, and who waits for history.

        What is emitted after that reaches nobody. Returns once no handler runs any more, or `grace_s` passed.
        """
        self._delayed.close()
        self._directory.close()
        await self._end(self._directory.owners(), grace_s)
        self._deadlines.close()
        if self._calm_timer is not None:
            self._calm_timer.cancel()
        self.history.close()

    async def _end(self, owners: Iterable[str], grace_s: float) -> None:
        here = asyncio.current_task()
        ended: list[asyncio.Future[None]] = []
        for owner in tuple(owners):
            for subscription in self._directory.of(owner):
                if isinstance(subscription, QueuedSubscription) and subscription.task is not here:
                    ended.append(subscription.rested())
            self.cancel_all(owner)
        if ended:
            await asyncio.wait(ended, timeout=grace_s)

    # ------------------------------------------------------------ what it counts

    def subscription_count(self, owner: str | None = None) -> int:
        """Live subscriptions, of one owner or of all."""
        return self._directory.count(owner)

    def delayed_count(self, owner: str | None = None) -> int:
        """Delayed events that wait, of one owner or of all."""
        return self._delayed.count(owner)

    def queue_depth(self, owner: str | None = None) -> int:
        """Events that wait now for async handlers, of one owner or of all."""
        owners = self._directory.owners() if owner is None else [owner]
        mine = (subscription for name in owners for subscription in self._directory.of(name))
        return sum(len(subscription.queue) for subscription in mine if isinstance(subscription, QueuedSubscription))

    def counts(self) -> dict[str, TopicCounts]:
        """By topic, since the bus was made; topics without any event are left out."""
        return self._directory.counts()

    # ------------------------------------------------------------ called by subscriptions

    def handler_failed(self, subscription: BaseSubscription, envelope: Envelope[Any], error: BaseException) -> None:
        """Count, keep and report one failed call."""
        self._directory.topics[envelope.topic].errors += 1
        self.dead_letters.add(self.time_s(), subscription.owner, subscription.handler_name, error, envelope)
        self._on_failure(subscription.owner, envelope.topic, subscription.handler_name, error)

    def event_shed(self, subscription: QueuedSubscription, topic: str) -> None:
        """Count an event that found the queue of `subscription` full."""
        subscription.bursts[topic] = burst = subscription.bursts.get(topic, 0) + 1
        self._shed(self._directory.topics[topic], burst, len(subscription.queue))

    def _shed(self, topic: Topic, burst: int, depth: int) -> None:
        """Count a lost event; announce the 1st, 2nd, 4th, 8th … of a burst, so that a flood stays small.

        A burst ends when the queue is empty.
        """
        topic.shed += 1
        if burst & (burst - 1) == 0:
            self.emit(EventBusBackpressure(depth=depth, shed=topic.shed, shed_topic=topic.name))

    def overflow(self, topic: str) -> Overflow:
        """The policy of a topic."""
        return self._directory.topics[topic].overflow

    def handler_began(self, task: asyncio.Task[Any], subscription: QueuedSubscription) -> None:
        """Watch a handler that begins to run."""
        self._deadlines.began(task, subscription)

    def handler_ended(self, task: asyncio.Task[Any]) -> None:
        """Stop watching it."""
        self._deadlines.ended(task)

    def handler_took(self, topic: str, duration_s: float) -> None:
        """One sampled call of a handler."""
        if self._on_timing is not None:
            self._on_timing(topic, duration_s)

    def forget(self, subscription: BaseSubscription) -> None:
        """Take a cancelled subscription out of everything."""
        self._directory.forget(subscription)
