"""Traces and causes: what a handler emits carries the handled event, wherever it runs, and nothing else does."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.bus import EventBus


class Cause(Event, frozen=True, gc=False):
    topic = "bus_trace_tests.cause"


class Effect(Event, frozen=True, gc=False):
    topic = "bus_trace_tests.effect"


class Late(Event, frozen=True, gc=False):
    topic = "bus_trace_tests.late"


def recording(bus: EventBus) -> list[Envelope[Any]]:
    seen: list[Envelope[Any]] = []
    bus.on("bus_trace_tests.**", seen.append, priority=9)
    return seen


def links(seen: list[Envelope[Any]]) -> list[tuple[str, str, str]]:
    return [(envelope.topic.rpartition(".")[2], envelope.trace_id, envelope.causation_id) for envelope in seen]


def test_effects_carry_their_cause_and_the_trace_that_began_with_the_first() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)
    bus.on(Cause, lambda _: bus.emit(Effect()))
    bus.on(Effect, lambda _: bus.emit(Late()))
    bus.emit(Cause())
    bus.emit(Late())
    first, second = "n/bus_trace_tests.cause/1", "n/bus_trace_tests.effect/1"
    assert links(seen) == [("cause", "", ""), ("effect", first, first), ("late", first, second), ("late", "", "")]


def test_a_nested_event_of_the_same_topic_is_an_effect_too() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)
    bus.on(Cause, lambda envelope: bus.emit(Cause()) if envelope.seq < 3 else None)
    bus.emit(Cause())
    assert [envelope.causation_id.rpartition("/")[2] for envelope in seen] == ["", "1", "2"]


def test_a_failing_handler_leaves_no_cause_behind() -> None:
    bus = EventBus()
    seen = recording(bus)

    def broken(envelope: Envelope[Cause]) -> None:
        bus.emit(Effect())
        raise RuntimeError("broken on purpose")

    bus.on(Cause, broken)
    bus.emit(Cause())
    bus.emit(Late())
    assert links(seen)[-1] == ("late", "", "")


def test_trace_names_the_trace_of_everything_inside_also_in_a_handler() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)

    def handler(envelope: Envelope[Cause]) -> None:
        bus.emit(Effect())
        with bus.trace("inner"):
            bus.emit(Effect())
        bus.emit(Effect())

    bus.on(Cause, handler)
    with bus.trace("outer"):
        bus.emit(Cause())
    bus.emit(Late())
    cause = "n/bus_trace_tests.cause/1"
    assert links(seen) == [
        ("cause", "outer", ""),
        ("effect", "outer", cause),
        ("effect", "inner", cause),
        ("effect", "outer", cause),
        ("late", "", ""),
    ]


async def test_async_handlers_run_in_the_trace_of_their_event_and_tasks_inherit_it() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)

    async def later() -> None:
        bus.emit(Late())

    async def handler(envelope: Envelope[Cause]) -> None:
        await asyncio.sleep(0)
        bus.emit(Effect())
        await asyncio.create_task(later())

    subscription = bus.on(Cause, handler)
    with bus.trace("t"):
        bus.emit(Cause())
        bus.emit(Cause())
    while bus.queue_depth() or len(seen) < 6:
        await asyncio.sleep(0)
    first, second = "n/bus_trace_tests.cause/1", "n/bus_trace_tests.cause/2"
    effects = [link for link in links(seen) if link[0] != "cause"]
    assert effects == [("effect", "t", first), ("late", "t", first), ("effect", "t", second), ("late", "t", second)]
    subscription.cancel()


async def test_a_published_event_is_the_cause_before_and_after_its_handler_waits_and_not_beyond() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)
    waits, go_on = asyncio.Event(), asyncio.Event()

    async def handler(envelope: Envelope[Cause]) -> None:
        bus.emit(Effect())
        waits.set()
        await go_on.wait()
        await asyncio.sleep(0)
        bus.emit(Effect())

    bus.emit(Cause())  # the first event of a topic takes another way
    bus.on(Cause, handler)
    publishing = asyncio.create_task(bus.publish(Cause()))
    await waits.wait()
    bus.emit(Late())  # by somebody else, while the handler waits
    go_on.set()
    await publishing
    bus.emit(Late())
    await bus.publish(Cause())
    bus.emit(Late())
    second, third = "n/bus_trace_tests.cause/2", "n/bus_trace_tests.cause/3"
    assert links(seen)[1:] == [
        ("cause", "", ""),
        ("effect", second, second),
        ("late", "", ""),
        ("effect", second, second),
        ("late", "", ""),
        ("cause", "", ""),
        ("effect", third, third),
        ("effect", third, third),
        ("late", "", ""),
    ]


async def test_a_delayed_event_belongs_to_the_trace_in_which_it_was_asked_for() -> None:
    bus = EventBus(origin="n")
    seen = recording(bus)
    bus.on(Cause, lambda _: bus.queue(Late(), delay_s=0) and None)
    bus.emit(Cause())
    with bus.trace("t"):
        bus.queue(Effect(), delay_s=0)
    async with asyncio.timeout(20):
        while bus.delayed_count():
            await asyncio.sleep(0.001)
    cause = "n/bus_trace_tests.cause/1"
    assert links(seen) == [("cause", "", ""), ("late", cause, cause), ("effect", "t", "")]


async def test_an_async_handler_does_not_see_the_context_of_who_emitted() -> None:
    bus = EventBus()
    variable = contextvars.ContextVar("variable", default="unset")
    values: list[str] = []

    async def handler(envelope: Envelope[Cause]) -> None:
        values.append(variable.get())

    bus.on(Cause, handler)
    variable.set("of the emitter")
    bus.emit(Cause())
    bus.queue(Cause(), delay_s=0)
    async with asyncio.timeout(20):
        while len(values) < 2:
            await asyncio.sleep(0.001)
    assert values == ["unset", "unset"]
