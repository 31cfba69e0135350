"""A node that is reset, reset again, interrupted while it resets, and changed by several operators at once."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.integration.boot.faults import Fault, armed

from magmobo.contracts.component import Component, Context, Needs
from magmobo.contracts.errors import MagError, StateUnavailable
from magmobo.contracts.events import ComponentStateChanged, SystemReady
from magmobo.kernel.choice import Newcomer
from magmobo.kernel.errors import BootFailed, NotReady
from magmobo.kernel.kernel import Kernel
from magmobo.testing.clock import FakeClock
from magmobo.testing.harness import footprint, make_config, make_kernel, running_kernel


class Store(Protocol):
    async def get(self) -> int: ...


class Base(Component):
    """Whose names are in `bad` does not start; `waits` holds every stop, `stopped` says who has begun to."""

    bad: ClassVar[set[str]] = set()
    waits: ClassVar[asyncio.Event | None] = None
    journal: ClassVar[list[str]] = []

    def __init__(self, context: Context) -> None:
        self.context = context

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.name in self.bad:
            raise RuntimeError("it is told not to")
        self.context.spawn(asyncio.Event().wait(), name="work")
        self.context.bus.on("system.*", lambda _: None)
        self.context.state.watch("", lambda entry, key: None)
        self.context.metrics.gauge("mag_incarnation", "of the last start", lambda: 1, labels={"of": self.name})
        self.journal.append(f"{self.name} starts")

    async def stop(self) -> None:
        self.journal.append(f"{self.name} stops")
        if self.waits is not None:
            await self.waits.wait()
        await asyncio.sleep(0)
        self.journal.append(f"{self.name} has stopped")


class Alpha(Base):
    name = "alpha"
    provides = (Store,)

    async def get(self) -> int:
        return 1


class Beta(Base):
    name = "beta"

    def __init__(self, context: Context, store: Needs[Store]) -> None:
        super().__init__(context)


class Gamma(Base):
    name = "gamma"


class Delta(Base):
    name = "delta"


@pytest.fixture(autouse=True)
def _good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Base, "bad", set())
    monkeypatch.setattr(Base, "waits", None)
    monkeypatch.setattr(Base, "journal", [])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def disabled_for_good(kernel: Kernel) -> set[str]:
    entry = await kernel.services.states.scope("kernel").get("disabled")
    return set() if entry is None else set(entry.value)


def not_running(kernel: Kernel) -> dict[str, str]:
    return {one.name: one.state for one in kernel.status().components if one.state != "running"}


# ---------------------------------------------------------------- again and again


async def test_twenty_resets_leave_nothing_behind() -> None:
    async with running_kernel(Alpha, Beta) as kernel:
        await kernel.reset()
        gone = weakref.ref(kernel.assembly)
        before, threads = await measured(kernel), threading.active_count()
        for _ in range(20):
            await kernel.reset()
        assert await measured(kernel) == before
        gc.collect()
        assert gone() is None, "the assembly of a former boot is kept"
        assert threading.active_count() == threads


async def test_a_hundred_restarts_leave_nothing_behind() -> None:
    async with running_kernel(Alpha, Beta) as kernel:
        await kernel.restart_component("alpha")
        before = await measured(kernel)
        for _ in range(100):
            await kernel.restart_component("alpha")
        assert await measured(kernel) == before


async def test_what_does_not_join_leaves_nothing_behind() -> None:
    Base.bad = {"gamma"}
    async with running_kernel(Alpha) as kernel:
        before = await measured(kernel)
        for _ in range(20):
            with pytest.raises(MagError, match="told not to"):
                await kernel.register_component(Gamma)
        assert await measured(kernel) == before
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Gamma)]


async def measured(kernel: Kernel) -> dict[str, Any]:
    """Everything that could grow, but the figures by topic, once what was to be written is written."""
    passing = ("kernel:chronicle", "audit:writer")
    await until(lambda: not any(task.get_name() in passing for task in asyncio.all_tasks()))
    services, names = kernel.services, ("kernel", "alpha", "beta", "gamma")
    figures = [family for family in services.metrics.families() if not family.name.startswith("mag_bus_")]
    return {
        "tasks": len(footprint().tasks),
        "descriptors": len(footprint().descriptors),
        "subscriptions": {name: kernel.bus.subscription_count(name) for name in names},
        "watchers": {name: services.states.watch_count(name) for name in names},
        "handlers": services.commands.handler_count(),
        "series": {family.name: len(family.samples) for family in figures},
        "spans": len(kernel.facts.timeline.spans),
    }


async def test_after_a_reset_the_log_does_not_speak_of_a_crash() -> None:
    with capture_logs() as lines:
        async with running_kernel(Alpha) as kernel:
            await kernel.reset()
    assert [line for line in lines if line["log_level"] in ("warning", "error")] == []


async def test_who_asked_goes_away_and_the_next_one_may_ask() -> None:
    async with running_kernel(Alpha) as kernel:
        asking = asyncio.create_task(kernel.reset())
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await kernel.reset()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        await until(lambda: kernel.state == "ready")
        await kernel.reset()
        assert kernel.state == "ready"


# ---------------------------------------------------------------- interrupted


class Striker:
    """Stands where a `Fault` expects the boot: is told of the chosen suspension and does `act` there."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def done(self) -> bool:
        return False

    def cancel(self) -> None:
        self._act()


