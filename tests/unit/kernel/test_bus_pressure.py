"""Full queues: every event offered is accepted or shed, and the announcement of it always arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.events import Envelope, Event, EventBusBackpressure
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.policy import DEFAULT_OVERFLOW, Overflow, overflow_of
from magmobo.kernel.bus.subscription import QueuedSubscription

POSTS = 1_000_000


class Posted(Event, frozen=True, gc=False):
    topic = "bus_pressure_tests.posted"
    number: int = 0


class Noise(Event, frozen=True, gc=False):
    topic = "bus_pressure_tests.noise"


async def test_a_million_posts_into_full_queues_by_reentrant_publishers_balance_exactly() -> None:
    bus = EventBus(queue_limit=50)
    posted, received = [0], [0]

    async def slow(envelope: Envelope[Posted]) -> None:
        received[0] += 1
        await asyncio.sleep(0)

    async def fast(envelope: Envelope[Posted]) -> None:
        received[0] += 1

    def echo(envelope: Envelope[Posted]) -> None:
        """Posts again from inside, for every second one."""
        if envelope.data.number == 0 and envelope.seq % 2:
            posted[0] += 1
            bus.emit(again)

    event, again = Posted(), Posted(number=1)
    handlers = [bus.on(Posted, slow), bus.on("bus_pressure_tests.*", fast)]
    bus.on(Posted, echo, priority=1)
    while posted[0] < POSTS:
        for _ in range(20_000):
            posted[0] += 1
            bus.emit(event)
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while bus.queue_depth() or not all(handler.idle for handler in handlers):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    counts = bus.counts()[Posted.topic]
    assert counts.emitted == posted[0] >= POSTS
    assert all(isinstance(handler, QueuedSubscription) for handler in handlers)
    offered = [handler.accepted + handler.shed for handler in handlers]  # type: ignore[attr-defined]
    assert offered == [posted[0]] * 2
    assert counts.shed == sum(handler.shed for handler in handlers)  # type: ignore[attr-defined]
    assert received[0] == sum(handler.accepted for handler in handlers)  # type: ignore[attr-defined]
    assert counts.shed > POSTS, "the queues were not full"


async def test_pressure_reaches_a_subscriber_whose_own_queue_is_full() -> None:
    bus = EventBus(queue_limit=4)
    go_on, told = asyncio.Event(), []

    async def everything(envelope: Envelope[Any]) -> None:
        await go_on.wait()
        if isinstance(envelope.data, EventBusBackpressure):
            told.append((envelope.seq, envelope.data.shed_topic, envelope.data.shed))

    subscription = bus.on("**", everything)
    for _ in range(104):
        bus.emit(Posted())
    for _ in range(8):
        bus.emit(Noise())
    assert isinstance(subscription, QueuedSubscription)
    assert len(subscription.queue) <= 4 + 2
    go_on.set()
    async with asyncio.timeout(20):
        while not subscription.idle:
            await asyncio.sleep(0)
    assert [topic for _, topic, _ in told] == [Posted.topic, Noise.topic]
    assert told == sorted(told), "in the order in which they were emitted"
    assert told[0][2] == 64
    assert bus.counts()[EventBusBackpressure.topic].shed == 0
    # each announcement that a newer one made superfluous is accounted for
    assert subscription.accepted == subscription.delivered + subscription.dropped


def test_nested_events_that_find_no_room_are_announced() -> None:
    bus = EventBus(queue_limit=10)
    signals: list[EventBusBackpressure] = []

    def flood(envelope: Envelope[Posted]) -> None:
        if envelope.data.number == 0:
            for number in range(1, 31):
                bus.emit(Posted(number=number))

    bus.on(Posted, flood)
    bus.on(EventBusBackpressure, lambda envelope: signals.append(envelope.data))
    bus.emit(Posted())
    assert [signal.shed for signal in signals] == [1, 2, 4, 8, 16]
    assert bus.counts()[Posted.topic].shed == 20
    bus.emit(Posted())
    assert [signal.shed for signal in signals][5:] == [21, 22, 24, 28, 36], "a new burst is announced anew"


def test_a_handler_of_pressure_that_makes_pressure_ends() -> None:
    bus = EventBus(queue_limit=2)
    calls = [0]

    def feeds_itself(envelope: Envelope[Any]) -> None:
        calls[0] += 1
        if calls[0] < 1_000:
            for _ in range(5):
                bus.emit(EventBusBackpressure(depth=0, shed=0, shed_topic=f"t{calls[0] % 7}"))

    bus.on(EventBusBackpressure, feeds_itself)
    bus.emit(EventBusBackpressure(depth=0, shed=0, shed_topic="t"))
    assert calls[0] >= 1_000
    assert bus.counts()[EventBusBackpressure.topic].shed == 0


async def test_where_the_newest_counts_the_oldest_goes_but_never_an_announcement() -> None:
    bus = EventBus(queue_limit=2, overflow={Posted.topic: Overflow.SHED_OLDEST})
    go_on, seen = asyncio.Event(), []

    async def everything(envelope: Envelope[Any]) -> None:
        await go_on.wait()
        seen.append(getattr(envelope.data, "number", envelope.topic))

    subscription = bus.on("**", everything)
    for number in range(100):
        bus.emit(Posted(number=number))
    go_on.set()
    assert isinstance(subscription, QueuedSubscription)
    async with asyncio.timeout(20):
        while not subscription.idle:
            await asyncio.sleep(0)
    assert EventBusBackpressure.topic in seen
    assert seen[-1] in (99, EventBusBackpressure.topic)
    assert 99 in seen


@pytest.mark.parametrize(
    ("topic", "policy"),
    [
        ("security.breakglass", Overflow.BLOCK_OUTSIDE_HANDLERS),
        ("component.state_changed", Overflow.SHED_OLDEST),
        ("database.schema_changed", Overflow.SHED_OLDEST),
        ("database.change", Overflow.SHED_NEW),
        ("realtime.gap", Overflow.SHED_NEW),
    ],
)
def test_each_kind_of_topic_has_its_policy(topic: str, policy: Overflow) -> None:
    assert overflow_of(topic, {}, DEFAULT_OVERFLOW) is policy
    assert overflow_of(topic, {"**": Overflow.SHED_NEW}, DEFAULT_OVERFLOW) is Overflow.SHED_NEW


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(
    limit=st.integers(1, 4),
    bursts=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 3)), max_size=8),
    policy=st.sampled_from(list(Overflow)),
)
def test_offered_is_accepted_or_shed_whatever_the_order_of_things(
    limit: int, bursts: list[tuple[int, int, int]], policy: Overflow
) -> None:
    async def scenario() -> None:
        bus = EventBus(queue_limit=limit, overflow={"bus_pressure_tests.**": policy})
        delivered: list[str] = []

        async def handler(envelope: Envelope[Any]) -> None:
            delivered.append(envelope.topic)
            await asyncio.sleep(0)

        subscription = bus.on("**", handler)
        assert isinstance(subscription, QueuedSubscription)
        for posts, noises, turns in bursts:
            for _ in range(posts):
                bus.emit(Posted())
            for _ in range(noises):
                bus.emit(Noise())
            for _ in range(turns):
                await asyncio.sleep(0)
        while not subscription.idle:
            await asyncio.sleep(0)
        emitted = sum(count.emitted for count in bus.counts().values())
        assert subscription.accepted + subscription.shed == emitted
        assert subscription.accepted == subscription.delivered + subscription.dropped
        assert subscription.delivered == len(delivered)
        shed_topics = {topic for topic, count in bus.counts().items() if count.shed}
        assert EventBusBackpressure.topic not in shed_topics
        assert not shed_topics or EventBusBackpressure.topic in delivered

    asyncio.run(scenario())
