"""Handlers that `publish` runs where it is: one at a time each, in order, whatever they do to each other meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.subscription import QueuedSubscription


class Red(Event, frozen=True, gc=False):
    topic = "bus_rounds_tests.red"
    number: int = 0


class Blue(Event, frozen=True, gc=False):
    topic = "bus_rounds_tests.blue"
    number: int = 0


def queued(subscription: Any) -> QueuedSubscription:
    assert isinstance(subscription, QueuedSubscription)
    return subscription


async def rested(bus: EventBus) -> None:
    """Return once no handler runs or has anything waiting."""
    while bus.at_work:
        await asyncio.sleep(0)


async def past_the_first(bus: EventBus) -> None:
    """The first event of a block takes another way than those behind it."""
    for event in (Red(), Blue()):
        await bus.publish(event)


async def test_a_handler_runs_once_at_a_time_when_an_earlier_one_emitted_to_it() -> None:
    bus = EventBus()
    at_work: list[str] = []
    seen: list[str] = []

    async def emits(envelope: Envelope[Red]) -> None:
        bus.emit(Blue())
        bus.emit(Blue())

    async def waits(envelope: Envelope[Any]) -> None:
        assert not at_work, "it runs already"
        at_work.append(envelope.topic)
        if envelope.topic == Blue.topic:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        seen.append(envelope.topic)
        at_work.clear()

    await past_the_first(bus)
    bus.on(Red, emits)
    subscription = queued(bus.on("bus_rounds_tests.*", waits))
    async with asyncio.timeout(20):
        await bus.publish(Red())
        await asyncio.sleep(0)
        bus.emit(Blue())
        bus.emit(Blue())
        await rested(bus)
    assert seen == [Red.topic] + [Blue.topic] * 4
    assert subscription.failed == 0
    assert not subscription.queue


@pytest.mark.parametrize("others", [0, 2])
async def test_a_handler_that_emits_to_itself_and_then_waits_runs_once_at_a_time(others: int) -> None:
    bus = EventBus()
    seen: list[str] = []

    async def handler(envelope: Envelope[Any]) -> None:
        seen.append(f"begin {envelope.topic} {envelope.seq}")
        if envelope.topic == Red.topic:
            bus.emit(Blue())
            bus.emit(Red()) if envelope.seq == 2 else None
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append(f"end {envelope.topic} {envelope.seq}")

    async def other(envelope: Envelope[Any]) -> None:
        """It shares the round."""

    await past_the_first(bus)
    subscription = queued(bus.on("bus_rounds_tests.*", handler))
    for _ in range(others):
        bus.on("bus_rounds_tests.*", other)
    async with asyncio.timeout(20):
        await bus.publish(Red())
        await rested(bus)
    parts = [(Red.topic, 2), (Blue.topic, 2), (Red.topic, 3), (Blue.topic, 3)]
    assert seen == [f"{what} {topic} {seq}" for topic, seq in parts for what in ("begin", "end")]
    assert subscription.delivered == 4


@pytest.mark.parametrize("others", [0, 2])
async def test_an_exception_that_nobody_may_catch_ends_the_event_and_not_the_topic(others: int) -> None:
    class Stop(BaseException):
        pass

    bus = EventBus()
    seen: list[int] = []

    async def stops(envelope: Envelope[Red]) -> None:
        if envelope.data.number == 1:
            bus.emit(Red(number=10))  # waits for the end of the present event
            raise Stop
        seen.append(envelope.data.number)

    async def other(envelope: Envelope[Red]) -> None:
        seen.append(100 + envelope.data.number)

    await past_the_first(bus)
    subscriptions = [queued(bus.on(Red, handler)) for handler in [stops] + [other] * others]
    with pytest.raises(Stop):
        await bus.publish(Red(number=1))
    async with asyncio.timeout(20):
        await bus.publish(Red(number=2))
        await rested(bus)
    assert [number for number in seen if number < 100] == [10, 2]
    assert [subscription.delivered for subscription in subscriptions] == [2] * (1 + others)
    assert [subscription.accepted for subscription in subscriptions] == [2] * (1 + others)


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_whatever_a_handler_raises_before_or_after_it_waited_the_next_event_is_published(
    others: int, waits: int
) -> None:
    class Stop(BaseException):
        pass

    bus = EventBus()
    seen: list[int] = []

    async def handler(envelope: Envelope[Red]) -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        if envelope.data.number in (1, 4):
            raise Stop
        if envelope.data.number == 2:
            raise RuntimeError
        seen.append(envelope.data.number)

    async def other(envelope: Envelope[Red]) -> None:
        """It shares the round."""

    await past_the_first(bus)
    subscription = queued(bus.on(Red, handler))
    for _ in range(others):
        bus.on(Red, other)
    async with asyncio.timeout(20):
        for number in range(6):
            if number in (1, 4):
                with pytest.raises(Stop):
                    await bus.publish(Red(number=number))
            else:
                await bus.publish(Red(number=number))
        await rested(bus)
    assert seen == [0, 3, 5]
    assert (subscription.delivered, subscription.failed) == (3, 1)
    assert [letter.error for letter in bus.dead_letters] == ["RuntimeError: "]


@pytest.mark.parametrize("others", [0, 2])
async def test_a_handler_that_was_cancelled_while_its_event_was_on_the_way_is_not_called(others: int) -> None:
    bus = EventBus()
    seen: list[str] = []

    async def handler(envelope: Envelope[Red]) -> None:
        seen.append("called")

    async def other(envelope: Envelope[Red]) -> None:
        seen.append("other")

    await past_the_first(bus)
    subscription = queued(bus.on(Red, handler))
    for _ in range(others):
        bus.on(Red, other)
    await bus.publish(Red())
    bus.on(Red, lambda _: subscription.cancel(), priority=1)
    await bus.publish(Red())
    await bus.publish(Red())
    assert seen.count("called") == 1
    assert seen.count("other") == 3 * others
    assert (subscription.accepted, subscription.delivered) == (1, 1)


async def test_the_first_event_of_a_block_is_published_like_any_other_and_timed() -> None:
    took: list[str] = []
    bus = EventBus(on_timing=lambda topic, _: took.append(topic), monotonic_s=lambda: 0.0)
    tasks: set[asyncio.Task[Any] | None] = set()

    async def handler(envelope: Envelope[Red]) -> None:
        tasks.add(asyncio.current_task())

    async def fails(envelope: Envelope[Red]) -> None:
        raise RuntimeError

    subscriptions = [queued(bus.on(Red, each)) for each in (handler, fails)]
    bus.on(Red, lambda _: None)
    for _ in range(129):
        await bus.publish(Red())
    assert tasks == {asyncio.current_task()}
    assert took == [Red.topic] * 9  # three handlers, three blocks
    assert (subscriptions[0].delivered, subscriptions[1].failed, subscriptions[1].delivered) == (129, 129, 0)


async def test_what_others_publish_while_a_handler_of_another_topic_waits_needs_no_task_either() -> None:
    bus = EventBus()
    go_on, tasks = asyncio.Event(), []

    async def waits(envelope: Envelope[Red]) -> None:
        await go_on.wait()

    async def handler(envelope: Envelope[Blue]) -> None:
        tasks.append(asyncio.current_task())

    bus.on(Red, waits)
    bus.on(Blue, handler)
    publishing = asyncio.create_task(bus.publish(Red()))
    await asyncio.sleep(0)
    await bus.publish(Blue())
    assert tasks == [asyncio.current_task()]
    go_on.set()
    await publishing
    assert not bus.at_work


@pytest.mark.parametrize("others", [0, 2])
async def test_what_is_published_carries_its_trace_and_its_cause(others: int) -> None:
    bus = EventBus(origin="n")
    links: list[tuple[str, str, str]] = []

    async def handler(envelope: Envelope[Any]) -> None:
        links.append((envelope.topic.rpartition(".")[2], envelope.trace_id, envelope.causation_id))

    async def other(envelope: Envelope[Any]) -> None:
        """It shares the round."""

    async def spawns(envelope: Envelope[Red]) -> None:
        await asyncio.sleep(0)  # only behind a wait do its tasks belong to the event
        later.append(asyncio.create_task(bus.publish(Blue())))

    later: list[asyncio.Task[None]] = []
    await past_the_first(bus)
    bus.on("bus_rounds_tests.*", handler)
    bus.on(Red, spawns)
    for _ in range(others):
        bus.on("bus_rounds_tests.*", other)
    await bus.publish(Blue())
    with bus.trace("t"):
        await bus.publish(Blue())
        await bus.publish(Red())
    await bus.publish(Blue())
    await asyncio.gather(*later)
    red = "n/bus_rounds_tests.red/2"
    assert links == [("blue", "", ""), ("blue", "t", ""), ("red", "t", ""), ("blue", "", ""), ("blue", "t", red)]


@pytest.mark.parametrize("others", [0, 2])
async def test_a_handler_may_wait_inside_a_trace(others: int) -> None:
    bus = EventBus(origin="n")
    links: list[tuple[str, str, str]] = []

    async def handler(envelope: Envelope[Red]) -> None:
        with bus.trace("t"):
            bus.emit(Blue())
            await asyncio.sleep(0)
            bus.emit(Blue())
            await asyncio.sleep(0)
        bus.emit(Blue())

    async def other(envelope: Envelope[Red]) -> None:
        """It shares the round."""

    await past_the_first(bus)
    bus.on(Red, handler)
    for _ in range(others):
        bus.on(Red, other)
    bus.on("**", lambda envelope: links.append((envelope.topic[-4:], envelope.trace_id, envelope.causation_id)))
    await bus.publish(Red())
    bus.emit(Red())
    await rested(bus)
    second, third = "n/bus_rounds_tests.red/2", "n/bus_rounds_tests.red/3"
    assert links == [
        (".red", "", ""),
        *[("blue", "t", second)] * 2,
        ("blue", second, second),
        (".red", "", ""),
        *[("blue", "t", third)] * 2,
        ("blue", third, third),
    ]


# ---------------------------------------------------------------- random programs


class Worker:
    """A handler that does what it is told to, and writes down what happens to it."""

    def __init__(self, bus: EventBus, workers: list[Worker], script: list[list[str]]) -> None:
        self.bus, self.workers, self.script = bus, workers, script
        self.busy = False
        self.ended = self.failed = 0
        self.seen: list[tuple[str, int]] = []
        self.subscription: QueuedSubscription

    async def __call__(self, envelope: Envelope[Any]) -> None:
        assert not self.busy, "called while it runs"
        assert self.subscription.active, "called after its end"
        self.busy = True
        self.seen.append((envelope.topic, envelope.seq))
        try:
            for step in self.script[len(self.seen) % len(self.script)] if len(self.seen) < 30 else ():
                await self._do(step)
            self.ended += 1
        except Failing:
            self.failed += 1
            raise
        finally:
            self.busy = False

    async def _do(self, step: str) -> None:
        match step:
            case "wait":
                await asyncio.sleep(0)
            case "fail":
                raise Failing
            case "red":
                self.bus.emit(Red())
            case "blue":
                await self.bus.publish(Blue())
            case "end":
                self.workers[-1].subscription.cancel()


class Failing(Exception):
    """What a handler raises on purpose."""


steps = st.sampled_from(["wait", "wait", "fail", "red", "blue", "end"])
scripts = st.lists(st.lists(steps, max_size=4), min_size=1, max_size=4)
patterns = st.sampled_from([Red.topic, Blue.topic, "bus_rounds_tests.*"])


@settings(deadline=None, max_examples=150)  # a busy machine is not a failure
@given(
    handlers=st.lists(st.tuples(patterns, scripts), min_size=1, max_size=4),
    published=st.lists(st.lists(st.sampled_from([Red, Blue]), max_size=4), min_size=1, max_size=3),
)
def test_whatever_handlers_do_each_runs_alone_and_in_order_and_is_accounted_for(
    handlers: list[tuple[str, list[list[str]]]], published: list[list[type[Any]]]
) -> None:
    async def program() -> None:
        bus = EventBus()
        await past_the_first(bus)
        workers: list[Worker] = []
        for pattern, script in handlers:
            worker = Worker(bus, workers, script)
            workers.append(worker)
            worker.subscription = queued(bus.on(pattern, worker))

        async def publisher(events: list[type[Any]]) -> None:
            for event in events:
                await bus.publish(event())

        async with asyncio.timeout(20):
            await asyncio.gather(*(publisher(events) for events in published))
            await rested(bus)
        counts = bus.counts()
        for (pattern, _), worker in zip(handlers, workers, strict=True):
            it = worker.subscription
            assert it.accepted == it.delivered + it.failed + it.timed_out + it.dropped
            assert len(worker.seen) == len(set(worker.seen))
            for topic in (Red.topic, Blue.topic):
                numbers = [seq for seen, seq in worker.seen if seen == topic]
                assert numbers == sorted(numbers)
            if it.active:
                mine = [topic for topic in counts if pattern in (topic, "bus_rounds_tests.*")]
                assert it.accepted == len(worker.seen) == sum(counts[topic].emitted - 1 for topic in mine)
                assert (it.delivered, it.failed) == (worker.ended, worker.failed)

    asyncio.run(program())
