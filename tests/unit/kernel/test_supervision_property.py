"""Whatever happens to components in whichever order: states follow the table, hooks of one component never overlap, and
in the end everything has come to rest and nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.kernel.supervised import HANGS, RAISES, Consumer, Node, Provider
from tests.unit.kernel.virtual_time import VirtualLoop

from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import ComponentStateChanged
from magmobo.contracts.health import HealthCheck as Check
from magmobo.contracts.health import HealthReport, HealthStatus
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.errors import IllegalTransition
from magmobo.kernel.lifecycle import TRANSITIONS, Lifecycle, State

NAMES = ("provider", "consumer")
RESTING = {State.RUNNING, State.STOPPED, State.FAILED, State.QUARANTINED}
BEHAVIOURS = ("", "slow", "crash", "plain", *RAISES, *HANGS)
SICK = HealthReport.of(Check("answers", HealthStatus.UNHEALTHY, "none"))
WELL_AGAIN_S = 300.0


@pytest.fixture(autouse=True, scope="module")
def _silent() -> Iterator[None]:
    """Thousands of failures on purpose, each with its traceback, would be most of the run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_exactly_the_transitions_of_the_table_are_possible(old: State, new: State) -> None:
    told: list[Any] = []
    bus = EventBus()
    bus.on(ComponentStateChanged, lambda envelope: told.append(envelope.data))
    lifecycle = Lifecycle("magds", bus, lambda: 0.0)
    lifecycle.state = old
    assert lifecycle.can(new) is (new in TRANSITIONS[old])
    if new in TRANSITIONS[old]:
        lifecycle.to(new)
        assert (lifecycle.state, len(told)) == (new, 1)
    else:
        with pytest.raises(IllegalTransition, match=f"from {old} to {new}"):
            lifecycle.to(new)
        assert (lifecycle.state, told) == (old, [])


