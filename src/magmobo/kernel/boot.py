"""The six stages of a boot, as data, and the walk through them.

Invariant: either every stage ended, or the node is as it was before: `undo` ran to its end and `BootFailed` (or the
caller's cancellation) was raised. A cancellation, or several, can end a stage early; none can end the rollback early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec import Struct

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.component import Component
from magmobo.contracts.events import SystemBootFailed, SystemBootStage
from magmobo.kernel.config.loader import Config
from magmobo.kernel.deadline import end, waiting_at
from magmobo.kernel.errors import BadDeclaration, BootFailed, StageTimeout, describe, located
from magmobo.kernel.slot import PhaseFailed
from magmobo.kernel.timeline import Timeline

STAGE_TIMEOUT_S, ROLLBACK_TIMEOUT_S = 600.0, 300.0
STAGE_END_S = 10.0
"""What a stage that was cancelled gets to end; each hook in it has a grace of its own that is shorter."""


class Stage(Struct, frozen=True):
    """One step of the boot; `run` raises what keeps the node from starting."""

    name: str
    run: Callable[[], Awaitable[None]]


class BootSequence:
    """Walks through the stages once and notes on `timeline` how long they took.

    Args:
        undo: takes back whatever was done so far; it has deadlines of its own for each component.
        stage_timeout_s: deadline of each stage.
        rollback_timeout_s: a last resort behind those of `undo`: a rollback that takes longer is given up and said so.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        undo: Callable[[], Awaitable[None]],
        bus: Bus,
        clock: Clock,
        timeline: Timeline | None = None,
        *,
        stage_timeout_s: float = STAGE_TIMEOUT_S,
        rollback_timeout_s: float = ROLLBACK_TIMEOUT_S,
    ) -> None:
        self._stages, self._undo, self._bus, self._clock = stages, undo, bus, clock
        self._stage_timeout_s, self._rollback_timeout_s = stage_timeout_s, rollback_timeout_s
        self._interrupted = False
        self.timeline = timeline or Timeline(clock.monotonic_s)

    @property
    def timeline_s(self) -> dict[str, float]:
        """Seconds by stage, in order, of the stages that ended."""
        return {span.stage: span.ended_s - span.began_s for span in self.timeline.spans if not span.component}

    async def run(self) -> None:
        """Raises: BootFailed after everything was taken back; CancelledError likewise."""
        for stage in self._stages:
            self.timeline.stage = stage.name
            error = await self._pass(stage)
            self.timeline.stage = ""
            if error is not None:
                await self._take_back(error)
                if self._interrupted:
                    raise asyncio.CancelledError from error
                raise error from error.cause

    async def _pass(self, stage: Stage) -> BootFailed | None:
        """Go through one stage; what kept it from ending well, when nothing of it runs any more."""
        started_at = self._clock.time_s()
        task = asyncio.create_task(_coroutine(stage.run()), name=f"boot:{stage.name}")
        with self.timeline.span("", ""):
            late = await self._wait(stage, task)
        if self._interrupted or late is not None:
            _forget(task)
            return BootFailed(stage.name, "", "", late or InterruptedError("the boot was interrupted"))
        error = _failure(stage, task)
        if error is None:
            span = self.timeline.spans[-1]
            self._bus.emit(
                SystemBootStage(stage=stage.name, started_at=started_at, duration_s=span.ended_s - span.began_s)
            )
        return error

    async def _wait(self, stage: Stage, task: asyncio.Task[None]) -> StageTimeout | None:
        """Return when `task` has ended, by itself or cancelled because it was late or nobody waits any more."""
        late = None
        try:
            await asyncio.wait({task}, timeout=self._stage_timeout_s)
        except asyncio.CancelledError:
            self._interrupted = True
        if not task.done():
            late = None if self._interrupted else self._overrun(stage, task)
            task.cancel()
            await self._outlast(task, STAGE_END_S)
        return late

    async def _take_back(self, error: BootFailed) -> None:
        task = asyncio.create_task(_coroutine(self._undo()), name="boot:rollback")
        await self._outlast(task, self._rollback_timeout_s)
        if not task.done():
            where = waiting_at(task)
            error.rollback = f"the rollback did not end within {self._rollback_timeout_s:g} s, waiting at {where}"
            await end(task)
        elif task.cancelled():
            error.rollback = "the rollback was cancelled"
        elif (failure := task.exception()) is not None:
            error.rollback = f"the rollback failed: {describe(failure)}"
        cause = f"{located(error.cause)}; {error.rollback}" if error.rollback else located(error.cause)
        self._bus.emit(SystemBootFailed(stage=error.stage, component=error.component, error=cause))

    async def _outlast(self, task: asyncio.Task[None], timeout_s: float) -> None:
        """Wait for the end of `task`, whatever happens to the caller; a cancellation is noted and kept for later."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        while not task.done() and (left_s := ends_at_s - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left_s)
            except asyncio.CancelledError:
                self._interrupted = True

    def _overrun(self, stage: Stage, task: asyncio.Task[None]) -> StageTimeout:
        # Hooks run in tasks named after them. Of two kernels that boot at once on one loop with equal names, the line
        # may be the other's; the components named are ours in any case.
        hooks = {one.get_name(): one for one in asyncio.all_tasks()}
        waiting = [
            (component, phase, waiting_at(hooks.get(f"{component}.{phase}", task)))
            for component, phase in self.timeline.under_way
        ]
        return StageTimeout(stage.name, self._stage_timeout_s, waiting or [("", "", waiting_at(task))])


async def _coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _failure(stage: Stage, task: asyncio.Task[None]) -> BootFailed | None:
    if task.cancelled():
        return BootFailed(stage.name, "", "", RuntimeError("it cancelled itself"))
    cause = task.exception()
    if isinstance(cause, PhaseFailed):
        return BootFailed(stage.name, cause.component, cause.phase, cause.cause)
    return None if cause is None else BootFailed(stage.name, "", "", cause)


def _forget(task: asyncio.Task[None]) -> None:
    """Its outcome is nobody's concern: mark it as seen, so that asyncio does not report it."""
    if task.done() and not task.cancelled():
        task.exception()


def check_components(component_types: Iterable[type[Component]], config: Config) -> None:
    """The sections of all components are there and of the right type. Raises: BadDeclaration."""
    sections = set(config.sections)
    for component_type in component_types:
        wanted = component_type.config_type
        if wanted is None:
            continue
        if component_type.name not in sections:
            raise BadDeclaration(component_type.name, f"its section [{component_type.name}] was not loaded")
        if not isinstance(config.section(component_type.name), wanted):
            raise BadDeclaration(component_type.name, f"its section is not a {wanted.__name__}")
