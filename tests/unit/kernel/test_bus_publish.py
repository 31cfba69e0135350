"""`publish` runs idle handlers where it is: nobody waits for another, none ends for another, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.subscription import QueuedSubscription


class Numbered(Event, frozen=True, gc=False):
    topic = "bus_publish_tests.numbered"
    number: int


class Other(Event, frozen=True, gc=False):
    topic = "bus_publish_tests.other"


def balanced(subscription: Any) -> bool:
    assert isinstance(subscription, QueuedSubscription)
    ended = subscription.delivered + subscription.failed + subscription.timed_out + subscription.dropped
    return subscription.accepted == ended and not subscription.queue


async def past_the_first(bus: EventBus) -> None:
    """The first event of a block takes another way than those behind it."""
    await bus.publish(Numbered(number=-1))


async def test_a_handler_that_waits_holds_up_no_other() -> None:
    bus = EventBus()
    go_on, seen = asyncio.Event(), []

    def make(name: str) -> Any:
        async def handler(envelope: Envelope[Numbered]) -> None:
            if name == "waits" and envelope.data.number == 1:
                await go_on.wait()
            seen.append((name, envelope.data.number))

        return handler

    subscriptions = [bus.on(Numbered, make(name)) for name in ("first", "waits", "third", "fourth")]
    await past_the_first(bus)
    seen.clear()
    publishing = asyncio.create_task(bus.publish(Numbered(number=1)))
    async with asyncio.timeout(20):
        while len(seen) < 3:
            await asyncio.sleep(0)
    assert not publishing.done()
    assert {name for name, _ in seen} == {"first", "third", "fourth"}
    go_on.set()
    async with asyncio.timeout(20):
        await publishing
    assert seen[-1] == ("waits", 1)
    assert all(balanced(subscription) for subscription in subscriptions)


async def test_events_that_come_while_a_published_one_is_handled_follow_in_order() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def handler(envelope: Envelope[Numbered]) -> None:
        await asyncio.sleep(0)
        seen.append(envelope.data.number)

    subscription = bus.on(Numbered, handler)
    await past_the_first(bus)
    publishing = asyncio.create_task(bus.publish(Numbered(number=0)))
    await asyncio.sleep(0)
    for number in range(1, 4):
        bus.emit(Numbered(number=number))
    async with asyncio.timeout(20):
        await publishing
        await bus.publish(Numbered(number=4))
    assert seen == [-1, 0, 1, 2, 3, 4]
    assert balanced(subscription)


async def test_a_handler_that_does_not_wait_may_emit_on_its_own_topic() -> None:
    bus = EventBus()
    seen: list[tuple[str, int]] = []

    async def echo(envelope: Envelope[Numbered]) -> None:
        seen.append(("echo", envelope.data.number))
        if 0 <= envelope.data.number < 3:
            bus.emit(Numbered(number=envelope.data.number + 1))

    bus.on(Numbered, lambda envelope: seen.append(("sync", envelope.data.number)))
    subscription = bus.on(Numbered, echo)
    await past_the_first(bus)
    seen.clear()
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=0))
        while not subscription.idle:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    assert [number for name, number in seen if name == "sync"] == [0, 1, 2, 3]
    assert [number for name, number in seen if name == "echo"] == [0, 1, 2, 3]


async def test_publishing_one_event_after_the_other_needs_no_tasks() -> None:
    bus = EventBus()
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler(envelope: Envelope[Numbered]) -> None:
        tasks.append(asyncio.current_task())

    bus.on(Numbered, handler)
    for number in range(64):
        await bus.publish(Numbered(number=number))
    assert tasks == [asyncio.current_task()] * 64


async def test_what_a_handler_emits_to_itself_waits_until_it_is_done() -> None:
    bus = EventBus()
    seen: list[str] = []

    async def handler(envelope: Envelope[Any]) -> None:
        seen.append(f"begin {envelope.topic} {envelope.seq}")
        if envelope.topic == Numbered.topic:
            bus.emit(Other())
            bus.emit(Other())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        seen.append(f"end {envelope.topic} {envelope.seq}")

    bus.emit(Numbered(number=-1))
    subscription = bus.on("bus_publish_tests.*", handler)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=1))
        while not subscription.idle:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
    parts = [(Numbered.topic, 2), (Other.topic, 1), (Other.topic, 2)]
    assert seen == [f"{what} {topic} {seq}" for topic, seq in parts for what in ("begin", "end")]
    assert balanced(subscription)


async def test_a_published_event_that_hangs_ends_at_its_deadline_and_leaves_its_publisher_well() -> None:
    bus = EventBus(handler_timeout_s=0.05)

    async def hangs(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 1:
            await asyncio.Event().wait()

    subscription = bus.on(Numbered, hangs)
    await past_the_first(bus)
    async with asyncio.timeout(30):
        await bus.publish(Numbered(number=1))
        await bus.publish(Numbered(number=2))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert isinstance(subscription, QueuedSubscription)
    assert (subscription.delivered, subscription.timed_out) == (2, 1)


async def test_a_handler_that_swallows_its_cancellation_twice_is_asked_again() -> None:
    bus = EventBus(handler_timeout_s=0.02)
    asked = 0

    async def stubborn(envelope: Envelope[Numbered]) -> None:
        nonlocal asked
        while asked < 3 and envelope.data.number >= 0:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                asked += 1

    subscription = bus.on(Numbered, stubborn)
    await past_the_first(bus)
    async with asyncio.timeout(30):
        await bus.publish(Numbered(number=1))
    task = asyncio.current_task()
    assert task is not None
    assert (asked, task.cancelling()) == (3, 0)
    assert isinstance(subscription, QueuedSubscription)
    assert subscription.timed_out == 1


async def test_ending_an_owner_ends_its_handler_and_not_the_publisher() -> None:
    bus = EventBus()
    scoped, waits, ended = bus.scoped("x"), asyncio.Event(), []

    async def endless(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number < 0:
            return
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(envelope.data.number)

    subscription = scoped.on(Numbered, endless)
    await past_the_first(bus)

    async def publisher() -> str:
        await bus.publish(Numbered(number=1))
        return "well"

    publishing = asyncio.create_task(publisher())
    await waits.wait()
    async with asyncio.timeout(20):
        await scoped.close()
        assert ended == [1]
        assert await publishing == "well"
    assert balanced(subscription)


async def test_a_cancelled_publisher_takes_its_handler_along_and_the_next_event_is_handled() -> None:
    bus = EventBus()
    waits, seen = asyncio.Event(), []

    async def handler(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 1:
            waits.set()
            await asyncio.Event().wait()
        seen.append(envelope.data.number)

    subscription = bus.on(Numbered, handler)
    await past_the_first(bus)
    publishing = asyncio.create_task(bus.publish(Numbered(number=1)))
    await waits.wait()
    bus.emit(Numbered(number=2))
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=3))
    assert seen == [-1, 2, 3]
    assert isinstance(subscription, QueuedSubscription)
    assert subscription.dropped == 1
    assert balanced(subscription)


@pytest.mark.parametrize("published", [True, False])
async def test_a_handler_that_awaited_something_cancelled_failed_and_the_rest_follows(published: bool) -> None:
    bus = EventBus()
    seen: list[int] = []

    async def handler(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number == 1:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        if envelope.data.number == 2:
            task = asyncio.create_task(asyncio.Event().wait())
            asyncio.get_running_loop().call_soon(task.cancel)
            await task
        seen.append(envelope.data.number)

    subscription = bus.on(Numbered, handler)
    await past_the_first(bus)
    async with asyncio.timeout(20):
        for number in range(1, 4):
            if published:
                await bus.publish(Numbered(number=number))
            else:
                bus.emit(Numbered(number=number))
        await bus.publish(Numbered(number=4))
    assert seen == [-1, 3, 4]
    assert isinstance(subscription, QueuedSubscription)
    assert subscription.failed == 2
    assert [letter.error for letter in bus.dead_letters] == ["CancelledError: "] * 2


async def test_publishing_after_a_wait_inside_a_handler_does_not_wait_for_itself() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def echo(envelope: Envelope[Numbered]) -> None:
        seen.append(envelope.data.number)
        await asyncio.sleep(0)
        if 0 <= envelope.data.number < 3:
            await bus.publish(Numbered(number=envelope.data.number + 1))

    bus.on(Numbered, echo)
    await past_the_first(bus)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=0))
        while len(seen) < 5:
            await asyncio.sleep(0)
    assert seen == [-1, 0, 1, 2, 3]


async def test_a_deadline_inside_a_handler_works_as_anywhere() -> None:
    bus = EventBus()
    seen: list[str] = []

    async def handler(envelope: Envelope[Numbered]) -> None:
        if envelope.data.number < 0:
            return
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append("end")

    subscription = bus.on(Numbered, handler)
    await past_the_first(bus)
    async with asyncio.timeout(20):
        await bus.publish(Numbered(number=1))
    assert seen == ["timeout", "end"]
    assert isinstance(subscription, QueuedSubscription)
    assert (subscription.delivered, subscription.failed) == (2, 0)


async def test_a_closed_bus_takes_nothing_and_ends_everything() -> None:
    bus = EventBus()
    seen: list[int] = []
    started = asyncio.Event()

    async def endless(envelope: Envelope[Numbered]) -> None:
        started.set()
        await asyncio.Event().wait()

    bus.on(Numbered, lambda envelope: seen.append(envelope.data.number))
    bus.scoped("a").on(Numbered, endless)
    bus.scoped("b").queue(Numbered(number=9), delay_s=0)
    bus.emit(Numbered(number=1))
    await started.wait()
    before = asyncio.all_tasks()
    async with asyncio.timeout(20):
        await bus.close()
        await bus.close()
    assert len(asyncio.all_tasks()) < len(before)
    bus.emit(Numbered(number=2))
    await bus.publish(Numbered(number=3))
    assert seen[:1] == [1]
    assert not {2, 3} & set(seen)
    assert (bus.subscription_count(), bus.delayed_count(), bus.queue_depth()) == (0, 0, 0)
    for use in (lambda: bus.on(Numbered, print), lambda: bus.queue(Numbered(number=4), delay_s=0)):
        with pytest.raises(Exception, match="not available"):
            use()


async def test_sampled_handlers_are_timed_and_no_others() -> None:
    took: list[tuple[str, float]] = []
    bus = EventBus(on_timing=lambda topic, duration_s: took.append((topic, duration_s)))

    async def handler(envelope: Envelope[Numbered]) -> None:
        await asyncio.sleep(0)

    bus.on(Numbered, handler)
    bus.on(Other, lambda _: None)
    for number in range(65):
        await bus.publish(Numbered(number=number))
        bus.emit(Other())
    topics = [topic for topic, _ in took]
    assert (topics.count(Numbered.topic), topics.count(Other.topic)) == (2, 2)
    assert all(duration_s >= 0 for _, duration_s in took)
