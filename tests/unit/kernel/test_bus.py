"""The promises of the bus: order, isolation, bounds, exact accounts, and silence after a cancel."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.events import (
    ComponentStarted,
    ComponentStopped,
    Envelope,
    Event,
    EventBusBackpressure,
    SystemShutdown,
)
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.subscription import Overflow, QueuedSubscription
from magmobo.kernel.bus.topics import PatternTrie, parse_pattern


class Numbered(Event, frozen=True, gc=False):
    topic = "bus_tests.numbered"
    number: int


class Impostor(Event, frozen=True, gc=False):
    topic = "bus_tests.numbered"


class Nameless(Event, frozen=True, gc=False):
    pass


def numbers(seen: list[int]) -> Any:
    return lambda envelope: seen.append(envelope.data.number)


# ---------------------------------------------------------------- envelopes and patterns


def test_an_envelope_carries_topic_sequence_time_and_origin() -> None:
    bus = EventBus(origin="node-1", time_s=lambda: 42.0)
    seen: list[Envelope[Numbered]] = []
    bus.on(Numbered, seen.append)
    bus.emit(Numbered(number=7))
    bus.emit(Numbered(number=8))
    assert [(e.topic, e.seq, e.time_s, e.origin) for e in seen] == [
        ("bus_tests.numbered", 1, 42.0, "node-1"),
        ("bus_tests.numbered", 2, 42.0, "node-1"),
    ]
    assert seen[1].id == "node-1/bus_tests.numbered/2"


@pytest.mark.parametrize(
    "pattern", ["", ".", "a..b", "Component.x", "component.", "a.**.b", "component.st*", "no.such"]
)
def test_a_malformed_or_unknown_pattern_is_refused(pattern: str) -> None:
    bus = EventBus()
    with pytest.raises(ValueError, match=r"pattern|topic"):
        bus.on(pattern, lambda _: None)
    assert bus.subscription_count() == 0


def test_an_event_without_a_topic_of_its_own_is_refused() -> None:
    bus = EventBus()
    for event in (Nameless(), Impostor()):
        with pytest.raises(ValueError, match="no topic of its own"):
            bus.emit(event)


def test_an_event_declared_after_the_bus_reaches_older_wildcards() -> None:
    bus = EventBus()
    seen: list[str] = []
    bus.on("**", lambda envelope: seen.append(envelope.topic))

    class Late(Event, frozen=True, gc=False):
        topic = "bus_tests.late"

    bus.emit(Late())
    assert seen == ["bus_tests.late"]


words = st.sampled_from(["a", "b", "c"])
topics = st.lists(words, min_size=1, max_size=5).map(".".join)
patterns = st.builds(
    lambda body, tail: ".".join([*body, *tail]),
    st.lists(words | st.just("*"), max_size=4),
    st.sampled_from([["**"], ["*"], ["a"]]),
)


def brute_force(pattern: list[str], topic: list[str]) -> bool:
    if pattern == ["**"]:
        return True
    if not pattern or not topic:
        return not pattern and not topic
    return pattern[0] in ("*", topic[0]) and brute_force(pattern[1:], topic[1:])


@settings(deadline=None)  # a busy machine is not a failure
@given(st.lists(patterns, max_size=12), st.lists(topics, max_size=8), st.data())
def test_the_trie_agrees_with_brute_force_also_after_removals(
    filed: list[str], asked: list[str], data: st.DataObject
) -> None:
    trie: PatternTrie[int] = PatternTrie()
    for number, pattern in enumerate(filed):
        trie.add(parse_pattern(pattern), number)
    removed = data.draw(st.sets(st.sampled_from(range(len(filed))))) if filed else set()
    for number in removed:
        trie.remove(parse_pattern(filed[number]), number)
    left = {number for number in range(len(filed)) if number not in removed}
    for topic in asked:
        expected = sorted(n for n in left if brute_force(filed[n].split("."), topic.split(".")))
        assert sorted(trie.match(topic)) == expected
    for number in left:
        trie.remove(parse_pattern(filed[number]), number)
    assert trie.is_empty


# ---------------------------------------------------------------- order


def test_priority_then_order_of_subscription_decides_across_patterns() -> None:
    bus = EventBus()
    seen: list[str] = []
    bus.on("component.started", lambda _: seen.append("exact"))
    bus.on("component.*", lambda _: seen.append("star"))
    bus.on("**", lambda _: seen.append("first"), priority=5)
    bus.on(ComponentStarted, lambda _: seen.append("last"), priority=-1)
    bus.emit(ComponentStarted(name="x"))
    assert seen == ["first", "exact", "star", "last"]


@settings(deadline=None)  # a busy machine is not a failure
@given(st.recursive(st.just(()), lambda children: st.lists(children, max_size=3).map(tuple), max_leaves=12))
def test_every_handler_sees_the_same_order_however_emits_nest(tree: tuple[Any, ...]) -> None:
    """`tree`: while event number n is handled, its children are emitted."""
    bus = EventBus()
    numbering = iter(range(10_000))
    children: dict[int, tuple[Any, ...]] = {}
    first: list[int] = []
    last: list[int] = []

    def emit(node: tuple[Any, ...]) -> None:
        number = next(numbering)
        children[number] = node
        bus.emit(Numbered(number=number))

    def nesting(envelope: Envelope[Numbered]) -> None:
        for child in children[envelope.data.number]:
            emit(child)

    bus.on(Numbered, numbers(first), priority=1)
    bus.on(Numbered, nesting)
    bus.on(Numbered, numbers(last), priority=-1)
    emit(tree)
    assert first == last == sorted(first)
    assert len(first) == len(children)


@pytest.mark.parametrize("warm", [False, True])
def test_an_event_that_comes_back_over_another_topic_waits_too(warm: bool) -> None:
    bus = EventBus()
    seen: list[tuple[str, int]] = []
    if warm:  # the first event of a topic takes another way through the bus than those after it
        bus.emit(Numbered(number=-1))
        bus.emit(ComponentStarted(name=""))

    def there(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 0:
            bus.emit(ComponentStarted(name="x"))

    bus.on(Numbered, there)
    bus.on(ComponentStarted, lambda _: bus.emit(Numbered(number=1)))
    bus.on(Numbered, lambda envelope: seen.append(("second", envelope.data.number)))
    bus.on(Numbered, lambda envelope: seen.append(("third", envelope.data.number)))
    bus.emit(Numbered(number=0))
    assert seen == [("second", 0), ("third", 0), ("second", 1), ("third", 1)]


def test_a_nested_event_goes_to_those_subscribed_when_it_was_emitted() -> None:
    bus = EventBus()
    late: list[int] = []

    def handler(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 0:
            bus.emit(Numbered(number=1))
            bus.on(Numbered, numbers(late))
            bus.emit(Numbered(number=2))

    bus.on(Numbered, handler)
    bus.emit(Numbered(number=0))
    assert late == [2]


# ---------------------------------------------------------------- isolation


def test_a_failing_handler_stops_no_other_and_is_reported() -> None:
    reports: list[tuple[str, str, str]] = []
    bus = EventBus(on_failure=lambda owner, topic, handler, error: reports.append((owner, topic, str(error))))
    seen: list[int] = []

    def broken(envelope: Envelope[Numbered]) -> None:
        raise RuntimeError("broken on purpose")

    bus.on(Numbered, numbers([]), priority=2)
    bus.scoped("magds").on(Numbered, broken, priority=1)
    bus.on(Numbered, numbers(seen))
    for number in range(3):
        bus.emit(Numbered(number=number))
    assert seen == [0, 1, 2]
    assert reports == [("magds", "bus_tests.numbered", "broken on purpose")] * 3
    assert bus.counts()["bus_tests.numbered"].errors == 3


@pytest.mark.parametrize("count", [1, 2, 16, 17, 40])
def test_any_number_of_handlers_is_kept_apart_and_each_is_blamed_for_its_own(count: int) -> None:
    reports: list[str] = []
    bus = EventBus(on_failure=lambda owner, topic, handler, error: reports.append(owner))
    seen: list[int] = []

    def make(index: int) -> Any:
        def handler(envelope: Envelope[Numbered]) -> None:
            seen.append(index)
            if index % 3 == 0:
                raise RuntimeError("broken on purpose")

        return handler

    subscriptions = [bus.scoped(f"owner{index}").on(Numbered, make(index)) for index in range(count)]
    for number in range(3):
        bus.emit(Numbered(number=number))
    assert seen == list(range(count)) * 3
    assert reports == [f"owner{index}" for index in range(0, count, 3)] * 3
    subscriptions[-1].cancel()
    seen.clear()
    bus.emit(Numbered(number=3))
    assert seen == list(range(count - 1))


def test_an_interrupt_passes_and_leaves_the_topic_usable() -> None:
    bus = EventBus()
    seen: list[int] = []

    def interrupted(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 0:
            raise KeyboardInterrupt

    bus.on(Numbered, interrupted)
    bus.on(Numbered, numbers(seen))
    bus.on("**", lambda envelope: causes.append(envelope.causation_id), priority=-1)
    causes: list[str] = []
    for number in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            bus.emit(Numbered(number=0))
        bus.emit(Numbered(number=number))
    assert seen == [1, 2, 3]
    assert causes == ["", "", ""]


# ---------------------------------------------------------------- cancelling


@settings(deadline=None)  # a busy machine is not a failure
@given(st.sets(st.integers(0, 5)), st.integers(0, 5), st.booleans())
def test_nothing_is_delivered_after_a_cancel_also_from_inside_a_handler(
    victims: set[int], canceller: int, warm: bool
) -> None:
    bus = EventBus()
    seen: list[tuple[int, int]] = []

    def make(index: int) -> Any:
        def handler(envelope: Envelope[Numbered]) -> None:
            seen.append((index, envelope.data.number))
            if index == canceller and envelope.data.number == 0:
                bus.emit(Numbered(number=1))  # on its way to everybody when the victims are cancelled
                for victim in victims:
                    subscriptions[victim].cancel()
                    subscriptions[victim].cancel()

        return handler

    if warm:  # the first event of a topic takes another way through the bus than those after it
        bus.emit(Numbered(number=-1))
    subscriptions = [bus.on(Numbered, make(index)) for index in range(6)]
    bus.emit(Numbered(number=0))
    expected = [(i, 0) for i in range(6) if i <= canceller or i not in victims]
    expected += [(i, 1) for i in range(6) if i not in victims]
    assert seen == expected
    assert bus.subscription_count() == 6 - len(victims)


def test_cancelling_an_owner_ends_its_subscriptions_only() -> None:
    bus = EventBus()
    mine, other = bus.scoped("mine"), bus.scoped("other")
    seen: list[int] = []
    mine.on("bus_tests.*", numbers(seen))
    mine.on("**", numbers(seen))
    other.on(Numbered, numbers(seen))
    mine.cancel_all()
    bus.emit(Numbered(number=1))
    assert seen == [1]
    assert (bus.subscription_count("mine"), bus.subscription_count("other")) == (0, 1)


def test_has_listeners_follows_subscriptions() -> None:
    bus = EventBus()
    assert not bus.has_listeners(ComponentStopped)
    subscription = bus.on("component.**", lambda _: None)
    assert bus.has_listeners(ComponentStopped)
    assert not bus.has_listeners(SystemShutdown)
    subscription.cancel()
    assert not bus.has_listeners(ComponentStopped)


# ---------------------------------------------------------------- async handlers


async def test_async_handlers_get_events_in_order_and_publish_waits_for_them() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def slow(envelope: Envelope[Numbered]) -> None:
        await asyncio.sleep(0)
        seen.append(envelope.data.number)

    bus.on(Numbered, slow)
    for number in range(5):
        bus.emit(Numbered(number=number))
    assert seen == []
    await bus.publish(Numbered(number=5))
    assert seen == [0, 1, 2, 3, 4, 5]


async def test_publish_returns_when_its_handler_fails_or_is_cancelled() -> None:
    bus = EventBus()

    async def broken(envelope: Envelope[Numbered]) -> None:
        raise RuntimeError("broken on purpose")

    bus.on(Numbered, broken)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=1))
    assert bus.counts()["bus_tests.numbered"].errors == 1

    async def endless(envelope: Envelope[Numbered]) -> None:
        await asyncio.Event().wait()

    subscription = bus.on(Numbered, endless)
    canceller = bus.on(Numbered, lambda _: None)
    waiting = asyncio.create_task(bus.publish(Numbered(number=2)))
    await asyncio.sleep(0)
    subscription.cancel()
    canceller.cancel()
    async with asyncio.timeout(20):
        await waiting


async def test_publish_returns_when_a_sync_handler_cancels_the_async_one() -> None:
    bus = EventBus()

    async def never(envelope: Envelope[Numbered]) -> None:
        raise AssertionError("was cancelled")

    victim = bus.on(Numbered, never)
    bus.on(Numbered, lambda _: victim.cancel(), priority=1)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=1))


async def test_publishing_from_inside_an_async_handler_does_not_wait_for_itself() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def echo(envelope: Envelope[Numbered]) -> None:
        seen.append(envelope.data.number)
        if envelope.data.number < 3:
            await bus.publish(Numbered(number=envelope.data.number + 1))

    bus.on(Numbered, echo)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=0))
        while len(seen) < 4:
            await asyncio.sleep(0)
    assert seen == [0, 1, 2, 3]


async def test_a_hung_handler_is_cancelled_at_its_deadline_and_the_next_event_follows() -> None:
    errors: list[str] = []
    bus = EventBus(handler_timeout_s=0.05, on_failure=lambda *report: errors.append(str(report[3])))
    seen: list[int] = []

    async def sometimes_hangs(envelope: Envelope[Numbered]) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "the cancellation of an earlier event is still pending"
        if envelope.data.number % 2:
            await asyncio.Event().wait()
        seen.append(envelope.data.number)

    subscription = bus.on(Numbered, sometimes_hangs)
    for number in range(4):
        bus.emit(Numbered(number=number))
    async with asyncio.timeout(30):
        await bus.publish(Numbered(number=4))
    assert seen == [0, 2, 4]
    assert errors == ["the handler passed its deadline"] * 2
    assert isinstance(subscription, QueuedSubscription)
    assert (subscription.delivered, subscription.timed_out) == (3, 2)


async def test_a_handler_that_swallows_its_cancellation_still_counts_as_late() -> None:
    bus = EventBus(handler_timeout_s=0.02)

    async def stubborn(envelope: Envelope[Numbered]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    subscription = bus.on(Numbered, stubborn)
    async with asyncio.timeout(30):
        await bus.publish(Numbered(number=0))
        await bus.publish(Numbered(number=1))
    assert isinstance(subscription, QueuedSubscription)
    assert (subscription.delivered, subscription.timed_out) == (0, 2)


async def test_cancelling_drops_what_waits_and_ends_what_runs() -> None:
    bus = EventBus()
    started, ended = asyncio.Event(), asyncio.Event()
    seen: list[int] = []

    async def endless(envelope: Envelope[Numbered]) -> None:
        seen.append(envelope.data.number)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    scoped = bus.scoped("x")
    subscription = scoped.on(Numbered, endless)
    for number in range(3):
        bus.emit(Numbered(number=number))
    await started.wait()
    async with asyncio.timeout(20):
        await scoped.close()
    assert ended.is_set()
    assert seen == [0]
    assert isinstance(subscription, QueuedSubscription)
    assert (subscription.accepted, subscription.dropped) == (3, 3)


async def test_a_handler_may_cancel_itself() -> None:
    bus = EventBus()
    finished = asyncio.Event()

    async def once(envelope: Envelope[Numbered]) -> None:
        subscription.cancel()
        await asyncio.sleep(0)
        finished.set()

    subscription = bus.on(Numbered, once)
    bus.emit(Numbered(number=0))
    bus.emit(Numbered(number=1))
    async with asyncio.timeout(20):
        await finished.wait()
    assert isinstance(subscription, QueuedSubscription)
    assert subscription.dropped == 1


# ---------------------------------------------------------------- bounds


@settings(deadline=None)  # a busy machine is not a failure
@given(
    limit=st.integers(1, 6),
    bursts=st.lists(st.integers(0, 10), max_size=8),
    policy=st.sampled_from([Overflow.SHED_NEW, Overflow.SHED_OLDEST]),
)
def test_every_event_is_accounted_for(limit: int, bursts: list[int], policy: Overflow) -> None:
    async def scenario() -> None:
        bus = EventBus(queue_limit=limit, overflow={"bus_tests.numbered": policy})
        seen: list[int] = []

        async def handler(envelope: Envelope[Numbered]) -> None:
            seen.append(envelope.data.number)
            if envelope.data.number % 5 == 4:
                raise RuntimeError("broken on purpose")

        subscription = bus.on(Numbered, handler)
        assert isinstance(subscription, QueuedSubscription)
        model: deque[int] = deque()
        expected: list[int] = []
        offered = lost = 0
        for burst in bursts:
            for _ in range(burst):
                if len(model) == limit:
                    lost += 1
                    if policy is Overflow.SHED_OLDEST:
                        model.popleft()
                        model.append(offered)
                else:
                    model.append(offered)
                bus.emit(Numbered(number=offered))
                offered += 1
            while subscription.task is not None:
                await asyncio.sleep(0)
            expected += model
            model.clear()
        assert seen == expected
        assert subscription.lost == lost
        assert subscription.accepted + subscription.shed == offered
        assert subscription.accepted == subscription.delivered + subscription.failed + subscription.dropped

    asyncio.run(scenario())


async def test_shedding_is_announced_sparingly_and_without_recursion() -> None:
    bus = EventBus(queue_limit=8)
    signals: list[EventBusBackpressure] = []

    async def never_reads(envelope: Envelope[Any]) -> None:
        await asyncio.Event().wait()

    bus.on(EventBusBackpressure, lambda envelope: signals.append(envelope.data))
    on_numbers = bus.on(Numbered, never_reads)
    on_pressure = bus.on(EventBusBackpressure, never_reads)
    for number in range(2008):
        bus.emit(Numbered(number=number))
    assert [signal.shed for signal in signals] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert {signal.shed_topic for signal in signals} == {"bus_tests.numbered"}
    assert bus.counts()["bus_tests.numbered"].shed == 2000
    on_numbers.cancel()
    on_pressure.cancel()


async def test_publish_waits_for_room_where_the_policy_says_so() -> None:
    bus = EventBus(queue_limit=2, overflow={"bus_tests.numbered": Overflow.BLOCK_OUTSIDE_HANDLERS})
    seen: list[int] = []

    async def handler(envelope: Envelope[Numbered]) -> None:
        await asyncio.sleep(0)
        seen.append(envelope.data.number)

    subscription = bus.on(Numbered, handler)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(bus.publish(Numbered(number=number)))
    assert sorted(seen) == list(range(20))
    assert isinstance(subscription, QueuedSubscription)
    assert subscription.lost == 0


async def test_publish_returns_when_its_event_is_displaced() -> None:
    bus = EventBus(queue_limit=1, overflow={"bus_tests.numbered": Overflow.SHED_OLDEST})

    async def endless(envelope: Envelope[Numbered]) -> None:
        await asyncio.Event().wait()

    subscription = bus.on(Numbered, endless)
    bus.emit(Numbered(number=0))
    await asyncio.sleep(0)  # the first is being handled
    waiting = asyncio.create_task(bus.publish(Numbered(number=1)))
    await asyncio.sleep(0)
    bus.emit(Numbered(number=2))
    async with asyncio.timeout(20):
        await waiting
    subscription.cancel()


def test_nested_emits_are_bounded() -> None:
    bus = EventBus(queue_limit=10)
    seen: list[int] = []

    def flood(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 0:
            for number in range(1, 31):
                bus.emit(Numbered(number=number))

    bus.on(Numbered, flood)
    bus.on(Numbered, numbers(seen))
    bus.emit(Numbered(number=0))
    assert seen == list(range(11))
    assert bus.counts()["bus_tests.numbered"].shed == 20
