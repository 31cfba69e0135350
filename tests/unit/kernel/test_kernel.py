"""Boot, rollback, shutdown and failure of a whole kernel with small real components."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import pytest
from msgspec import Meta, Struct

from magmobo.contracts.component import Announcement, Component, Context, Needs, Wants
from magmobo.contracts.errors import MagError, Unavailable
from magmobo.contracts.events import Event, SystemReady
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.kernel.errors import (
    BootFailed,
    IllegalTransition,
    MissingProvider,
    PhaseTimeout,
    SelfTestFailed,
    UnknownComponent,
)
from magmobo.kernel.kernel import Kernel
from magmobo.testing.clock import FakeClock
from magmobo.testing.harness import footprint, make_kernel, running_kernel

STAGES = ["pre_boot", "kernel_init", "post", "component_load", "service_start", "ready"]


class Store(Protocol):
    async def get(self) -> str: ...


class Journal:
    """What happened, in order, across components. Served to them from outside."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.misbehave: dict[str, Any] = {}

    async def note(self, component: str, hook: str) -> None:
        self.lines.append(f"{component}.{hook}")
        behaviour = self.misbehave.get(f"{component}.{hook}")
        if isinstance(behaviour, Exception):
            raise behaviour
        if behaviour == "hang":
            await asyncio.Event().wait()
        if behaviour == "stubborn":
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.lines.append(f"{component}.{hook} ignored its cancellation")
                    if self.lines.count(f"{component}.{hook} ignored its cancellation") > 1:
                        raise


class Broken(MagError):
    """A component of the test is broken on purpose."""

    code = "MAG-TEST-001"
    exit_code = 9
    remedy = "Mend it."


class Recording(Component):
    """Writes every hook into the journal."""

    def __init__(self, context: Context, journal: Needs[Journal]) -> None:
        self.context, self.journal = context, journal
        context.bus.on("**", self._hear)

    def _hear(self, envelope: Any) -> None: ...

    async def boot(self) -> None:
        self.context.spawn(asyncio.Event().wait(), name="background")
        await self.journal.note(self.name, "boot")

    async def start(self) -> None:
        await self.journal.note(self.name, "start")

    async def stop(self) -> None:
        await self.journal.note(self.name, "stop")

    async def shutdown(self, timeout_s: float) -> None:
        await self.journal.note(self.name, "shutdown")


class Base(Recording):
    name = "base"
    provides = (Store,)

    async def get(self) -> str:
        return "from base"


class Middle(Recording):
    name = "middle"

    def __init__(self, context: Context, journal: Needs[Journal], store: Needs[Store]) -> None:
        super().__init__(context, journal)
        self.store = store

    async def boot(self) -> None:
        assert await self.store.get() == "from base"  # usable as soon as its provider has booted
        await super().boot()

    def announce(self) -> Announcement:
        return Announcement(urls={"middle": "http://x"}, examples=["curl x"], notices=["no live changes here"])


class Top(Recording):
    name = "top"
    after = ("middle",)


ALL = (Top, Middle, Base)
UP = ["base.boot", "middle.boot", "top.boot", "base.start", "middle.start", "top.start"]
DOWN = ["top.stop", "middle.stop", "base.stop", "top.shutdown", "middle.shutdown", "base.shutdown"]


class Scene(Struct):
    journal: Journal
    kernel: Kernel
    topics: list[str]


@asynccontextmanager
async def scene(
    tmp_path: Path, *components: type[Component], config: dict[str, Any] | None = None
) -> AsyncIterator[Scene]:
    """A kernel that is not booted; whatever the test does with it, nothing may be left."""
    before = footprint()
    journal = Journal()
    kernel = make_kernel(*(components or ALL), data_dir=tmp_path, config=config or {}, provided={Journal: journal})
    topics: list[str] = []
    listener = kernel.bus.on("**", lambda envelope: topics.append(envelope.topic))
    yield Scene(journal, kernel, topics)
    listener.cancel()
    assert kernel.bus.subscription_count() == 0
    after = footprint()
    assert {task.get_name() for task in after.tasks - before.tasks} == set()
    assert after.descriptors <= before.descriptors


# ---------------------------------------------------------------- up and down


