"""Components join and leave a running node: wholly or not at all, and nobody else is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.boards import LIMIT_S, Scene, scene
from tests.unit.kernel.graphs import Plan, component_of, plans

from magmobo.contracts.component import Component, Context, Needs, Wants
from magmobo.contracts.errors import Unavailable
from magmobo.kernel.errors import (
    AmbiguousProvider,
    ComponentNotAdded,
    DependencyCycle,
    DuplicateComponent,
    MissingProvider,
    NeedsNotRunning,
    RegistryError,
    StillNeeded,
    UnknownComponent,
)
from magmobo.kernel.registry import Registry
from magmobo.testing.harness import footprint


class Store(Protocol):
    async def get(self) -> str: ...

    def peek(self) -> str: ...


class Feed(Protocol):
    async def next(self) -> str: ...


class Storage(Component):
    name = "storage"
    provides = (Store,)

    async def get(self) -> str:
        return self.name

    def peek(self) -> str:
        return self.name


class Reader(Component):
    """Needs the store, wants the feed; `last` is the instance made last."""

    name = "reader"
    last: ClassVar[Reader]

    def __init__(self, store: Needs[Store], feed: Wants[Feed]) -> None:
        self.store, self.feed = store, feed
        Reader.last = self


class Fan(Component):
    """Merely wants the store."""

    name = "fan"
    last: ClassVar[Fan]

    def __init__(self, store: Wants[Store]) -> None:
        self.store = store
        Fan.last = self


class Feeder(Component):
    name = "feeder"
    provides = (Feed,)

    async def next(self) -> str:
        return "fresh"


class Busy(Component):
    """Holds a task, a subscription and a handle; each hook may be told to misbehave. `lines` is what it did."""

    name = "busy"
    lines: ClassVar[list[str]]
    misbehave: ClassVar[dict[str, Callable[[], Awaitable[None]]]]

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        self._context, self._store = context, store

    async def _hook(self, hook: str) -> None:
        self.lines.append(hook)
        if hook in self.misbehave:
            await self.misbehave[hook]()

    async def boot(self) -> None:
        self._context.bus.on("component.**", lambda envelope: None)
        self._context.spawn(asyncio.Event().wait(), name="work")
        await self._hook("boot")

    async def start(self) -> None:
        await self._hook("start")

    async def stop(self) -> None:
        await self._hook("stop")

    async def shutdown(self, timeout_s: float) -> None:
        await self._hook("shutdown")


@pytest.fixture(autouse=True)
def _calm() -> None:
    Busy.lines, Busy.misbehave = [], {}


def held(there: Scene) -> tuple[Any, ...]:
    """What the node holds beyond its slots: tasks, subscriptions, and the handles on each link."""
    links = {link.protocol.__name__: link.is_used for slot in there.board.slots.values() for link in slot.links}
    return footprint().tasks, there.bus.subscription_count("busy"), links


# ---------------------------------------------------------------- joining


async def test_a_component_joins_and_is_taken_down_in_its_turn() -> None:
    order: list[str] = []

    class Noted(Storage):
        async def stop(self) -> None:
            order.append("storage.stop")

    class Last(Busy):
        async def stop(self) -> None:
            order.append("busy.stop")

    async with scene(Noted) as there:
        assert await there.add(Last) == "busy"
        assert there.states == {"storage": "running", "busy": "running"}
        assert there.topics("busy") == ["component.registered", "component.started"]
        assert there.board.registry.levels == (("storage",), ("busy",))
    assert order == ["busy.stop", "storage.stop"]
    assert there.states == {"storage": "stopped", "busy": "stopped"}


async def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    class Circular(Component):
        name = "circular"
        provides = (Feed,)
        after = ("reader",)

    class Other(Component):
        name = "other"
        provides = (Store,)

    class Namesake(Component):
        name = "storage"

    class Hungry(Component):
        name = "hungry"

        def __init__(self, feed: Needs[Feed]) -> None: ...

    refusals: list[tuple[type[Component], type[RegistryError]]] = [
        (Circular, DependencyCycle), (Other, AmbiguousProvider), (Namesake, DuplicateComponent),
        (Hungry, MissingProvider),
    ]  # fmt: skip
    async with scene(Storage, Reader) as there:
        told = len(there.told)
        for component, refusal in refusals:
            with pytest.raises(refusal):
                await there.add(component)
        assert there.states == {"storage": "running", "reader": "running"}
        assert len(there.told) == told
        with pytest.raises(UnknownComponent):
            await there.remove("nobody")


async def test_what_it_needs_must_run() -> None:
    async with scene(Storage) as there:
        await there.board.slot("storage").stop(LIMIT_S, for_good=False)
        with pytest.raises(NeedsNotRunning, match='"busy" needs what does not run: storage'):
            await there.add(Busy)
        assert there.states == {"storage": "stopped"}
        assert Busy.lines == []


async def _raise() -> None:
    raise OSError("no luck")


@pytest.mark.parametrize(("hook", "undone"), [("boot", ["shutdown"]), ("start", ["stop", "shutdown"])])
async def test_a_failure_leaves_nothing_behind(hook: str, undone: list[str]) -> None:
    async with scene(Storage) as there:
        before = held(there)
        Busy.misbehave = {hook: _raise}
        with pytest.raises(ComponentNotAdded, match=rf'"busy" was not added \({hook}\): OSError: no luck'):
            await there.add(Busy)
        assert Busy.lines[-len(undone) :] == undone
        assert there.states == {"storage": "running"}
        assert there.topics("busy") == ["component.registered", "component.failed", "component.unregistered"]
        assert held(there) == before
        assert there.failed == [], "the supervisor has nothing to do with it"
        Busy.misbehave = {}
        await there.add(Busy)
        assert there.states == {"storage": "running", "busy": "running"}


@pytest.mark.parametrize("hook", ["boot", "start"])
async def test_a_task_that_fails_meanwhile_fails_the_joining(hook: str) -> None:
    class Doomed(Busy):
        async def _hook(self, entered: str) -> None:
            if entered == hook:
                self._context.spawn(_raise(), name="doomed")
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    async with scene(Storage) as there:
        before = held(there)
        with pytest.raises(ComponentNotAdded, match="no luck"):
            await there.add(Doomed)
        assert held(there) == before
        assert there.failed == []


async def test_a_constructor_that_raises_leaves_nothing_behind() -> None:
    class Rash(Component):
        name = "rash"

        def __init__(self, store: Needs[Store]) -> None:
            raise ValueError("not today")

    async with scene(Storage) as there:
        before = held(there)
        with pytest.raises(ComponentNotAdded, match=r"\(configure\): ValueError: not today"):
            await there.add(Rash)
        assert held(there) == before


@pytest.mark.parametrize("hook", ["boot", "start"])
@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_cancelled_caller_leaves_nothing_behind(hook: str, cancels: int) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def slow() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async with scene(Storage) as there:
        before = held(there)
        Busy.misbehave = {hook: hang, "shutdown": slow}
        caller = asyncio.create_task(there.add(Busy))
        await entered.wait()
        assert there.states["busy"] in {"configured", "starting"}, "it can be seen while it joins"
        for _ in range(cancels):
            caller.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert Busy.lines[-1] == "shutdown"
        assert there.states == {"storage": "running"}
        assert held(there) == before


async def test_neither_caller_nor_node_cut_a_taking_back_short() -> None:
    entered, leaving, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def slow() -> None:
        leaving.set()
        await go_on.wait()

    async with scene(Storage) as there:
        Busy.misbehave = {"start": hang, "stop": slow}
        caller = asyncio.create_task(there.add(Busy))
        await entered.wait()
        caller.cancel()
        await leaving.wait()
        end = asyncio.create_task(there.board.take_down(timeout_s=LIMIT_S))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not end.done()
        go_on.set()
        await end
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert Busy.lines == ["boot", "start", "stop", "shutdown"]


@pytest.mark.parametrize("hook", ["boot", "start"])
async def test_the_end_of_the_node_takes_back_who_is_just_joining(hook: str) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    async with scene(Storage) as there:
        Busy.misbehave = {hook: hang}
        caller = asyncio.create_task(there.add(Busy))
        waiting = asyncio.create_task(there.add(Feeder))
        await entered.wait()
        await there.board.take_down(timeout_s=LIMIT_S)
        for task in (caller, waiting):
            with pytest.raises(Unavailable, match="the node"):
                await task
    assert Busy.lines[-1] == "shutdown"
    assert there.states == {"storage": "stopped"}


async def test_changes_run_one_at_a_time() -> None:
    async with scene(Storage) as there:
        results = await asyncio.gather(*(there.add(Busy) for _ in range(5)), return_exceptions=True)
        assert [result for result in results if result == "busy"] == ["busy"]
        assert sum(isinstance(result, DuplicateComponent) for result in results) == 4


# ---------------------------------------------------------------- leaving


async def test_a_component_leaves_and_nothing_of_it_is_left() -> None:
    async with scene(Storage) as there:
        before = held(there)
        await there.add(Busy)
        assert held(there) != before
        await there.remove("busy")
        assert Busy.lines == ["boot", "start", "stop", "shutdown"]
        assert held(there) == before
        assert there.states == {"storage": "running"}
        assert there.topics("busy")[-2:] == ["component.stopped", "component.unregistered"]
        with pytest.raises(UnknownComponent):
            there.board.slot("busy")


async def test_whoever_is_needed_stays() -> None:
    async with scene(Storage, Reader) as there:
        await there.board.slot("reader").stop(LIMIT_S, for_good=False)
        for leave in (there.remove, there.disable):
            with pytest.raises(StillNeeded, match='"storage" is needed by reader'):
                await leave("storage")
        assert there.states == {"storage": "running", "reader": "stopped"}, "a stopped one needs it too"


async def test_a_leaving_goes_to_its_end_whatever_the_caller_does() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    async with scene(Storage, Busy) as there:
        Busy.misbehave = {"stop": slow}
        caller = asyncio.create_task(there.remove("busy"))
        await entered.wait()
        for _ in range(3):
            caller.cancel()
            await asyncio.sleep(0)
        assert not caller.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert Busy.lines[-2:] == ["stop", "shutdown"]
        assert there.states == {"storage": "running"}


async def test_who_wants_what_left_hears_so_at_once_and_meets_the_next_one() -> None:
    class Successor(Storage):
        name = "successor"

    async with scene(Storage, Fan) as there:
        store = Fan.last.store
        assert store is not None
        assert await store.get() == store.peek() == "storage"
        waits = asyncio.create_task(_while_down(there, store))
        await there.remove("storage")
        with pytest.raises(Unavailable):
            await waits
        async with asyncio.timeout(4):  # and not the five seconds that a restart may take
            with pytest.raises(Unavailable, match=r"Store .*storage.* was taken off the node"):
                await store.get()
        with pytest.raises(Unavailable):
            store.peek()
        await there.add(Successor)
        assert await store.get() == store.peek() == "successor"
        await there.board.slot("successor").stop(LIMIT_S, for_good=False)
        waits = asyncio.create_task(store.get())
        await asyncio.sleep(0)
        assert not waits.done(), "a provider that will come back is worth waiting for"
        await there.board.slot("successor").start(LIMIT_S)
        assert await waits == "successor"
        assert there.states["fan"] == "running"
        assert there.board.registry.wants("fan") == ("successor",)


async def _while_down(there: Scene, store: Store) -> str:
    while there.states.get("storage") == "running":
        await asyncio.sleep(0)
    while True:
        await asyncio.sleep(0)
        await store.get()


async def test_who_wanted_what_nobody_provided_sees_it_when_made_anew() -> None:
    async with scene(Storage, Reader) as there:
        assert Reader.last.feed is None
        await there.add(Feeder)
        assert Reader.last.feed is None, "a component's collaborators do not change under it"
        await there.disable("reader")
        await there.enable("reader")
        assert Reader.last.feed is not None
        assert await Reader.last.feed.next() == "fresh"


# ---------------------------------------------------------------- disabled


async def test_a_disabled_component_is_seen_and_comes_back() -> None:
    async with scene(Storage, Busy) as there:
        before = held(there)
        for _ in range(2):  # doing it twice is fine
            await there.disable("busy")
            assert there.states == {"storage": "running", "busy": "disabled"}
        assert Busy.lines == ["boot", "start", "stop", "shutdown"]
        assert there.board.idle_reasons == {"busy": "disabled"}
        assert there.bus.subscription_count("busy") == 0
        for _ in range(2):
            await there.enable("busy")
            assert there.states == {"storage": "running", "busy": "running"}
        assert Busy.lines == ["boot", "start", "stop", "shutdown", "boot", "start"]
        assert there.board.idle_reasons == {}
        assert [len(part) if isinstance(part, frozenset) else part for part in held(there)] == [
            len(part) if isinstance(part, frozenset) else part for part in before
        ]


async def test_one_that_does_not_come_back_stays_disabled() -> None:
    async with scene(Storage, Busy) as there:
        await there.disable("busy")
        before = held(there)
        Busy.misbehave = {"start": _raise}
        with pytest.raises(ComponentNotAdded):
            await there.enable("busy")
        assert there.states == {"storage": "running", "busy": "disabled"}
        assert held(there) == before
        await there.disable("storage")
        with pytest.raises(MissingProvider, match='"storage" would, but it is disabled'):
            await there.enable("busy")
        await there.remove("busy")
        assert there.states == {"storage": "disabled"}


async def test_a_failed_component_can_be_disabled() -> None:
    async with scene(Storage, Busy) as there:
        there.board.slot("busy").fail(OSError("worn out"))
        assert there.failed == ["busy"]
        await there.disable("busy")
        assert there.states == {"storage": "running", "busy": "disabled"}


# ---------------------------------------------------------------- any sequence


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_sequence_of_changes_gives_what_a_fresh_registry_says(data: st.DataObject) -> None:
    asyncio.run(_any_sequence(data))


async def _any_sequence(data: st.DataObject) -> None:
    given_plans: list[Plan] = data.draw(plans(acyclic=True))
    types = {plan.name: component_of(plan) for plan in given_plans}
    async with scene() as there:
        for _ in range(data.draw(st.integers(1, 16))):
            name = data.draw(st.sampled_from(sorted(types)))
            state = there.states.get(name)
            acts = {None: ["add"], "running": ["remove", "disable"], "disabled": ["remove", "enable"]}[state]
            act = data.draw(st.sampled_from(acts))
            try:
                await getattr(there, act)(types[name] if act == "add" else name)
            except (StillNeeded, MissingProvider):
                assert there.states.get(name) == state
            _as_a_fresh_one(there, types)
    assert set(there.states.values()) <= {"stopped", "disabled"}


def _as_a_fresh_one(there: Scene, types: dict[str, type[Component]]) -> None:
    registry = there.board.registry
    fresh = Registry([types[name] for name in registry.declarations], idle=[types[name] for name in registry.idle])
    assert {name: set(edges) for name, edges in fresh.edges.items()} == {
        name: set(edges) for name, edges in registry.edges.items()
    }
    assert set(there.board.slots) == {*registry.declarations, *registry.idle}
    for name, slot in there.board.slots.items():
        assert slot.state == ("running" if name in registry.declarations else "disabled")
        for link in slot.links if slot.state == "running" else ():
            assert link.target is slot.component
            assert not link.is_vacant
