"""What an event costs: the node's bus beside pyee, beside blinker, and beside a loop that only calls the handlers.

Every contender hands the same prepared event to the same number of handlers, each a function of its own that does
nothing. The bus does so with everything a node has on: order under re-entrancy, isolation, sequence numbers, wall time,
traces, counts, sampled timings, and history, which above 10,000 events a second keeps one in 1,024 (a figure without
that says what remembering each costs). A sample is the CPU time of the best of `BATCHES` batches: what disturbs a loop
of nanoseconds only ever adds. The loop with one handler is `for handler in handlers: handler(event)`, as with ten.

Handlers that wait are not measured: what the loop does then costs far more than any bus. `publish` to one that does not
spends half of its time on two coroutines and a generator, and a quarter on the envelope and the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from blinker import Signal
from pyee.base import EventEmitter

from benchmarks.measure import Better, Figure, Sample, compared, interleaved
from magmobo.contracts.events import ComponentStarted, ComponentStopped, Event
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock

EVENT: Event = ComponentStarted(name="magws")
TOPIC = ComponentStarted.topic
EVENTS, BATCHES = 20_000, 5
UNRELATED = 1_000
BUS, BARE, PYEE, BLINKER = "event bus", "call loop", "pyee", "blinker"
REMEMBERED, CROWDED = "event bus, all remembered", "event bus, crowded"
LOWER: Better = "lower"

Batch = Callable[[], None]


def run(rounds: int) -> list[Figure]:
    """Nanoseconds an event, with one handler and with ten, sync and async."""
    one, ten = (interleaved(rounds, _sync_contenders(count)) for count in (1, 10))
    crowd = interleaved(rounds, {BUS: _best(_emitting(_bus(1))), CROWDED: _best(_emitting(_crowded_bus()))})
    async_one, async_ten = (interleaved(rounds, _async_contenders(count)) for count in (1, 10))
    return [
        _figure(one, BUS, PYEE, "emit, 1 handler", 2.5),
        _figure(one, BUS, BLINKER, "emit, 1 handler", 4.5),
        _figure(one, BUS, BARE, "emit, 1 handler", 0.12),
        _figure(one, REMEMBERED, PYEE, "emit below 10,000 a second, 1 handler", None),
        _figure(ten, BUS, BARE, "emit, 10 handlers", 0.65),
        _figure(ten, BUS, PYEE, "emit, 10 handlers", None),
        _figure(ten, BUS, BLINKER, "emit, 10 handlers", None),
        _figure(crowd, CROWDED, BUS, f"emit beside {UNRELATED:,} unrelated subscriptions", 0.95),
        _figure(async_one, BUS, BLINKER, "publish, 1 async handler", 3.0),
        _figure(async_one, BUS, BARE, "publish, 1 async handler", None),
        _figure(async_ten, BUS, BLINKER, "publish, 10 async handlers", 3.0),
    ]


def _figure(samples: dict[str, list[Sample]], subject: str, yardstick: str, name: str, limit: float | None) -> Figure:
    measured = compared(samples, subject, yardstick, "event_ns", name, "ns", LOWER)
    if limit is None:
        return measured
    assert measured.ratio is not None
    verdict = "met" if measured.ratio >= limit else "NOT met"
    note = f"the target is a ratio of {limit:g}, {verdict}."
    return compared(samples, subject, yardstick, "event_ns", name, "ns", LOWER, note=note)


# ---------------------------------------------------------------- sync


def _sync_contenders(count: int) -> dict[str, Callable[[], Sample]]:
    handlers = [_handler() for _ in range(count)]
    return {
        BUS: _best(_emitting(_bus(count))),
        REMEMBERED: _best(_emitting(_bus(count, monotonic_s=lambda: 0.0))),
        PYEE: _best(_pyee(handlers)),
        BLINKER: _best(_blinker(count)),
        BARE: _best(_bare(tuple(handlers))),
    }


def _handler() -> Callable[[Any], None]:
    """A function of its own, as ten handlers are in a program: the interpreter has something to tell apart."""
    scope: dict[str, Any] = {}
    exec("def handler(event): pass", scope)
    handler: Callable[[Any], None] = scope["handler"]
    return handler


def _bus(count: int, **options: Any) -> EventBus:
    bus = EventBus(origin="0123456789ab", time_s=SystemClock().time_s, **options)
    for _ in range(count):
        bus.on(ComponentStarted, _handler())
    return bus


def _crowded_bus() -> EventBus:
    bus = _bus(0)
    for number in range(UNRELATED):
        bus.scoped(f"owner{number % 50}").on(("realtime.**", "health.*", ComponentStopped)[number % 3], _handler())
    bus.on("component.started", _handler())
    return bus


def _emitting(bus: EventBus) -> Batch:
    def batch() -> None:
        emit, event = bus.emit, EVENT
        for _ in range(EVENTS):
            emit(event)

    return batch


def _pyee(handlers: Sequence[Callable[[Any], None]]) -> Batch:
    emitter = EventEmitter()
    for handler in handlers:
        emitter.on(TOPIC, handler)

    def batch() -> None:
        emit, topic, event = emitter.emit, TOPIC, EVENT
        for _ in range(EVENTS):
            emit(topic, event)

    return batch


def _blinker(count: int) -> Batch:
    signal, receivers = Signal(TOPIC), [_receiver() for _ in range(count)]
    for receiver in receivers:
        signal.connect(receiver)

    def batch() -> None:
        send, event = signal.send, EVENT
        for _ in range(EVENTS):
            send("node", event=event)
        assert len(receivers) == count  # blinker only holds weak references

    return batch


def _receiver() -> Callable[..., None]:
    scope: dict[str, Any] = {}
    exec("def receiver(sender, event): pass", scope)
    receiver: Callable[..., None] = scope["receiver"]
    return receiver


def _bare(handlers: Sequence[Callable[[Any], None]]) -> Batch:
    def batch() -> None:
        event = EVENT
        for _ in range(EVENTS):
            for handler in handlers:
                handler(event)

    return batch


def _best(batch: Batch) -> Callable[[], Sample]:
    def sample() -> Sample:
        return {"event_ns": min(_timed(batch) for _ in range(BATCHES)) / EVENTS * 1e9}

    return sample


def _timed(batch: Batch) -> float:
    began_s = time.thread_time()
    batch()
    return time.thread_time() - began_s


# ---------------------------------------------------------------- async


def _async_contenders(count: int) -> dict[str, Callable[[], Sample]]:
    return {
        BUS: _best_of_loop(lambda: _publishing(count)),
        BLINKER: _best_of_loop(lambda: _blinker_async(count)),
        BARE: _best_of_loop(lambda: _bare_async(count)),
    }


def _coroutine_function(parameters: str) -> Callable[..., Awaitable[None]]:
    scope: dict[str, Any] = {}
    exec(f"async def handler({parameters}): pass", scope)
    handler: Callable[..., Awaitable[None]] = scope["handler"]
    return handler


async def _publishing(count: int) -> float:
    bus = _bus(0)
    for _ in range(count):
        bus.on(ComponentStarted, _coroutine_function("event"))
    publish, event = bus.publish, EVENT
    began_s = time.thread_time()
    for _ in range(EVENTS):
        await publish(event)
    elapsed_s = time.thread_time() - began_s
    await bus.close()
    return elapsed_s


async def _blinker_async(count: int) -> float:
    signal, receivers = Signal(TOPIC), [_coroutine_function("sender, event") for _ in range(count)]
    for receiver in receivers:
        signal.connect(receiver)
    send, event = signal.send_async, EVENT
    began_s = time.thread_time()
    for _ in range(EVENTS):
        await send("node", event=event)
    return time.thread_time() - began_s


async def _bare_async(count: int) -> float:
    handlers, event = tuple(_coroutine_function("event") for _ in range(count)), EVENT
    began_s = time.thread_time()
    for _ in range(EVENTS):
        for handler in handlers:
            await handler(event)
    return time.thread_time() - began_s


def _best_of_loop(batch: Callable[[], Awaitable[float]]) -> Callable[[], Sample]:
    async def all_batches() -> float:
        return min([await batch() for _ in range(BATCHES)])

    return lambda: {"event_ns": asyncio.run(all_batches()) / EVENTS * 1e9}