async def test_a_caller_that_is_cancelled_at_any_await_harms_no_reset() -> None:
    async with running_kernel(Alpha, Beta) as kernel:
        for at in range(1, 200):
            fault = Fault("cancel", at, frozenset())
            with armed(fault):
                asking = asyncio.create_task(kernel.reset())
                fault.boot = Striker(asking.cancel)  # type: ignore[assignment]
                await asyncio.wait({asking})
                await until(lambda: kernel.state == "ready")
            assert not_running(kernel) == {}
            if not asking.cancelled():
                break
        assert at > 15, "nobody was interrupted"


async def test_a_shutdown_at_any_await_of_a_reset_ends_everything(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    struck = 0
    for at in range(1, 300):
        before = footprint()
        kernel = make_kernel(Alpha, Beta, data_dir=tmp_path)
        await kernel.boot()
        Base.journal.clear()
        fault, leaving = Fault("cancel", at, frozenset()), []

        def leave(kernel: Kernel = kernel, leaving: list[asyncio.Task[None]] = leaving) -> None:
            leaving.append(asyncio.create_task(kernel.shutdown()))

        with armed(fault):
            fault.boot = Striker(leave)  # type: ignore[assignment]
            resetting = asyncio.create_task(kernel.reset())
            await asyncio.wait({resetting}, timeout=20)
        if not leaving:
            resetting.result()
            await kernel.shutdown()
            break
        struck += 1
        await asyncio.wait({*leaving, resetting}, timeout=20)
        for one in leaving:
            one.result()
        assert kernel.state == "stopped", f"at {at}"
        if resetting.exception() is not None:
            assert isinstance(resetting.exception(), NotReady), f"at {at}: {resetting.exception()!r}"
        stops = [line for line in Base.journal if line.endswith(" stops")]
        assert len([line for line in Base.journal if line.endswith("has stopped")]) >= min(len(stops), 2), f"at {at}"
        await until(lambda before=before: footprint().tasks <= before.tasks)  # type: ignore[misc]
        assert footprint().descriptors == before.descriptors, f"at {at}"
    assert struck > 15


async def test_a_drain_of_a_reset_is_not_cut_off_by_a_shutdown() -> None:
    async with running_kernel(Alpha) as kernel:
        Base.waits = asyncio.Event()
        resetting = asyncio.create_task(kernel.reset())
        await until(lambda: Base.journal[-1] == "alpha stops")
        leaving = asyncio.create_task(kernel.shutdown())
        await asyncio.sleep(0.01)
        assert not leaving.done()
        Base.waits.set()
        await leaving
        with pytest.raises(NotReady):
            await resetting
        assert Base.journal[-2:] == ["alpha stops", "alpha has stopped"]
        assert kernel.state == "stopped"


async def test_a_reset_that_does_not_come_back_asks_the_node_to_end_and_is_shut_down(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    asked: list[str] = []
    kernel = Kernel(
        components=(Alpha,), config=make_config(Alpha), data_dir=tmp_path, environment="test", instance_id="x",
        version="0", on_exit=asked.append,
    )  # fmt: skip
    await kernel.boot()
    Base.bad = {"alpha"}
    with pytest.raises(BootFailed):
        await kernel.reset()
    assert (kernel.state, len(asked)) == ("failed", 1)
    assert "told not to" in asked[0]
    with pytest.raises(NotReady):
        await kernel.reset()
    await kernel.shutdown()
    with pytest.raises(RuntimeError, match="boots once"):
        await kernel.boot()


# ---------------------------------------------------------------- who takes part


async def test_nobody_joins_or_leaves_while_the_node_comes_up() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        kernel = make_kernel(Alpha, Gamma, data_dir=Path(scratch))
        asked: list[asyncio.Task[Any]] = []

        async def interfere() -> None:
            for order in (
                kernel.register_component(Delta),
                kernel.unregister_component("gamma"),
                kernel.disable_component("gamma"),
                kernel.enable_component("gamma"),
            ):
                with pytest.raises(NotReady):
                    await order

        def starting(envelope: Any) -> None:
            if envelope.data.new_state == "starting":
                asked.append(asyncio.create_task(interfere()))

        kernel.bus.subscribe("test", ComponentStateChanged, starting)
        await kernel.boot()
        assert len(asked) == 2
        await asyncio.gather(*asked)
        assert not_running(kernel) == {}
        assert await disabled_for_good(kernel) == set()
        await kernel.shutdown()


async def test_a_component_that_does_not_start_when_enabled_does_not_break_the_next_boot() -> None:
    async with running_kernel(Alpha, Gamma) as kernel:
        await kernel.disable_component("gamma")
        Base.bad = {"gamma"}
        with pytest.raises(MagError, match="told not to"):
            await kernel.enable_component("gamma")
        assert not_running(kernel) == {"gamma": "disabled"}
        assert await disabled_for_good(kernel) == {"gamma"}
        await kernel.reset()
        assert not_running(kernel) == {"gamma": "disabled"}


async def test_what_cannot_be_remembered_is_not_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_kernel(Alpha, Gamma) as kernel:

        async def full(change: object) -> object:
            raise StateUnavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(kernel.services.states, "change", full)
            with pytest.raises(StateUnavailable):
                await kernel.disable_component("gamma")
            assert not_running(kernel) == {}
        assert await disabled_for_good(kernel) == set()


async def test_a_component_that_failed_can_be_disabled_and_is_not_recovered() -> None:
    clock = FakeClock()
    async with running_kernel(Alpha, Gamma, clock=clock) as kernel:
        slot = kernel.assembly.board.slot("gamma")
        slot.fail(RuntimeError("on purpose"))
        await kernel.disable_component("gamma")
        await clock.advance(5)  # the recovery would have come by now
        assert not_running(kernel) == {"gamma": "disabled"}
        assert Base.journal.count("gamma starts") == 1


async def test_one_that_left_may_come_again_and_is_remembered_as_enabled() -> None:
    async with running_kernel(Alpha, Gamma) as kernel:
        await kernel.disable_component("gamma")
        await kernel.unregister_component("gamma")
        await kernel.register_component(Gamma)
        assert not_running(kernel) == {}
        assert await disabled_for_good(kernel) == set()
        for _ in range(3):
            await kernel.unregister_component("gamma")
            await kernel.register_component(Gamma)
        assert not_running(kernel) == {}


async def test_the_states_of_all_components_are_remembered_and_those_that_never_joined_are_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    Base.bad = {"delta"}

    async def remembered(kernel: Kernel) -> dict[str, str]:
        await kernel._stages.memory.write_now()
        entry = await kernel.services.states.scope("kernel").get("components")
        return {} if entry is None else dict(entry.value)

    async with running_kernel(Alpha, Gamma, data_dir=tmp_path) as kernel:
        assert await remembered(kernel) == {"alpha": "running", "gamma": "running"}
        with pytest.raises(MagError):
            await kernel.register_component(Delta)
        await kernel.unregister_component("gamma")
        assert await remembered(kernel) == {"alpha": "running"}


async def test_a_node_that_somebody_joins_is_not_degraded_meanwhile() -> None:
    states: list[str] = []

    class Slow(Base):
        name = "slow"

        async def boot(self) -> None:
            states.append(self.kernel.state)

        async def start(self) -> None:
            states.append(self.kernel.state)

    async with running_kernel(Alpha) as kernel:
        Slow.kernel = kernel  # type: ignore[attr-defined]
        await kernel.register_component(Slow)
        assert states == ["ready", "ready"]


async def test_strangers_in_exit_on_are_named() -> None:
    async with running_kernel(Alpha, config={"recovery": {"exit_on": ["alpha", "alhpa"]}}) as kernel:
        [notice] = [one for one in kernel.status().notices if "exit_on" in one]
        assert "alhpa" in notice
        assert "alpha," not in notice


# ---------------------------------------------------------------- several operators at once

CLASSES: Sequence[type[Base]] = (Alpha, Beta, Gamma, Delta)
NAMES = [one.name for one in CLASSES]
ORDERS = st.tuples(
    st.sampled_from(["disable", "enable", "restart", "register", "unregister", "break", "mend", "reset"]),
    st.sampled_from(NAMES),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(ORDERS, min_size=1, max_size=4), max_size=6))
def test_what_is_remembered_is_what_runs_whatever_operators_order(program: list[list[tuple[str, str]]]) -> None:
    Base.bad = set()
    asyncio.run(run(program))


async def run(program: list[list[tuple[str, str]]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        kernel = Kernel(
            components=CLASSES, config=make_config(*CLASSES, values={"recovery": {"restarts": 0}}),
            data_dir=Path(scratch), environment="test", instance_id="x", version="0",
            resolve=lambda name: Newcomer(CLASSES[NAMES.index(name)], "here"),
        )  # fmt: skip
        await kernel.boot()
        try:
            for orders in program:
                outcomes = await asyncio.gather(*(carry_out(kernel, *one) for one in orders), return_exceptions=True)
                errors = [one for one in outcomes if one is not None]
                assert all(isinstance(one, MagError) for one in errors), errors
                if kernel.state == "failed":
                    return
                idle = set(kernel.assembly.board.registry.idle)
                needs_disabled = {"beta"} if "alpha" in idle else set()
                remembered = await disabled_for_good(kernel)
                members = set(kernel.assembly.board.registry.declarations)
                assert not remembered & members, f"{remembered} would not start again, but run"
                assert idle <= remembered | needs_disabled, f"{idle} do not run, but would start again"
        finally:
            await kernel.shutdown()
        assert kernel.state == "stopped"


async def carry_out(kernel: Kernel, order: str, name: str) -> None:
    match order:
        case "break":
            Base.bad = Base.bad | {name}
        case "mend":
            Base.bad = Base.bad - {name}
        case "reset":
            Base.bad = set()
            await kernel.reset()
        case "register":
            await kernel.register_source(name)
        case _:
            await getattr(kernel, f"{order}_component")(name)


async def test_the_journal_of_the_bus_tells_of_each_reset() -> None:
    ready: list[float] = []
    async with running_kernel(Alpha) as kernel:
        kernel.bus.subscribe("test", SystemReady, lambda envelope: ready.append(envelope.data.boot_s))
        for _ in range(3):
            await kernel.reset()
        await until(lambda: len(ready) == 3)