async def test_components_come_up_by_level_and_go_down_in_reverse(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        assert here.kernel.state == "booting"
        await here.kernel.boot()
        assert here.kernel.state == "ready"
        assert here.journal.lines == UP
        await here.kernel.shutdown()
        assert here.journal.lines == UP + DOWN
        assert here.kernel.state == "stopped"
        await here.kernel.shutdown()
        assert here.journal.lines == UP + DOWN
        assert [one.stage for one in here.kernel.inspection.boot_report().entries if not one.component] == STAGES


async def test_the_boot_is_told_on_the_bus(tmp_path: Path) -> None:
    async with scene(tmp_path, Base) as here:
        stages: list[str] = []
        boot_s: list[float] = []
        watch = here.kernel.bus.on("system.boot_stage", lambda envelope: stages.append(envelope.data.stage))
        ready = here.kernel.bus.on(SystemReady, lambda envelope: boot_s.append(envelope.data.boot_s))
        await here.kernel.boot()
        await here.kernel.shutdown()
        watch.cancel()
        ready.cancel()
        assert stages == STAGES
        assert boot_s[0] >= 0
        told = [topic for topic in here.topics if topic not in ("system.boot_stage", "component.state_changed")]
        assert told == [
            "system.boot",
            "component.registered",
            "component.started",
            "system.ready",
            "system.shutdown",
            "component.stopped",
        ]


async def test_components_of_one_level_come_up_together(tmp_path: Path) -> None:
    meeting = asyncio.Barrier(2)

    class One(Component):
        name = "one"

        async def boot(self) -> None:
            await meeting.wait()

    class Two(One):
        name = "two"

    async with asyncio.timeout(30), running_kernel(One, Two):
        pass


async def test_status_says_how_components_are_and_what_they_announce(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.kernel.boot()
        status = here.kernel.status()
        assert {(one.name, one.state, one.restarts) for one in status.components} == {
            ("base", "running", 0),
            ("middle", "running", 0),
            ("top", "running", 0),
        }
        assert (status.urls, status.examples, status.notices) == (
            {"middle": "http://x"},
            ["curl x"],
            ["no live changes here"],
        )
        assert status.components[0].since.endswith("+00:00")
        await here.kernel.shutdown()
        assert here.kernel.status().urls == {}


async def test_a_kernel_boots_once(tmp_path: Path) -> None:
    async with scene(tmp_path, Base) as here:
        await here.kernel.boot()
        with pytest.raises(RuntimeError, match="boots once"):
            await here.kernel.boot()
        await here.kernel.shutdown()


async def test_configuration_reaches_its_component_before_boot() -> None:
    class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        size: Annotated[int, Meta(ge=1)] = 1

    class Configured(Component):
        name = "configured"
        config_type = Section

        def configure(self, config: Section) -> None:
            self.size = config.size

        def announce(self) -> Announcement:
            return Announcement(notices=[f"size {self.size}"])

    async with running_kernel(Configured, config={"configured": {"size": 7}}) as kernel:
        assert kernel.status().notices == ["size 7"]


async def test_a_soft_need_nobody_serves_is_none() -> None:
    class Modest(Component):
        name = "modest"

        def __init__(self, context: Context, store: Wants[Store]) -> None:
            assert store is None

    async with running_kernel(Modest):
        pass


# ---------------------------------------------------------------- boot failures


@pytest.mark.parametrize("hook", ["base.boot", "middle.boot", "top.boot", "base.start", "middle.start", "top.start"])
async def test_a_failing_hook_rolls_back_what_was_entered_in_reverse(tmp_path: Path, hook: str) -> None:
    async with scene(tmp_path) as here:
        here.journal.misbehave[hook] = Broken("broken on purpose")
        with pytest.raises(BootFailed) as caught:
            await here.kernel.boot()
        component, phase = hook.split(".")
        error = caught.value
        assert (error.component, error.phase) == (component, phase)
        assert error.stage == ("component_load" if phase == "boot" else "service_start")
        assert (error.exit_code, error.next_step()) == (9, "Mend it.")
        assert f'component "{component}", {phase}' in str(error)
        assert "[MAG-TEST-001]" in str(error)
        entered = UP[: UP.index(hook) + 1]
        undone = [line for line in DOWN if line.replace("stop", "start").replace("shutdown", "boot") in entered]
        assert here.journal.lines == entered + undone
        assert here.kernel.state == "failed"
        assert {one.name: one.state for one in here.kernel.status().components}[component] == "failed"
        assert here.topics[-1] == "system.boot_failed"
        assert "system.ready" not in here.topics


async def test_a_hang_names_component_phase_and_line(tmp_path: Path) -> None:
    async with scene(tmp_path, config={"kernel": {"start_timeout_s": 0.05}}) as here:
        here.journal.misbehave["middle.start"] = "hang"
        with pytest.raises(BootFailed) as caught:
            await here.kernel.boot()
        cause = caught.value.cause
        assert isinstance(cause, PhaseTimeout)
        assert (cause.component, cause.phase) == ("middle", "start")
        assert "test_kernel.py:" in cause.where
        assert cause.where.endswith("in note")
        assert caught.value.exit_code == 7


async def test_a_failure_cancels_siblings_that_still_come_up(tmp_path: Path) -> None:
    class Slow(Recording):
        name = "slow"

        async def boot(self) -> None:
            await super().boot()
            await asyncio.Event().wait()

    async with scene(tmp_path, Base, Slow) as here:
        here.journal.misbehave["base.boot"] = Broken("broken on purpose")
        async with asyncio.timeout(30):
            with pytest.raises(BootFailed, match='"base", boot'):
                await here.kernel.boot()
        assert "slow.shutdown" in here.journal.lines


@pytest.mark.parametrize("hook", ["base.boot", "middle.boot", "top.start"])
async def test_cancelling_a_boot_takes_everything_back(tmp_path: Path, hook: str) -> None:
    async with scene(tmp_path) as here:
        here.journal.misbehave[hook] = "hang"
        boot = asyncio.create_task(here.kernel.boot())
        async with asyncio.timeout(20):
            while hook not in here.journal.lines:
                await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="cancel boot"):
            await here.kernel.shutdown()
        boot.cancel()
        with pytest.raises(asyncio.CancelledError):
            await boot
        assert here.kernel.state == "failed"
        assert here.topics[-1] == "system.boot_failed"
        entered = UP[: UP.index(hook) + 1]
        assert here.journal.lines == entered + [
            line for line in DOWN if line.replace("stop", "start").replace("shutdown", "boot") in entered
        ]


async def test_the_rollback_goes_on_when_a_hook_of_it_fails(tmp_path: Path) -> None:
    async with scene(tmp_path, config={"kernel": {"shutdown_timeout_s": 0.2}}) as here:
        here.journal.misbehave |= {
            "top.start": Broken("the cause"),
            "top.stop": RuntimeError("second"),
            "middle.stop": "hang",
            "middle.shutdown": RuntimeError("third"),
        }
        with pytest.raises(BootFailed, match="the cause"):
            await here.kernel.boot()
        assert here.journal.lines == UP + DOWN


async def test_a_task_that_fails_during_the_boot_fails_the_boot(tmp_path: Path) -> None:
    class Fragile(Component):
        name = "fragile"

        def __init__(self, context: Context) -> None:
            self.context = context

        async def boot(self) -> None:
            async def fail() -> None:
                raise Broken("in a task")

            await asyncio.wait({self.context.spawn(fail(), name="fail")})

    async with scene(tmp_path, Fragile) as here:
        with pytest.raises(BootFailed, match="in a task") as caught:
            await here.kernel.boot()
        assert (caught.value.stage, caught.value.phase) == ("component_load", "boot")


async def test_a_constructor_or_configure_that_raises_is_named(tmp_path: Path) -> None:
    class Refusing(Component):
        name = "refusing"

        def configure(self, config: Any) -> None:
            raise Broken("this will not do")

    async with scene(tmp_path, Base, Refusing) as here:
        with pytest.raises(BootFailed, match='component "refusing", configure'):
            await here.kernel.boot()
        assert here.journal.lines == []


async def test_a_component_that_cannot_say_who_serves_its_protocol_fails_its_boot(tmp_path: Path) -> None:
    class Shy(Component):
        name = "shy"
        provides = (Store,)

        def implementation(self, protocol: type) -> Any:
            raise Broken("nobody")

    async with scene(tmp_path, Shy) as here:
        with pytest.raises(BootFailed, match='"shy", boot'):
            await here.kernel.boot()
        assert here.kernel.status().components[0].state == "failed"


async def test_a_protocol_may_be_served_by_an_object_of_the_component(tmp_path: Path) -> None:
    class Engine:
        async def get(self) -> str:
            return "from the engine"

    class Housing(Component):
        name = "housing"
        provides = (Store,)

        async def boot(self) -> None:
            self.engine = Engine()

        def implementation(self, protocol: type) -> Any:
            return self.engine if protocol is Store else self

    class Driver(Component):
        name = "driver"

        def __init__(self, context: Context, store: Needs[Store]) -> None:
            self.store = store

        async def boot(self) -> None:
            assert await self.store.get() == "from the engine"

    async with running_kernel(Driver, Housing):
        pass


async def test_status_keeps_the_first_error_of_a_component(tmp_path: Path) -> None:
    async with scene(tmp_path, Base) as here:
        here.journal.misbehave |= {"base.start": Broken("the cause"), "base.stop": Broken("a consequence")}
        with pytest.raises(BootFailed):
            await here.kernel.boot()
        assert here.kernel.status().components[0].detail == "the cause [MAG-TEST-001]"


async def test_a_component_list_that_does_not_fit_fails_before_anything_is_built(tmp_path: Path) -> None:
    async with scene(tmp_path, Middle) as here:
        with pytest.raises(BootFailed) as caught:
            await here.kernel.boot()
        assert caught.value.stage == "kernel_init"
        assert isinstance(caught.value.cause, MissingProvider)
        assert caught.value.exit_code == 5


async def test_the_self_test_refuses_what_cannot_work(tmp_path: Path) -> None:
    class Sync(Component):
        name = "sync"

        def start(self) -> None:  # type: ignore[override]
            return

    async with scene(tmp_path / "absent", Base) as here:
        with pytest.raises(BootFailed, match="is not a folder") as caught:
            await here.kernel.boot()
        assert isinstance(caught.value.cause, SelfTestFailed)
        assert caught.value.stage == "kernel_init"  # before the stores are opened in it
    async with scene(tmp_path, Sync) as here:
        with pytest.raises(BootFailed, match="`start` is not `async def`"):
            await here.kernel.boot()


# ---------------------------------------------------------------- shutdown


async def test_a_shutdown_never_hangs(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.kernel.boot()
        here.journal.misbehave |= {"top.stop": "hang", "middle.stop": "stubborn", "base.shutdown": "hang"}
        async with asyncio.timeout(30):
            await here.kernel.shutdown(0.2)
        assert here.kernel.state == "stopped"
        assert [line for line in here.journal.lines if "ignored" not in line] == UP + DOWN
        # the stubborn hook is given up on; asking once more ends it, so that this test leaves nothing
        for task in footprint().tasks:
            task.cancel()
            await asyncio.wait({task}, timeout=5)


async def test_a_hanging_component_leaves_time_for_the_others(tmp_path: Path) -> None:
    class Measuring(Component):
        name = "measuring"
        given_s: ClassVar[list[float]] = []

        async def shutdown(self, timeout_s: float) -> None:
            self.given_s.append(timeout_s)

    class Hanging(Component):
        name = "hanging"
        after = ("measuring",)

        async def stop(self) -> None:
            await asyncio.Event().wait()

    async with scene(tmp_path, Measuring, Hanging) as here:
        await here.kernel.boot()
        await here.kernel.shutdown(2.0)  # of which the hanging one gets half
        assert Measuring.given_s[0] > 0.1


async def test_two_shutdowns_are_one(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.kernel.boot()
        await asyncio.gather(here.kernel.shutdown(), here.kernel.shutdown())
        assert here.journal.lines == UP + DOWN


async def test_nothing_can_be_spawned_after_the_end(tmp_path: Path) -> None:
    contexts: list[Context] = []

    class Keeper(Component):
        name = "keeper"

        def __init__(self, context: Context) -> None:
            contexts.append(context)

    async with running_kernel(Keeper):
        pass
    with pytest.raises(Unavailable):
        contexts[0].spawn(asyncio.sleep(0), name="late")


async def test_a_handler_that_ignores_its_cancellation_does_not_hold_the_shutdown(tmp_path: Path) -> None:
    release = asyncio.Event()

    class Stubborn(Component):
        name = "stubborn"

        def __init__(self, context: Context) -> None:
            context.bus.on("system.ready", self._hear)

        async def _hear(self, envelope: Any) -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    async with scene(tmp_path, Stubborn) as here:
        await here.kernel.boot()
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await here.kernel.shutdown(0.1)
        assert here.kernel.state == "stopped"
        release.set()
        await asyncio.wait(footprint().tasks, timeout=5)


# ---------------------------------------------------------------- a component that fails later


class Explode(Event, frozen=True, gc=False):
    topic = "kernel_tests.explode"


class Bomb(Recording):
    name = "bomb"
    provides = (Store,)

    async def get(self) -> str:
        return "from bomb"

    async def start(self) -> None:
        await super().start()
        self.context.bus.on(Explode, lambda _: self.context.spawn(self._burn(), name="fuse"))

    async def _burn(self) -> None:
        raise Broken("boom")


class User(Recording):
    name = "user"

    def __init__(self, context: Context, journal: Needs[Journal], store: Needs[Store]) -> None:
        super().__init__(context, journal)
        journal.misbehave["store"] = store


async def test_a_failing_task_marks_its_component_and_degrades_the_node(tmp_path: Path) -> None:
    async with scene(tmp_path, Bomb, User, config={"recovery": {"restarts": 0}}) as here:
        await here.kernel.boot()
        store = here.journal.misbehave["store"]
        assert await store.get() == "from bomb"
        quarantined = asyncio.Event()
        here.kernel.bus.on("component.quarantined", lambda _: quarantined.set())
        here.kernel.bus.emit(Explode())
        async with asyncio.timeout(20):
            await quarantined.wait()
        assert here.kernel.state == "degraded"
        [bomb] = [one for one in here.kernel.status().components if one.name == "bomb"]
        assert (bomb.state, bomb.detail) == ("quarantined", "boom [MAG-TEST-001]")
        assert here.topics.count("component.failed") == 1

        with pytest.raises(Unavailable, match="bomb"):  # nobody knows when it will be back
            await store.get()
        await here.kernel.start_component("bomb")
        assert await store.get() == "from bomb"
        assert here.kernel.state == "ready"
        assert [one.restarts for one in here.kernel.status().components if one.name == "bomb"] == [1]
        await here.kernel.shutdown()


async def test_a_failed_component_is_still_taken_down(tmp_path: Path) -> None:
    async with scene(tmp_path, Bomb) as here:
        await here.kernel.boot()
        failed = asyncio.Event()
        here.kernel.bus.on("component.failed", lambda _: failed.set())
        here.kernel.bus.emit(Explode())
        async with asyncio.timeout(20):
            await failed.wait()
        await here.kernel.shutdown()
        assert here.journal.lines[-2:] == ["bomb.stop", "bomb.shutdown"]


async def test_one_component_can_be_stopped_and_started(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await here.kernel.boot()
        await here.kernel.stop_component("middle")
        assert here.kernel.state == "degraded"
        await here.kernel.start_component("middle")
        assert here.kernel.state == "ready"
        with pytest.raises(IllegalTransition):
            await here.kernel.start_component("middle")
        with pytest.raises(UnknownComponent, match="nobody"):
            await here.kernel.stop_component("nobody")
        here.journal.misbehave["middle.start"] = Broken("not again")
        await here.kernel.stop_component("middle")
        with pytest.raises(Broken, match="not again"):
            await here.kernel.start_component("middle")
        assert here.kernel.state == "degraded"
        await here.kernel.shutdown()


# ---------------------------------------------------------------- health


class Patient(Component):
    name = "patient"
    answer: Any = HealthReport.of()

    async def health(self) -> HealthReport:
        if isinstance(self.answer, HealthReport):
            return self.answer
        if isinstance(self.answer, Exception):
            raise self.answer
        await asyncio.Event().wait()
        return HealthReport.of()


@pytest.mark.parametrize(
    ("answer", "health", "detail", "state"),
    [
        (HealthReport.of(), "healthy", "", "ready"),
        (
            HealthReport.of(HealthCheck("lag", HealthStatus.DEGRADED, "3 s")),
            "degraded",
            "lag: 3 s",
            "ready",
        ),
        (Broken("sick"), "unhealthy", "health: sick [MAG-TEST-001]", "degraded"),
        ("hang", "unhealthy", "health: no answer within 0.05 s", "degraded"),
    ],
)
async def test_health_is_polled_and_shown(answer: Any, health: str, detail: str, state: str) -> None:
    clock = FakeClock()

    class Watched(Patient):
        pass

    Watched.answer = answer
    health_now = {"interval_s": 10, "timeout_s": 0.05, "failures": 1, "successes": 1, "on_unhealthy": "report"}
    async with running_kernel(Watched, clock=clock, config={"health": health_now}) as kernel:
        rounds: list[str] = []
        kernel.bus.on("health.check_complete", lambda envelope: rounds.append(envelope.data.system))
        async with asyncio.timeout(20):
            while not rounds:
                await asyncio.sleep(0.001)
        [status] = kernel.status().components
        assert status.health == health
        assert status.detail.startswith(detail)
        assert kernel.state == state
        Watched.answer = HealthReport.of()
        await clock.advance(12)
        assert kernel.status().components[0].health == "healthy"
        assert kernel.state == "ready"