class Life(RuleBasedStateMachine):
    """Two components, the second needs the first; operators, crashes, sickness, misbehaving hooks, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.asked: list[asyncio.Task[None]] = []
        self.calling: list[asyncio.Task[int]] = []

    @initialize(seed=st.integers(0, 1000), restarts=st.integers(0, 4))
    def boot(self, seed: int, restarts: int) -> None:
        async def up() -> Node:
            health = {"interval_s": 4.0, "timeout_s": 1.0, "failures": 2}
            node = Node(Provider, Consumer, recovery={"restarts": restarts}, health=health, seed=seed)
            await node.boot()
            self.polling = asyncio.create_task(node.monitor.run())
            return node

        self.node = self.loop.run_until_complete(up())
        self.actors = {name: self.node.actor(name) for name in NAMES}

    def _now(self, action: Any) -> None:
        async def act() -> None:
            action()

        self.loop.run_until_complete(act())

    @rule(name=st.sampled_from(NAMES), request=st.sampled_from(("restart", "start", "stop")))
    def ask(self, name: str, request: str) -> None:
        coroutine = getattr(self.node.supervisor, request)(name)
        self.asked.append(self.loop.create_task(coroutine))

    @rule(which=st.integers(0, 20))
    def go_away(self, which: int) -> None:
        """Somebody who asked loses patience."""
        if self.asked:
            self.asked[which % len(self.asked)].cancel()

    @rule(name=st.sampled_from(NAMES), hook=st.sampled_from(("start", "stop")), word=st.sampled_from(BEHAVIOURS))
    def teach(self, name: str, hook: str, word: str) -> None:
        self.actors[name].script.setdefault(hook, deque()).append(word)

    @rule(name=st.sampled_from(NAMES))
    def crash(self, name: str) -> None:
        with suppress(asyncio.InvalidStateError):  # it has crashed already
            self.actors[name].crash()

    @rule(name=st.sampled_from(NAMES), answer=st.sampled_from((SICK, HealthReport.of(), "raise", "hang", "stubborn")))
    def feel(self, name: str, answer: Any) -> None:
        self.actors[name].answer = answer

    @rule()
    def call(self) -> None:
        consumer = self.actors["consumer"]
        assert isinstance(consumer, Consumer)
        self.calling.append(self.loop.create_task(consumer.store.get()))  # type: ignore[arg-type]

    @rule(step_s=st.sampled_from((-1e6, -60.0, 60.0, 1e6)))
    def step_the_wall_clock(self, step_s: float) -> None:
        self.node.clock.step_wall_time(step_s)

    @rule(duration_s=st.sampled_from((0.0, 0.3, 1.0, 2.5, 7.0, 30.0)))
    def wait(self, duration_s: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(duration_s))

    @invariant()
    def every_state_followed_from_the_one_before(self) -> None:
        before = dict.fromkeys(NAMES, State.REGISTERED)
        for change in self.node.told(ComponentStateChanged):
            assert change.old_state == before[change.name]
            assert State(change.new_state) in TRANSITIONS[before[change.name]]
            before[change.name] = State(change.new_state)
        assert {name: self.node.slot(name).state for name in NAMES} == before

    @invariant()
    def hooks_of_one_component_never_overlap(self) -> None:
        assert {name: actor.overlaps for name, actor in self.actors.items()} == {name: [] for name in NAMES}

    @invariant()
    def one_recovery_at_a_time(self) -> None:
        attempts = [task for task in asyncio.all_tasks(self.loop) if "_recover" in repr(task.get_coro())]
        assert len(attempts) <= len(NAMES)

    @invariant()
    def components_are_the_same_objects(self) -> None:
        assert all(self.node.actor(name) is actor for name, actor in self.actors.items())

    def teardown(self) -> None:
        if hasattr(self, "node"):
            self.loop.run_until_complete(self._end())
            assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    async def _end(self) -> None:
        for actor in self.actors.values():
            actor.script.clear()
            actor.answer = HealthReport.of()
        await asyncio.sleep(WELL_AGAIN_S)
        assert {self.node.slot(name).state for name in NAMES} <= RESTING
        for outcome in await asyncio.gather(*self.asked, *self.calling, return_exceptions=True):
            assert not isinstance(outcome, Exception) or isinstance(outcome, MagError), outcome
        for task in self.calling:
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), Unavailable)
        for name in NAMES:  # whatever happened, the operator's word counts: it runs
            if self.node.slot(name).state is not State.RUNNING:
                await self.node.supervisor.start(name)
            assert self.node.slot(name).footprint.tasks == 2
            assert self.node.slot(name).footprint.subscriptions == 2
        self.polling.cancel()
        await asyncio.wait({self.polling})
        await self.node.close()
        self.hooks_of_one_component_never_overlap()
        assert self.loop.complaints == []


Life.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLife = Life.TestCase


def test_many_random_lives_with_a_fixed_seed() -> None:
    """Longer than hypothesis would go, and the same on every machine."""
    for seed in range(20):
        random = Random(seed)
        life = Life()
        life.boot(seed, random.randrange(5))
        for _ in range(150):
            name = random.choice(NAMES)
            act = random.choice(
                [
                    lambda: life.ask(name, random.choice(("restart", "start", "stop"))),  # noqa: B023
                    lambda: life.go_away(random.randrange(20)),  # noqa: B023
                    lambda: life.teach(name, random.choice(("start", "stop")), random.choice(BEHAVIOURS)),  # noqa: B023
                    lambda: life.crash(name),  # noqa: B023
                    lambda: life.feel(name, random.choice((SICK, HealthReport.of(), "raise", "hang"))),  # noqa: B023
                    life.call,
                    lambda: life.wait(random.choice((0.0, 0.3, 1.0, 7.0, 30.0))),  # noqa: B023
                ]
            )
            act()
            life.hooks_of_one_component_never_overlap()
        life.every_state_followed_from_the_one_before()
        life.teardown()


@pytest.mark.parametrize("first_seed", [0, 100, 200])
def test_the_node_ends_in_the_middle_of_anything(first_seed: int) -> None:
    """Whatever is under way is ended in a bounded time, nothing begins after, and nothing is left."""
    for seed in range(first_seed, first_seed + 30):
        random, life = Random(seed), Life()
        life.boot(seed, random.randrange(5))
        for _ in range(random.randrange(25)):
            name = random.choice(NAMES)
            match random.randrange(4):
                case 0:
                    life.ask(name, random.choice(("restart", "start", "stop")))
                case 1:
                    life.teach(name, random.choice(("start", "stop")), random.choice(BEHAVIOURS))
                case 2:
                    life.crash(name)
                case _:
                    life.wait(random.choice((0.0, 0.3, 1.0, 2.5)))
        life.loop.run_until_complete(_end_at_once(life))
        life.every_state_followed_from_the_one_before()
        assert not asyncio.all_tasks(life.loop)
        life.loop.close()


async def _end_at_once(life: Life) -> None:
    life.polling.cancel()
    began_s = life.loop.time()
    await life.node.close()
    assert life.loop.time() - began_s < 25  # ten seconds were given, and each hook has its grace
    calls = {name: list(actor.calls) for name, actor in life.actors.items()}
    await asyncio.sleep(WELL_AGAIN_S)
    assert {name: actor.calls for name, actor in life.actors.items()} == calls
    assert all(one[-1] == "shutdown" for one in calls.values())
    assert {life.node.slot(name).state for name in NAMES} <= RESTING - {State.RUNNING}
    await asyncio.gather(*life.asked, *life.calling, return_exceptions=True)
    assert life.loop.complaints == []
