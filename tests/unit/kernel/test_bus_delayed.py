"""Delayed events: at their time, bounded by owner, gone with their owner and with the bus."""

from __future__ import annotations

import asyncio
import math

import pytest

from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.bus.errors import QueueFull


class Ring(Event, frozen=True, gc=False):
    topic = "bus_delayed_tests.ring"
    number: int


class Topicless(Event, frozen=True, gc=False):
    pass


def listening(bus: EventBus) -> list[int]:
    seen: list[int] = []

    def handler(envelope: Envelope[Ring]) -> None:
        seen.append(envelope.data.number)

    bus.on(Ring, handler)
    return seen


async def until_none_waits(bus: EventBus) -> None:
    async with asyncio.timeout(30):
        while bus.delayed_count():
            await asyncio.sleep(0.001)


async def test_delayed_events_are_emitted_once_in_the_order_of_their_times() -> None:
    bus = EventBus()
    seen = listening(bus)
    for number in (3, 1, 2, 0):
        bus.queue(Ring(number=number), delay_s=number * 0.02)
    assert seen == []
    await until_none_waits(bus)
    assert seen == [0, 1, 2, 3]


async def test_a_cancelled_delayed_event_is_never_emitted() -> None:
    bus = EventBus()
    seen = listening(bus)
    first, second = bus.queue(Ring(number=1), delay_s=0), bus.queue(Ring(number=2), delay_s=0)
    first.cancel()
    first.cancel()
    await until_none_waits(bus)
    second.cancel()  # too late, and fine
    assert seen == [2]


async def test_delayed_events_end_with_their_owner_and_no_other() -> None:
    bus = EventBus()
    seen = listening(bus)
    mine, other = bus.scoped("mine"), bus.scoped("other")
    mine.queue(Ring(number=1), delay_s=0)
    mine.queue(Ring(number=2), delay_s=0)
    other.queue(Ring(number=3), delay_s=0)
    assert (bus.delayed_count("mine"), bus.delayed_count("other"), bus.delayed_count()) == (2, 1, 3)
    await mine.close()
    await until_none_waits(bus)
    assert seen == [3]


async def test_one_owner_may_have_so_many_waiting_and_leaves_the_others_theirs() -> None:
    bus = EventBus(delayed_limit=3)
    mine, other = bus.scoped("mine"), bus.scoped("other")
    waiting = [mine.queue(Ring(number=number), delay_s=3600) for number in range(3)]
    with pytest.raises(QueueFull, match=r'"mine" already has 3') as refused:
        mine.queue(Ring(number=4), delay_s=3600)
    assert refused.value.code == "MAG-BUS-001"
    other.queue(Ring(number=5), delay_s=3600)
    waiting[0].cancel()
    mine.queue(Ring(number=6), delay_s=3600)
    bus.cancel_all("mine")
    bus.cancel_all("other")
    assert bus.delayed_count() == 0


@pytest.mark.parametrize("delay_s", [-0.001, math.nan, math.inf])
async def test_a_delay_that_is_no_delay_is_refused(delay_s: float) -> None:
    bus = EventBus()
    with pytest.raises(ValueError, match="delayed"):
        bus.queue(Ring(number=1), delay_s=delay_s)
    with pytest.raises(ValueError, match="no topic of its own"):
        bus.queue(Topicless(), delay_s=1)
    assert bus.delayed_count() == 0
