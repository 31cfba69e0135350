"""The wiring of one node: bus, services, board, supervision and boot meet here and nowhere else.

Boundary: no command line, no signals, no sockets, no component names; `magmobo.node` brings those. A kernel boots once
and shuts down once; in between it may be reset, which takes every component down and boots again in place. A process
may hold several.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component
from magmobo.contracts.errors import Unavailable
from magmobo.contracts.events import (
    ComponentQuarantined,
    ComponentRegistered,
    ComponentStateChanged,
    SystemBoot,
    SystemReady,
    SystemShutdown,
)
from magmobo.kernel import selftest, view
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.boot import BootSequence, Stage, check_components
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.chronicle import Chronicle
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.config.core import KernelConfig, ObservabilityConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.context import Surroundings
from magmobo.kernel.deadline import end
from magmobo.kernel.errors import BootFailed, NotReady, describe, foreign
from magmobo.kernel.journal import BootJournal
from magmobo.kernel.memory import Memory
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.selection import select
from magmobo.kernel.services import KERNEL, KERNEL_ACTOR, Services
from magmobo.kernel.slot import Slot
from magmobo.kernel.timeline import Timeline
from magmobo.kernel.watchdog import LoopWatchdog

if TYPE_CHECKING:
    from random import Random

    from magmobo.contracts.planes import NodeStatus
    from magmobo.kernel.commands.bus import CommandBus
    from magmobo.kernel.inspection import Facts, Inspection
    from magmobo.kernel.observe.metrics import Family

KernelState = Literal["booting", "ready", "degraded", "stopping", "stopped", "failed"]


_LAST_WORDS_S = 10.0  # beyond the components' own deadlines, for closing the stores
_HANDLER_HELP = "Duration of event handlers, one call in 64."


class Choice(Struct, frozen=True):
    """Which of the components take part (see `selection.select`), and what is known about them.

    `descriptors_wanted`, `ports`: what the self-test looks at for them (see `selftest.run`).
    `sources`: component name -> where it comes from, for people; `notices`: what could not be loaded, a line each.
    """

    only: Sequence[str] = ()
    without: Sequence[str] = ()
    optional: Sequence[str] = ()
    missing: Sequence[str] = ()
    safe: bool = False
    descriptors_wanted: int = 0
    ports: Sequence[tuple[str, int]] = ()
    sources: Mapping[str, str] = {}
    notices: Sequence[str] = ()


EVERYTHING = Choice()


class Newcomer(Struct, frozen=True):
    """A component that is to join the running node: its class, its validated section, and where it comes from."""

    component_type: type[Component]
    section: Any
    source: str


Resolve = Callable[[str], Newcomer]
"""From `module:Class`, or the name of an installed component."""


class Kernel:
    """One node.

    Args:
        components: classes, in any order; the graph decides.
        config: holds the core sections and one section by the name of every component that has a `config_type`.
        data_dir: exists, mode 0700, and is this kernel's alone.
        provided: objects that serve Protocols without being components.
        choice: which of the components take part in this start.
        resolve: finds a component that is to join the running node; without it none can by name.
        on_exit: told why, when the node should end because a component it cannot do without is quarantined, or a reset
            failed.
        random: for the jitter of pauses.
    """

    def __init__(
        self,
        *,
        components: Sequence[type[Component]],
        config: Config,
        data_dir: Path,
        environment: str,
        instance_id: str,
        version: str,
        clock: Clock | None = None,
        provided: Mapping[type, object] = {},
        choice: Choice = EVERYTHING,
        resolve: Resolve | None = None,
        on_exit: Callable[[str], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._log = QuietLog(component=KERNEL)
        self._components, self.config, self._provided = tuple(components), config, dict(provided)
        self._choice, self._resolve, self._on_exit = choice, resolve, on_exit
        self._sources = dict(choice.sources)
        self._settings: KernelConfig = config.section("kernel")
        observability: ObservabilityConfig = config.section("observability")
        self._loop_stall_s = observability.loop_stall_s
        self.bus = EventBus(
            origin=instance_id,
            time_s=self._clock.time_s,
            monotonic_s=self._clock.monotonic_s,
            history_limit=observability.events_kept,
            on_failure=self._handler_failed,
            on_timing=self._handler_took,
        )
        self.services = Services(
            data_dir=data_dir.absolute(),
            instance_id=instance_id,
            security=config.section("security"),
            cache=config.section("cache"),
            bus=self.bus,
            clock=self._clock,
            log=self._log,
            furnish=self._answer_commands,
        )
        self._around = Surroundings(
            instance_id=instance_id,
            environment=environment,
            version=version,
            data_dir=data_dir.absolute(),
            bus=self.bus,
            clock=self._clock,
            services=self.services,
            timeline=Timeline(self._clock.monotonic_s),
        )
        self._memory = Memory(self.services.states.scope(KERNEL), self._clock, self._log)
        self._chronicle = Chronicle(self.services.audit, self._log)
        self._journal = BootJournal(self.services.states.scope(KERNEL))
        self._random = random
        self._watchdog: LoopWatchdog | None = None
        self._assembly: Assembly | None = None
        self._chores: list[asyncio.Task[None]] = []
        self._findings: Sequence[selftest.Finding] = ()
        self._began_s, self._began_at_s = self._clock.monotonic_s(), self._clock.time_s()
        self._state: KernelState = "booting"
        self._is_booting = self._was_started = False
        self._leaving = asyncio.Lock()
        self._reset: asyncio.Task[None] | None = None
        self.services.metrics.collect_from(KERNEL, self._figures)

    # ------------------------------------------------------------ up

    async def boot(self) -> None:
        """Go through the six stages. A kernel boots once.

        Raises: BootFailed, or CancelledError when the caller is cancelled; both after everything was taken back.
        """
        if self._was_started:
            raise RuntimeError("a kernel boots once; make another one, or reset it")
        self._was_started = True
        await self._go_up()

    async def reset(self) -> None:
        """Shut every component down and boot again in place; doors, stores and what the bus counted stay.

        It goes on when the caller is cancelled. Raises: NotReady unless the node is ready; BootFailed when it did not
        come back: then nothing of it is left and the node should end.
        """
        if self._state != "ready" or self._reset is not None:
            raise NotReady(self.state)
        self._reset = asyncio.create_task(self._down_and_up(), name="kernel:reset")
        try:
            await asyncio.shield(self._reset)
        finally:
            if self._reset.done():
                self._reset = None

    async def _down_and_up(self) -> None:
        self._log.info("resetting")
        self._state = "booting"
        try:
            await self._take_down(self._settings.shutdown_timeout_s)
            await self._go_up()
        except BootFailed as error:
            self._ask_to_end(f"the node did not come back from its reset: {describe(error)}")
            raise

    async def _go_up(self) -> None:
        self._is_booting = True
        self._began_s, self._began_at_s = self._clock.monotonic_s(), self._clock.time_s()
        timeline = self._around.timeline
        timeline.spans.clear()
        sequence = BootSequence(
            self._stages(),
            self._undo,
            self.bus,
            self._clock,
            timeline,
            stage_timeout_s=self._settings.stage_timeout_s,
            rollback_timeout_s=2 * self._settings.shutdown_timeout_s + _LAST_WORDS_S,
        )
        try:
            await sequence.run()
        except BootFailed as error:
            at, cause = {"stage": error.stage, "failed": error.component}, error.cause
            self._log.error("the boot failed", **at, error=describe(cause), exc_info=foreign(cause))
            raise
        finally:
            if self._state == "failed" and self._reset is None:
                await asyncio.shield(self.bus.close())  # the last to go: it has told of the failure
        self._is_booting, self._state = False, "ready"
        self.assembly.begin_supervision()
        boot_s = self._clock.monotonic_s() - self._began_s
        self._log.info("ready", boot_s=round(boot_s, 3), components=len(self.slots))
        self.bus.emit(
            SystemReady(instance_id=self._around.instance_id, environment=self._around.environment, boot_s=boot_s)
        )

    def _stages(self) -> tuple[Stage, ...]:
        return (
            Stage("pre_boot", self._pre_boot),
            Stage("kernel_init", self._kernel_init),
            Stage("post", self._self_test),
            Stage("component_load", self._load),
            Stage("service_start", self._start),
            Stage("ready", self._ready),
        )

    async def _pre_boot(self) -> None:
        self._log.info("booting", version=self._around.version, environment=self._around.environment)
        self._watchdog = LoopWatchdog(
            self._loop_stall_s, self._loop_stalled, lambda: {slot.name: slot.package for slot in self.slots}
        )
        self._watchdog.start()
        self.bus.emit(SystemBoot(instance_id=self._around.instance_id, environment=self._around.environment))

    async def _kernel_init(self) -> None:
        self._findings = [selftest.check_data_dir(self._around.data_dir)]
        await self.services.open()
        former = await self._journal.begin(time_s=self._began_at_s, stage="kernel_init", pid=os.getpid())
        if former is not None and (former.died_booting or former.died_serving):
            self._log.warning("the run before this one did not end", stage=former.stage, outcome=former.outcome)
        if self._journal.problem:
            self._log.warning("the boot journal cannot be kept", problem=self._journal.problem)
        selection = select(
            self._components,
            tuple(self._provided),
            only=self._choice.only,
            without=(*self._choice.without, *self._settings.without),
            disabled=await self._memory.disabled(),
            optional=self._choice.optional,
            missing=self._choice.missing,
            safe=self._choice.safe,
        )
        self._assembly = Assembly(
            selection,
            self._around,
            self._provided,
            self.config,
            random=self._random,
            on_exit=self._ask_to_end,
            is_active=lambda: self._state == "ready",
        )
        for name in self._assembly.board.slots:
            self.bus.emit(ComponentRegistered(name=name))

    async def _self_test(self) -> None:
        former = self._journal.former
        [writable] = self._findings
        self._findings = selftest.run(
            self._around.data_dir,
            writable=writable,
            time_s=self._clock.time_s(),
            last_time_s=former.time_s if former else None,
            descriptors_wanted=self._choice.descriptors_wanted,
            ports=self._choice.ports,
        )
        selftest.refuse_fatal(self._findings)
        check_components(self._components, self.config)

    async def _load(self) -> None:
        await self._journal.entered("component_load")
        await self.assembly.load()

    async def _start(self) -> None:
        await self._journal.entered("service_start")
        await self.assembly.start()

    async def _ready(self) -> None:
        self.assembly.check()
        self.bus.subscribe(KERNEL, ComponentStateChanged, self._memory.note)
        self._chores.append(asyncio.create_task(self._memory.write_states(), name="kernel:memory"))
        self.bus.subscribe(KERNEL, ComponentQuarantined, self._chronicle.quarantined)
        self.bus.subscribe(KERNEL, SystemReady, lambda _: self._chronicle.booted(self._identity()))
        await asyncio.gather(self._journal.ended("ready"), self._memory.note_node(self._identity()))

    async def _undo(self) -> None:
        self._log.warning("boot did not succeed, taking everything back")
        await self._take_down(self._settings.shutdown_timeout_s)
        await self._journal.ended("failed")
        if self._reset is None:  # else whoever asked for the reset is answered first, and `shutdown` closes them
            await self.services.close()
        self._is_booting, self._state = False, "failed"

    # ------------------------------------------------------------ down

    async def shutdown(self, timeout_s: float | None = None) -> None:
        """Stop and shut down every component in reverse order; returns within about `timeout_s`, whatever they do.

        The default is `kernel.shutdown_timeout_s`. Calling it again waits for the first call, then returns.
        A boot under way is ended by cancelling `boot()`, which takes everything back itself; a reset under way is ended
        here.
        Raises: RuntimeError while `boot()` runs.
        """
        if self._reset is not None:
            await end(self._reset, grace_s=self._settings.shutdown_timeout_s)
        if self._is_booting:
            raise RuntimeError("cancel boot() to end a boot")
        async with self._leaving:
            if self._state not in ("stopped", "failed"):
                await self._leave(self._settings.shutdown_timeout_s if timeout_s is None else timeout_s)
            await self.services.close()
            await self.bus.close()

    async def _leave(self, timeout_s: float) -> None:
        self._state = "stopping"
        self._log.info("stopping", timeout_s=timeout_s)
        self.bus.emit(SystemShutdown(timeout_s=timeout_s))
        await self._take_down(timeout_s)
        await self._journal.ended("stopped")
        self._state = "stopped"
        self._log.info("stopped")

    async def _take_down(self, timeout_s: float) -> None:
        """Everything of this boot; the services stay."""
        if self._assembly is not None:
            await self._assembly.take_down(timeout_s)
        await self._chronicle.settle()
        for chore in self._chores:
            await end(chore)
        self._chores.clear()
        await self._memory.write_now()
        self.bus.cancel_all(KERNEL)
        if self._watchdog is not None:
            self._watchdog.stop()

    # ------------------------------------------------------------ single components

    async def restart_component(self, name: str, *, by: str = "operator") -> None:
        """Drain, stop and start one; no other is touched, its budget begins anew.

        Raises: UnknownComponent, IllegalTransition, or why it did not start.
        """
        self.assembly.board.slot(name)
        await self.assembly.supervisor.restart(name, by=by)

    async def stop_component(self, name: str) -> None:
        """Stop one; calls of its consumers wait until it runs again. Raises: UnknownComponent, IllegalTransition."""
        self.assembly.board.slot(name)
        await self.assembly.supervisor.stop(name)

    async def start_component(self, name: str) -> None:
        """Start one that is stopped, failed or quarantined. Raises: as `restart_component`."""
        self.assembly.board.slot(name)
        await self.assembly.supervisor.start(name)

    async def disable_component(self, name: str) -> None:
        """Stop one and keep it from starting, over restarts of the node too. Raises: UnknownComponent, StillNeeded."""
        registry = self.assembly.board.registry
        if name not in registry.idle:
            registry.with_disabled(name)  # refused while others need it, before anything is written
        await self._memory.set_disabled(name, disabled=True)
        await self.assembly.disable(name)

    async def enable_component(self, name: str) -> None:
        """Undo that, and start it together with what could not do without it. Raises: as `Board.add`."""
        self.assembly.board.slot(name)
        await self._memory.set_disabled(name, disabled=False)
        await self.assembly.enable(name)

    async def register_component(self, component_type: type[Component], section: Any = None) -> str:
        """Add one to the running node; its name. Raises: as `Board.add`."""
        return await self.assembly.register(component_type, section)

    async def register_source(self, source: str) -> str:
        """The same by `module:Class` or the name of an installed component. Raises: also ComponentNotLoadable."""
        if self._resolve is None:
            raise Unavailable("registering components by name")
        newcomer = self._resolve(source)
        name = await self.register_component(newcomer.component_type, newcomer.section)
        self._sources[name] = newcomer.source
        return name

    async def unregister_component(self, name: str) -> None:
        """Take one off the running node. Raises: UnknownComponent, StillNeeded."""
        await self.assembly.unregister(name)
        self._memory.forget(name)

    # ------------------------------------------------------------ how it is

    @property
    def state(self) -> str:
        """One of `booting, ready, degraded, stopping, stopped, failed`.

        `degraded` is `ready` with a component that does not run or says that it does not serve.
        """
        if self._state == "ready" and any(view.is_down(slot) for slot in self.slots):
            return "degraded"
        return self._state

    def status(self) -> NodeStatus:
        """How the node is, now. Never raises."""
        return self.inspection.status()

    @property
    def assembly(self) -> Assembly:
        """The components of this boot. Raises: Unavailable before they are known."""
        if self._assembly is None:
            raise Unavailable("the board of components")
        return self._assembly

    @property
    def slots(self) -> Sequence[Slot]:
        """Every component's place; none before they are known."""
        return () if self._assembly is None else tuple(self._assembly.board.slots.values())

    @cached_property
    def inspection(self) -> Inspection:
        """What can be asked about this node."""
        from magmobo.kernel.inspection import Inspection

        return Inspection(self, self.bus, self.services, self._clock)

    @property
    def facts(self) -> Facts:
        """What is known of the present boot."""
        from magmobo.kernel.inspection import Facts

        return Facts(
            instance_id=self._around.instance_id,
            environment=self._around.environment,
            version=self._around.version,
            began_at_s=self._began_at_s,
            sources=self._sources,
            notices=self._choice.notices,
            uptime_s=self._clock.monotonic_s() - self._began_s,
            timeline=self._around.timeline,
            findings=self._findings,
            former_died_booting=self._journal.former is not None and self._journal.former.died_booting,
            loop_lag_s=0.0 if self._watchdog is None else self._watchdog.lag_s,
        )

    def _identity(self) -> Mapping[str, Any]:
        return {
            "instance_id": self._around.instance_id,
            "version": self._around.version,
            "environment": self._around.environment,
            "booted_at": view.utc(self._began_at_s),
            "cluster_role": "single",
        }

    # ------------------------------------------------------------ inside

    def _answer_commands(self, commands: CommandBus) -> None:
        from magmobo.kernel.operations import Operations  # 2 ms with their types

        Operations(self).register(commands.scoped(KERNEL, KERNEL_ACTOR))

    def _figures(self) -> Iterable[Family]:
        from magmobo.kernel.figures import Figures

        return Figures(self).families()

    def _ask_to_end(self, reason: str) -> None:
        self._log.critical("the node should end", reason=reason)
        if self._on_exit is not None:
            self._on_exit(reason)

    def _loop_stalled(self, stalled_s: float, where: str) -> None:
        self._log.warning("the event loop was blocked", stalled_s=round(stalled_s, 3), where=where)

    def _handler_took(self, topic: str, duration_s: float) -> None:
        metrics = self.services.metrics.scoped(KERNEL)
        metrics.histogram("mag_bus_handler_seconds", _HANDLER_HELP, labels={"topic": topic}).observe(duration_s)

    def _handler_failed(self, owner: str, topic: str, handler: str, error: BaseException) -> None:
        self._log.error(
            "event handler failed", owner=owner, topic=topic, handler=handler, error=describe(error), exc_info=error
        )
