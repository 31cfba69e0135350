"""What happens in each of the six stages of a boot, and the way back.

Boundary: `boot` walks through the stages, `kernel` says when. Invariant: `take_down` gives back whatever a boot took,
as often as it is called; the services stay, they outlive a reset.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from magmobo.contracts.component import Component
from magmobo.contracts.events import (
    ComponentQuarantined,
    ComponentRegistered,
    ComponentStateChanged,
    ComponentUnregistered,
    SystemBoot,
    SystemReady,
)
from magmobo.kernel import selftest, view
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.boot import Stage, check_components
from magmobo.kernel.choice import Choice
from magmobo.kernel.chronicle import Chronicle
from magmobo.kernel.config.core import ObservabilityConfig
from magmobo.kernel.current import Current
from magmobo.kernel.deadline import end
from magmobo.kernel.journal import BootJournal
from magmobo.kernel.memory import Memory
from magmobo.kernel.observe.quiet import QuietLog
from magmobo.kernel.selection import select
from magmobo.kernel.services import KERNEL
from magmobo.kernel.surroundings import Surroundings
from magmobo.kernel.watchdog import LoopWatchdog

if TYPE_CHECKING:
    from random import Random


class Stages:
    """The boots of one kernel, one after the other. `assembly` is that of the last one, None before there was any.

    Args:
        components, provided, choice, random: as of the kernel.
        current: the configuration; each boot reads the one that counts then.
        opened: awaited when the services are open, before a component is made.
        on_exit: told why the node should end.
        is_active: whether the node is up, so that components ought to run.
    """

    def __init__(
        self,
        components: Sequence[type[Component]],
        current: Current,
        provided: Mapping[type, object],
        choice: Choice,
        around: Surroundings,
        log: QuietLog,
        *,
        random: Random | None,
        opened: Callable[[], Awaitable[None]],
        on_exit: Callable[[str], None],
        is_active: Callable[[], bool],
    ) -> None:
        self._components, self._current, self._provided = tuple(components), current, dict(provided)
        self._choice, self._around, self._log = choice, around, log
        self._random, self._opened, self._on_exit, self._is_active = random, opened, on_exit, is_active
        state = around.services.states.scope(KERNEL)
        self.memory = Memory(state, around.clock, log)
        self.journal = BootJournal(state)
        self._chronicle = Chronicle(around.services.audit, log)
        self._watchdog: LoopWatchdog | None = None
        self._chores: list[asyncio.Task[None]] = []
        self.assembly: Assembly | None = None
        self.findings: Sequence[selftest.Finding] = ()
        self.began_s, self.began_at_s = around.clock.monotonic_s(), around.clock.time_s()

    @property
    def loop_lag_s(self) -> float:
        """How late the event loop last answered."""
        return 0.0 if self._watchdog is None else self._watchdog.lag_s

    def tune(self) -> None:
        """Other settings of the node count from now on."""
        observability: ObservabilityConfig = self._current.section("observability")
        if self._watchdog is not None:
            self._watchdog.stall_s = observability.loop_stall_s
        if self.assembly is not None:
            self.assembly.tune()

    def begin(self) -> tuple[Stage, ...]:
        """The stages of a boot that begins now."""
        self.began_s, self.began_at_s = self._around.clock.monotonic_s(), self._around.clock.time_s()
        self._around.timeline.spans.clear()
        return (
            Stage("pre_boot", self._pre_boot),
            Stage("kernel_init", self._kernel_init),
            Stage("post", self._self_test),
            Stage("component_load", self._load),
            Stage("service_start", self._start),
            Stage("ready", self._ready),
        )

    # ------------------------------------------------------------ up

    async def _pre_boot(self) -> None:
        around = self._around
        self._log.info("booting", version=around.version, environment=around.environment)
        observability: ObservabilityConfig = self._current.section("observability")
        self._watchdog = LoopWatchdog(observability.loop_stall_s, self._loop_stalled, self._packages)
        self._watchdog.start()
        around.bus.emit(SystemBoot(instance_id=around.instance_id, environment=around.environment))

    async def _kernel_init(self) -> None:
        self.findings = [selftest.check_data_dir(self._around.data_dir)]
        await self._around.services.open()
        await self._opened()
        former = await self.journal.begin(time_s=self.began_at_s, stage="kernel_init", pid=os.getpid())
        if former is not None and (former.died_booting or former.died_serving):
            self._log.warning("the run before this one did not end", stage=former.stage, outcome=former.outcome)
        if self.journal.problem:
            self._log.warning("the boot journal cannot be kept", problem=self.journal.problem)
        selection = select(
            self._components,
            tuple(self._provided),
            only=self._choice.only,
            without=(*self._choice.without, *self._current.kernel.without),
            disabled=await self.memory.disabled(),
            optional=self._choice.optional,
            missing=self._choice.missing,
            safe=self._choice.safe,
        )
        self.assembly = Assembly(
            selection,
            self._around,
            self._provided,
            self._current,
            random=self._random,
            on_exit=self._on_exit,
            is_active=self._is_active,
        )
        for name in self.assembly.board.slots:
            self._around.bus.emit(ComponentRegistered(name=name))

    async def _self_test(self) -> None:
        former = self.journal.former
        [writable] = self.findings
        self.findings = selftest.run(
            self._around.data_dir,
            writable=writable,
            time_s=self._around.clock.time_s(),
            last_time_s=former.time_s if former else None,
            descriptors_wanted=self._choice.descriptors_wanted,
            ports=self._choice.ports,
        )
        selftest.refuse_fatal(self.findings)
        check_components(self._components, self._current.config)

    async def _load(self) -> None:
        await self.journal.entered("component_load")
        await self._present().load()

    async def _start(self) -> None:
        await self.journal.entered("service_start")
        await self._present().start()

    async def _ready(self) -> None:
        assembly, bus = self._present(), self._around.bus
        assembly.check()
        self.memory.note_all({name: slot.state for name, slot in assembly.board.slots.items()})
        bus.subscribe(KERNEL, ComponentStateChanged, self.memory.note)
        bus.subscribe(KERNEL, ComponentUnregistered, self.memory.forget)
        bus.subscribe(KERNEL, ComponentQuarantined, self._chronicle.quarantined)
        bus.subscribe(KERNEL, SystemReady, lambda _: self._chronicle.booted(self._identity()))
        self._chores.append(asyncio.create_task(self.memory.write_states(), name="kernel:memory"))
        await asyncio.gather(self.journal.ended("ready"), self.memory.note_node(self._identity()))

    # ------------------------------------------------------------ down

    async def take_down(self, timeout_s: float) -> None:
        """Give everything of this boot back; components get about `timeout_s`. Raises nothing for a component."""
        try:
            if self.assembly is not None:
                await self.assembly.take_down(timeout_s)
        finally:
            await self._chronicle.settle()
            chores, self._chores = self._chores, []
            for chore in chores:
                await end(chore)
            await self.memory.write_now()
            self._around.bus.cancel_all(KERNEL)
            if self._watchdog is not None:
                self._watchdog.stop()

    # ------------------------------------------------------------ inside

    def _present(self) -> Assembly:
        assert self.assembly is not None  # noqa: S101 - made by `kernel_init`, before the stages that ask
        return self.assembly

    def _packages(self) -> dict[str, str]:
        slots = {} if self.assembly is None else self.assembly.board.slots
        return {slot.name: slot.package for slot in tuple(slots.values())}

    def _identity(self) -> Mapping[str, Any]:
        return {
            "instance_id": self._around.instance_id,
            "version": self._around.version,
            "environment": self._around.environment,
            "booted_at": view.utc(self.began_at_s),
            "cluster_role": "single",
        }

    def _loop_stalled(self, stalled_s: float, where: str) -> None:
        self._log.warning("the event loop was blocked", stalled_s=round(stalled_s, 3), where=where)
