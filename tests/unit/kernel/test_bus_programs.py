"""Random programs on the bus and on a model of it that a page of code explains: emits inside emits, subscribing and
cancelling inside handlers, handlers that raise. Both must call the same handlers with the same events in one order.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from magmobo.contracts.bus import Subscription
from magmobo.contracts.events import Envelope, Event
from magmobo.kernel.bus.bus import EventBus

PENDING_LIMIT = 5
CALLS = 300  # handler calls after which a program falls silent, so that every program ends


class Red(Event, frozen=True, gc=False):
    topic = "bus_programs_tests.red"
    number: int


class Blue(Event, frozen=True, gc=False):
    topic = "bus_programs_tests.blue"
    number: int


EVENTS: tuple[type[Any], ...] = (Red, Blue)
PATTERNS = (Red.topic, Blue.topic, "bus_programs_tests.*", "bus_programs_tests.**")


class Emit(NamedTuple):
    colour: int


class Subscribe(NamedTuple):
    pattern: int
    priority: int
    script: int


class Cancel(NamedTuple):
    which: int


class Fail(NamedTuple):
    pass


Step = Emit | Subscribe | Cancel | Fail
Called = tuple[int, str, int]  # handler, topic, number of the event

steps = st.one_of(
    st.builds(Emit, st.integers(0, 1)),
    st.builds(Emit, st.integers(0, 1)),
    st.builds(Subscribe, st.integers(0, 3), st.integers(-1, 1), st.integers(0, 4)),
    st.builds(Cancel, st.integers(0, 8)),
    st.just(Fail()),
)
scripts = st.lists(st.lists(steps, max_size=4), min_size=5, max_size=5)
"""What a handler does each time it is called, by the number of the script."""


class Failing(Exception):
    """What a handler raises on purpose."""


class Interpreter:
    """Runs steps on something that can emit, subscribe and cancel, and writes down every call of a handler."""

    def __init__(self, scripts: list[list[Step]]) -> None:
        self.scripts = scripts
        self.calls: list[Called] = []
        self.cancels: list[Callable[[], None]] = []
        self.emitted = 0
        self.emit: Callable[[int, int], None]
        self.subscribe: Callable[[int, int, Callable[[str, int], None]], Callable[[], None]]

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Emit):
                if len(self.calls) < CALLS:
                    self.emitted += 1
                    self.emit(step.colour, self.emitted)
            elif isinstance(step, Subscribe):
                if len(self.cancels) < 20:
                    handler = self._handler(len(self.cancels), step.script)
                    self.cancels.append(lambda: None)
                    self.cancels[-1] = self.subscribe(step.pattern, step.priority, handler)
            elif isinstance(step, Cancel):
                if self.cancels:
                    self.cancels[step.which % len(self.cancels)]()
            else:
                raise Failing

    def _handler(self, name: int, script: int) -> Callable[[str, int], None]:
        def handler(topic: str, number: int) -> None:
            self.calls.append((name, topic, number))
            self.run(self.scripts[script])

        return handler


class Model:
    """The promises of the bus, as plainly as they can be written."""

    def __init__(self) -> None:
        self.live: list[tuple[tuple[int, int], int, Callable[[str, int], None]]] = []
        self.order = itertools.count()
        self.busy: set[str] = set()
        self.waiting: dict[str, deque[tuple[int, list[Any]]]] = {event.topic: deque() for event in EVENTS}
        self.emitted: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.shed: Counter[str] = Counter()

    def subscribe(self, pattern: int, priority: int, handler: Callable[[str, int], None]) -> Callable[[], None]:
        entry = ((-priority, next(self.order)), pattern, handler)
        self.live.append(entry)
        return lambda: self.live.remove(entry) if entry in self.live else None

    def emit(self, colour: int, number: int) -> None:
        topic = EVENTS[colour].topic
        self.emitted[topic] += 1
        receivers = sorted((entry for entry in self.live if entry[1] in (colour, 2, 3)), key=lambda entry: entry[0])
        if not receivers:
            return
        if topic in self.busy:
            if len(self.waiting[topic]) >= PENDING_LIMIT:
                self.shed[topic] += 1
            else:
                self.waiting[topic].append((number, receivers))
            return
        self.busy.add(topic)
        self.waiting[topic].append((number, receivers))
        while self.waiting[topic]:
            self._call(topic, *self.waiting[topic].popleft())
        self.busy.discard(topic)

    def _call(self, topic: str, number: int, receivers: list[Any]) -> None:
        for entry in receivers:
            if entry in self.live:
                try:
                    entry[2](topic, number)
                except Failing:
                    self.errors[topic] += 1


def on_the_bus(program: Interpreter, bus: EventBus) -> None:
    def emit(colour: int, number: int) -> None:
        bus.emit(EVENTS[colour](number=number))

    def subscribe(pattern: int, priority: int, handler: Callable[[str, int], None]) -> Callable[[], None]:
        def listener(envelope: Envelope[Any]) -> None:
            handler(envelope.topic, envelope.data.number)

        subscription: Subscription = bus.on(PATTERNS[pattern], listener, priority=priority)
        return subscription.cancel

    program.emit, program.subscribe = emit, subscribe


def outside(program: Interpreter, steps: list[Step]) -> None:
    """Outside of handlers nobody raises."""
    program.run([step for step in steps if not isinstance(step, Fail)])


NOBODY_LEFT: dict[str, Any] = {
    "scripts": [[], [], [], [], [Emit(1), Cancel(0), Subscribe(0, 0, 4), Emit(0)]],
    "main": [Subscribe(1, 0, 4), Emit(1)],
    "warm": False,
}
"""Handlers that emit on a busy topic long after its only subscription was cancelled."""


@settings(deadline=None, max_examples=200)  # a busy machine is not a failure
@example(history=0, **NOBODY_LEFT)
@example(history=7, **NOBODY_LEFT)
@given(scripts=scripts, main=st.lists(steps, max_size=30), history=st.sampled_from([0, 7]), warm=st.booleans())
def test_a_program_does_on_the_bus_what_it_does_on_the_model(
    scripts: list[list[Step]], main: list[Step], history: int, warm: bool
) -> None:
    bus, model = EventBus(queue_limit=PENDING_LIMIT, history_limit=history), Model()
    real, simple = Interpreter(scripts), Interpreter(scripts)
    on_the_bus(real, bus)
    simple.emit, simple.subscribe = model.emit, model.subscribe
    if warm:  # the first event of a topic takes another way through the bus than those after it
        main = [Emit(0), Emit(1), *main]
    outside(real, main)
    outside(simple, main)
    assert real.calls == simple.calls
    counts = bus.counts()
    for topic, emitted in model.emitted.items():
        expected = (emitted, model.errors[topic], model.shed[topic])
        assert (counts[topic].emitted, counts[topic].errors, counts[topic].shed) == expected
    assert bus.dead_letters.total == sum(model.errors.values())
    assert bus.subscription_count() == len(model.live)
    per_topic = {event.topic: [number for _, topic, number in real.calls if topic == event.topic] for event in EVENTS}
    assert all(numbers == sorted(numbers) for numbers in per_topic.values()), "an event overtook another of its topic"
