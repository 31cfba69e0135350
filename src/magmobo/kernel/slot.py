"""The place of one component on the board: its object, its state, and its hooks under deadlines.

Invariant: whatever a hook does, the slot ends in a state of the table, and after `shutdown` no task, subscription or
connected handle of the component is left.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from magmobo.contracts.component import Component
from magmobo.contracts.health import HealthReport
from magmobo.kernel.context import ComponentContext, Surroundings
from magmobo.kernel.deadline import Overrun, run_bounded
from magmobo.kernel.errors import PhaseTimeout, describe
from magmobo.kernel.handles import Link
from magmobo.kernel.lifecycle import Lifecycle, State
from magmobo.kernel.registry import Declaration
from magmobo.kernel.tasks import TaskSet


class PhaseFailed(Exception):
    """A hook of a component failed; it carries who and where up to the boot. Never leaves the kernel."""

    def __init__(self, component: str, phase: str, cause: BaseException) -> None:
        super().__init__(component, phase, cause)
        self.component, self.phase, self.cause = component, phase, cause


class Slot:
    """One component. `on_failure` is told its name when one of its tasks failed."""

    def __init__(self, declaration: Declaration, around: Surroundings, on_failure: Callable[[str], None]) -> None:
        self.name = declaration.name
        self.links = [Link(self.name, protocol) for protocol in declaration.component_type.provides]
        self.error: BaseException | None = None
        self.health: HealthReport | None = None
        self.restarts = 0
        self._declaration, self._on_failure = declaration, on_failure
        self._bus = around.bus.scoped(self.name)
        self._tasks = TaskSet(self.name, self._task_failed)
        self._context = ComponentContext(self.name, around, self._bus, self._tasks)
        self._component: Component | None = None
        self._boot_entered = self._start_entered = False
        self.lifecycle = Lifecycle(self.name, around.bus, around.clock.time_s)

    @property
    def state(self) -> State:
        """Where the component is in its life."""
        return self.lifecycle.state

    @property
    def component(self) -> Component:
        """The component itself. Raises: RuntimeError before `construct`."""
        if self._component is None:
            raise RuntimeError(f"{self.name} is not constructed")
        return self._component

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """The component's own log."""
        return self._context.log

    # ------------------------------------------------------------ up

    def construct(self, collaborators: Mapping[str, Any], config: Any) -> None:
        """Build the component and give it its configuration. Raises: PhaseFailed."""
        arguments = dict(collaborators)
        if self._declaration.context_parameter:
            arguments[self._declaration.context_parameter] = self._context
        try:
            self._component = self._declaration.component_type(**arguments)
            self._component.configure(config)
        except Exception as error:
            raise self._failed("configure", error) from error
        self.lifecycle.to(State.CONFIGURED)

    async def boot(self, timeout_s: float) -> None:
        """Run the `boot` hook; consumers may call the component from then on. Raises: PhaseFailed."""
        self._boot_entered = True
        await self._enter("boot", self.component.boot(), timeout_s)
        self.lifecycle.to(State.BOOTED)

    async def start(self, timeout_s: float) -> None:
        """Run the `start` hook, after `boot` or after a stop. Raises: PhaseFailed, IllegalTransition."""
        self.lifecycle.to(State.STARTING)
        if self._start_entered:
            self.restarts += 1
        self._start_entered, self.error = True, None
        await self._enter("start", self.component.start(), timeout_s)
        self.lifecycle.to(State.RUNNING)

    def _connect(self) -> None:
        for link in self.links:
            link.connect(self.component.implementation(link.protocol))

    def _disconnect(self) -> None:
        for link in self.links:
            link.disconnect()

    async def _enter(self, phase: str, hook: Coroutine[Any, Any, None], timeout_s: float) -> None:
        try:
            await self._bounded(phase, hook, timeout_s)
            self._raise_failure_of_tasks()
            self._connect()
        except Exception as error:
            raise self._failed(phase, error) from error

    def _raise_failure_of_tasks(self) -> None:
        if self.error is not None:
            raise self.error

    async def _bounded(self, phase: str, hook: Coroutine[Any, Any, None], timeout_s: float) -> None:
        try:
            await run_bounded(hook, timeout_s=timeout_s, name=f"{self.name}.{phase}")
        except Overrun as error:
            raise PhaseTimeout(self.name, phase, timeout_s, error.where) from error

    # ------------------------------------------------------------ failure

    def _failed(self, phase: str, error: BaseException) -> PhaseFailed:
        self.error = error
        self._disconnect()
        self.lifecycle.fail(error)
        return PhaseFailed(self.name, phase, error)

    def _task_failed(self, error: BaseException) -> None:
        self.log.error("a task of the component failed", error=describe(error), exc_info=error)
        self.error = error
        if self.lifecycle.can(State.FAILED):
            self._disconnect()
            self.lifecycle.fail(error)
            self._on_failure(self.name)

    # ------------------------------------------------------------ down

    async def stop(self, timeout_s: float, *, for_good: bool) -> None:
        """Run the `stop` hook if `start` was entered. A failure is logged and kept, never raised.

        for_good: others that stop as well may still call it; otherwise their calls wait until it runs again.
        """
        if not self._start_entered or self.state is State.STOPPED:
            return
        if self.state is State.RUNNING:
            self.lifecycle.to(State.STOPPING)
        if not for_good:
            self._disconnect()
        await self._leave("stop", self.component.stop(), timeout_s)
        if self.state is State.STOPPING:
            self.lifecycle.to(State.STOPPED)

    async def shutdown(self, timeout_s: float) -> None:
        """Run the `shutdown` hook if `boot` was entered, then end everything that belongs to the component."""
        self._disconnect()
        if self._boot_entered:
            self._boot_entered = False
            await self._leave("shutdown", self.component.shutdown(timeout_s), timeout_s)
        await self._tasks.close()
        await self._bus.close()

    async def _leave(self, phase: str, hook: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """On the way down a failing component must not keep the others from leaving."""
        try:
            await self._bounded(phase, hook, timeout_s)
        except Exception as error:
            self.error = self.error or error  # what went wrong first is what an operator wants to know
            self.log.exception(f"{phase} failed", error=describe(error))
            if self.lifecycle.can(State.FAILED) and self.state is State.STOPPING:
                self.lifecycle.fail(error)
