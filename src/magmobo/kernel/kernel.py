"""The wiring of one node: bus, configuration, board and boot meet here and nowhere else.

Boundary: no command line, no signals, no sockets, no component names; `magmobo.node` brings those. A kernel boots once
and shuts down once; a process may hold several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog

from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Announcement, Component
from magmobo.contracts.events import ComponentRegistered, SystemBoot, SystemReady, SystemShutdown
from magmobo.contracts.health import HealthStatus
from magmobo.contracts.planes import ComponentStatus, NodeStatus
from magmobo.kernel.board import Board
from magmobo.kernel.boot import BootSequence, Stage, check_components, check_data_dir
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.clock import SystemClock
from magmobo.kernel.config.core import HealthConfig, KernelConfig
from magmobo.kernel.config.loader import Config
from magmobo.kernel.context import Surroundings
from magmobo.kernel.deadline import end
from magmobo.kernel.errors import UnknownComponent, describe
from magmobo.kernel.health import HealthPoller, worst_detail
from magmobo.kernel.lifecycle import State
from magmobo.kernel.registry import Registry
from magmobo.kernel.slot import PhaseFailed, Slot

KernelState = Literal["booting", "ready", "degraded", "stopping", "stopped", "failed"]


class Kernel:
    """One node.

    Args:
        components: classes, in any order; the graph decides.
        config: holds the core sections and one section by the name of every component that has a `config_type`.
        data_dir: exists, mode 0700.
        provided: objects that serve Protocols without being components.
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
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._log: structlog.stdlib.BoundLogger = structlog.get_logger().bind(component="kernel")
        self.bus = EventBus(origin=instance_id, time_s=self._clock.time_s, on_failure=self._handler_failed)
        self._around = Surroundings(
            instance_id=instance_id,
            environment=environment,
            version=version,
            data_dir=data_dir.absolute(),
            bus=self.bus,
            clock=self._clock,
        )
        self._components, self._config, self._provided = tuple(components), config, dict(provided)
        self._settings: KernelConfig = config.section("kernel")
        self._health: HealthConfig = config.section("health")
        self._began_s = self._clock.monotonic_s()
        self._state: KernelState = "booting"
        self._board: Board | None = None
        self._poller: asyncio.Task[None] | None = None
        self._leaving = asyncio.Lock()
        self._booting = False
        self._sequence = BootSequence(self._stages(), self._undo, self.bus, self._clock)
        self.failed = asyncio.Event()

    def _stages(self) -> tuple[Stage, ...]:
        return (
            Stage("pre_boot", self._pre_boot),
            Stage("kernel_init", self._kernel_init),
            Stage("post", self._self_test),
            Stage("component_load", self._load),
            Stage("service_start", self._start),
            Stage("ready", self._ready),
        )

    # ------------------------------------------------------------ up

    async def boot(self) -> None:
        """Go through the six stages. A kernel boots once.

        Raises: BootFailed, or CancelledError when the caller is cancelled; both after everything was taken back.
        """
        if self._booting or self._state != "booting":
            raise RuntimeError("a kernel boots once; make another one")
        self._booting = True
        self._began_s = self._clock.monotonic_s()
        await self._sequence.run()
        self._booting, self._state = False, "ready"
        boot_s = self._clock.monotonic_s() - self._began_s
        self._log.info("ready", boot_s=round(boot_s, 3), components=len(self._components))
        self.bus.emit(
            SystemReady(instance_id=self._around.instance_id, environment=self._around.environment, boot_s=boot_s)
        )

    async def _pre_boot(self) -> None:
        self._log.info("booting", version=self._around.version, environment=self._around.environment)
        self.bus.emit(SystemBoot(instance_id=self._around.instance_id, environment=self._around.environment))

    async def _kernel_init(self) -> None:
        registry = Registry(self._components, tuple(self._provided))
        self._board = Board(registry, self._around, self._provided, self._component_failed)
        for name in self._board.slots:
            self.bus.emit(ComponentRegistered(name=name))

    async def _self_test(self) -> None:
        check_data_dir(self._around.data_dir)
        check_components(self._components, self._config)

    async def _load(self) -> None:
        await self._assembled.load(self._config, timeout_s=self._settings.start_timeout_s)

    async def _start(self) -> None:
        await self._assembled.start(timeout_s=self._settings.start_timeout_s)

    async def _ready(self) -> None:
        """A component may have failed while those of later levels started."""
        for slot in self._slots():
            if slot.error is not None:
                raise PhaseFailed(slot.name, "running", slot.error)
        poller = HealthPoller(
            self._slots(), self._clock, interval_s=self._health.interval_s, timeout_s=self._health.timeout_s
        )
        self._poller = asyncio.create_task(poller.run(), name="kernel:health")

    async def _undo(self) -> None:
        self._log.warning("boot did not succeed, taking everything back")
        await self._take_down(self._settings.shutdown_timeout_s)
        self._booting, self._state = False, "failed"

    # ------------------------------------------------------------ down

    async def shutdown(self, timeout_s: float | None = None) -> None:
        """Stop and shut down every component in reverse order; returns within about `timeout_s`, whatever they do.

        The default is `kernel.shutdown_timeout_s`. Calling it again waits for the first call, then returns.
        A boot under way is ended by cancelling `boot()`, which takes everything back itself.
        Raises: RuntimeError while `boot()` runs.
        """
        if self._booting:
            raise RuntimeError("cancel boot() to end a boot")
        async with self._leaving:
            if self._state in ("stopped", "failed"):
                return
            limit_s = self._settings.shutdown_timeout_s if timeout_s is None else timeout_s
            self._state = "stopping"
            self._log.info("stopping", timeout_s=limit_s)
            self.bus.emit(SystemShutdown(timeout_s=limit_s))
            await self._take_down(limit_s)
            self._state = "stopped"
            self._log.info("stopped")

    async def _take_down(self, timeout_s: float) -> None:
        if self._poller is not None:
            await end(self._poller)
            self._poller = None
        if self._board is not None:
            await self._board.take_down(timeout_s=timeout_s)

    # ------------------------------------------------------------ single components

    async def stop_component(self, name: str) -> None:
        """Stop one component; calls of its consumers wait until it runs again. Raises: UnknownComponent."""
        await self._slot(name).stop(self._settings.shutdown_timeout_s, for_good=False)

    async def start_component(self, name: str) -> None:
        """Start a stopped or failed component. Raises: UnknownComponent, IllegalTransition, or why it did not start."""
        slot = self._slot(name)
        if slot.state is State.FAILED:
            await slot.stop(self._settings.shutdown_timeout_s, for_good=False)
        try:
            await slot.start(self._settings.start_timeout_s)
        except PhaseFailed as failure:
            raise failure.cause from failure
        if all(other.state is not State.FAILED for other in self._slots()):
            self.failed.clear()

    # ------------------------------------------------------------ how it is

    @property
    def state(self) -> str:
        """One of `booting, ready, degraded, stopping, stopped, failed`.

        `degraded` is `ready` with a component that does not run or says that it does not serve.
        """
        if self._state == "ready" and any(_is_down(slot) for slot in self._slots()):
            return "degraded"
        return self._state

    @property
    def boot_timeline_s(self) -> Mapping[str, float]:
        """Seconds by boot stage, in order, of the stages that ended."""
        return dict(self._sequence.timeline_s)

    def status(self) -> NodeStatus:
        """How the node is, now. Never raises."""
        announcements = [self._announcement(slot) for slot in self._slots() if slot.state is State.RUNNING]
        return NodeStatus(
            instance_id=self._around.instance_id,
            state=self.state,
            environment=self._around.environment,
            version=self._around.version,
            uptime_s=self._clock.monotonic_s() - self._began_s,
            components=[_component_status(slot) for slot in self._slots()],
            urls={label: url for one in announcements for label, url in one.urls.items()},
            examples=[example for one in announcements for example in one.examples],
            notices=[notice for one in announcements for notice in one.notices],
        )

    def _announcement(self, slot: Slot) -> Announcement:
        try:
            return slot.component.announce()
        except Exception as error:
            slot.log.warning("announce failed", error=describe(error))
            return Announcement()

    # ------------------------------------------------------------ inside

    @property
    def _assembled(self) -> Board:
        if self._board is None:
            raise RuntimeError("the board is made in kernel_init")
        return self._board

    def _slots(self) -> Sequence[Slot]:
        return () if self._board is None else tuple(self._board.slots.values())

    def _slot(self, name: str) -> Slot:
        if self._board is None:
            raise UnknownComponent(name)
        return self._board.slot(name)

    def _component_failed(self, name: str) -> None:
        self._log.error("component failed", failed=name)
        self.failed.set()

    def _handler_failed(self, owner: str, topic: str, handler: str, error: BaseException) -> None:
        self._log.error(
            "event handler failed", owner=owner, topic=topic, handler=handler, error=describe(error), exc_info=error
        )


def _is_down(slot: Slot) -> bool:
    is_unhealthy = slot.health is not None and slot.health.status is HealthStatus.UNHEALTHY
    return slot.state is not State.RUNNING or is_unhealthy


def _component_status(slot: Slot) -> ComponentStatus:
    health = slot.health if slot.state is State.RUNNING else None
    detail = describe(slot.error) if slot.error is not None else worst_detail(health) if health else ""
    return ComponentStatus(
        name=slot.name,
        state=slot.state,
        health=str(health.status) if health else "unknown",
        restarts=slot.restarts,
        since=datetime.fromtimestamp(slot.lifecycle.since_s, UTC).isoformat(timespec="milliseconds"),
        detail=detail,
    )
