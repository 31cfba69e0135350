"""The place of one component on the board: its object, its state, and its hooks under deadlines.

Invariants: whatever a hook does, the slot ends in a state of the table; one operation at a time, so that operator,
supervisor, reload and shutdown never interleave; after `shutdown` no task, subscription or connected handle of the
component is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from magmobo.contracts.component import Component
from magmobo.contracts.health import HealthReport
from magmobo.kernel.belongings import Footprint
from magmobo.kernel.errors import IllegalTransition, describe
from magmobo.kernel.handles import Link
from magmobo.kernel.lifecycle import Lifecycle, State
from magmobo.kernel.registry import Declaration
from magmobo.kernel.supervision.errors import HookStuck, NotNow
from magmobo.kernel.supervision.hooks import HookRunner
from magmobo.kernel.surroundings import Surroundings
from magmobo.kernel.tenant import Tenant
from magmobo.kernel.turns import Turns

if TYPE_CHECKING:
    import structlog

    from magmobo.contracts.operations import RestartNote

NOTES_KEPT = 20


class PhaseFailed(Exception):
    """A hook of a component failed; it carries who and where up to the boot. Never leaves the kernel."""

    def __init__(self, component: str, phase: str, cause: BaseException) -> None:
        super().__init__(component, phase, cause)
        self.component, self.phase, self.cause = component, phase, cause


class Deadlines(Struct, frozen=True):
    """How long the hooks of a component may take when it is restarted."""

    start_s: float
    stop_s: float


class Slot:
    """One component. `on_failure` is told its name when it failed while it ran, not when a request about it failed.

    `tenant`, `hooks` and `turns` are for whoever holds the turn: a reload (`twophase`).
    """

    def __init__(self, declaration: Declaration, around: Surroundings, on_failure: Callable[[str], None]) -> None:
        self.name, self.component_type = declaration.name, declaration.component_type
        self.links = [Link(self.name, protocol) for protocol in declaration.component_type.provides]
        self.error: BaseException | None = None
        self.health: HealthReport | None = None
        self.restarts = 0
        self.incarnation = 0
        """Counts how often the component came to run: figures about an earlier one mean nothing to a later one."""
        self.notes: deque[RestartNote] = deque(maxlen=NOTES_KEPT)
        self.lifecycle = Lifecycle(self.name, around.bus, around.clock.time_s)
        self._around, self._on_failure = around, on_failure
        self.tenant = Tenant(declaration, around, self._task_failed)
        self.hooks = HookRunner(self.name)
        self.turns = Turns(self.name, self.hooks)
        self._start_entered = False
        self._half_way = False  # `start` or `recover` was entered, and no `stop` since
        self._served = False  # it came to run, and neither `recover` nor `stop` was entered since

    @property
    def state(self) -> State:
        """Where the component is in its life."""
        return self.lifecycle.state

    @property
    def component(self) -> Component:
        """The component itself. Raises: RuntimeError before `construct`."""
        return self.tenant.component

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """The component's own log."""
        return self.tenant.belongings.context.log

    @property
    def footprint(self) -> Footprint:
        """What it holds now."""
        return self.tenant.belongings.footprint

    @property
    def essential(self) -> bool:
        """Whether the node is not ready without it."""
        return self.component_type.essential

    @property
    def package(self) -> str:
        """The Python package of the component's class; the module itself for one without a package."""
        module = self.component_type.__module__
        return module.rpartition(".")[0] or module

    # ------------------------------------------------------------ up

    def construct(self, collaborators: Mapping[str, Any], config: Any) -> None:
        """Build the component and give it its configuration. Raises: PhaseFailed."""
        with self._span("configure"), self._judged("configure"):
            self.tenant.make(collaborators, config)
        self.lifecycle.to(State.CONFIGURED)

    async def boot(self, timeout_s: float) -> None:
        """Run the `boot` hook; consumers may call the component from then on. Raises: PhaseFailed, NotNow."""
        async with self.turns.next():
            with self._judged("boot"):
                await self._boot(timeout_s)
                self._connect()
            self.lifecycle.to(State.BOOTED)

    async def start(self, timeout_s: float, *, stop_timeout_s: float | None = None) -> None:
        """Run the `start` hook, after `boot` or after a stop; a component that failed half way is stopped first, one
        whose settings changed is made anew.

        stop_timeout_s: deadline of that stop; `timeout_s` by default.
        Raises: PhaseFailed, IllegalTransition, NotNow.
        """
        async with self.turns.next():
            await self._start(Deadlines(timeout_s, stop_timeout_s or timeout_s))

    async def restart(self, deadlines: Deadlines) -> None:
        """Stop the component if it runs, and start it, with nobody in between.

        A failing `stop` is logged; the start is tried all the same. Raises: as `start`.
        """
        async with self.turns.next():
            if self.state is State.RUNNING:
                await self._stop(deadlines.stop_s, hold_calls=True)
            await self._start(deadlines)

    async def recover(self, deadlines: Deadlines, *, last: bool) -> None:
        """Bring a failed component back, on the same instance unless its settings changed; if that fails it is
        `failed`, or `quarantined` when this was the `last` attempt.

        The component's own `recover` is asked once; when it failed too, every further attempt is a stop and a start.
        Raises: PhaseFailed, IllegalTransition, NotNow.
        """
        async with self.turns.next():
            self._expect(State.RECOVERING)
            self.lifecycle.to(State.RECOVERING)
            self.restarts += 1
            try:
                with self._judged("recover", stays=last):
                    await self._come_back(deadlines)
            except PhaseFailed:
                if last:
                    await self._give_up(deadlines.stop_s)
                raise
            self._now_running()

    async def _come_back(self, deadlines: Deadlines) -> None:
        has_own = self._served and type(self.component).recover is not Component.recover
        if has_own and not self.tenant.must_be_made:
            self._served, self.error = False, None
            await self._rise("recover", self.component.recover, deadlines.start_s + deadlines.stop_s)
        else:
            # The default of the contract, stop and start, hook by hook: each has its deadline, and what the former
            # start left behind ends in between.
            await self._clean(deadlines.stop_s)
            await self._renew(deadlines)
            self._begin_serving()
            await self._rise("start", self.component.start, deadlines.start_s)
        self._connect()

    async def quarantine(self, deadlines: Deadlines) -> None:
        """Give a failed component up: what it still holds is taken back, and only an operator starts it again.

        Raises: IllegalTransition, NotNow.
        """
        async with self.turns.next():
            self.lifecycle.to(State.RECOVERING)
            await self._give_up(deadlines.stop_s)

    async def _give_up(self, stop_timeout_s: float) -> None:
        for link in self.links:
            link.give_up()
        try:
            await self._tidy(stop_timeout_s)
        finally:
            self.lifecycle.to(State.QUARANTINED)

    async def _start(self, deadlines: Deadlines) -> None:
        self._expect(State.STARTING)
        with self._judged("stop"):
            await self._clean(deadlines.stop_s)
        self.lifecycle.to(State.STARTING)
        if self._start_entered:
            self.restarts += 1
        self._start_entered = True
        with self._judged("boot"):
            await self._renew(deadlines)
        self._begin_serving()
        with self._span("start"), self._judged("start"):
            await self._rise("start", self.component.start, deadlines.start_s)
            self._connect()
        self._now_running()

    async def _boot(self, timeout_s: float) -> None:
        self.tenant.boot_entered = True
        with self._span("boot"):
            await self._rise("boot", self.component.boot, timeout_s)
        self.tenant.booted = True

    async def _renew(self, deadlines: Deadlines) -> None:
        """Where the present instance cannot be started: another one in its place, booted."""
        if not self.tenant.must_be_made:
            return
        await self._give_back(deadlines.stop_s)
        self.error = None
        self.tenant.make_anew()
        await self._boot(deadlines.start_s)

    def _expect(self, new_state: State) -> None:
        if self.turns.is_leaving:
            raise self.turns.not_now()
        if not self.lifecycle.can(new_state):
            raise IllegalTransition(self.name, self.state, new_state)

    def _begin_serving(self) -> None:
        self._half_way, self.error = True, None
        self.tenant.belongings.begin_serving()

    async def _rise(self, phase: str, hook: Callable[[], Coroutine[Any, Any, None]], timeout_s: float) -> None:
        if self.turns.is_leaving:
            raise self.turns.not_now()
        self.turns.is_rising = True
        try:
            await self.hooks.run(phase, hook, timeout_s)
            if self.error is not None:  # a task failed meanwhile
                raise self.error
        finally:
            self.turns.is_rising = False

    def _now_running(self) -> None:
        self._served, self.health = True, None
        self.incarnation += 1
        self.lifecycle.to(State.RUNNING)

    def _connect(self) -> None:
        for link in self.links:
            link.connect(self.component.implementation(link.protocol))

    def _disconnect(self) -> None:
        for link in self.links:
            link.disconnect()

    # ------------------------------------------------------------ other settings, while a reload holds the turn

    async def take_off(self, timeout_s: float) -> None:
        """Stop the component and release what it holds; calls of its consumers wait. A failing hook is logged."""
        await self._stop(timeout_s, hold_calls=True)
        await self._give_back(timeout_s)

    async def bring_up(self, deadlines: Deadlines) -> None:
        """Make the component anew and start it. Raises: PhaseFailed, NotNow, IllegalTransition."""
        await self._start(deadlines)

    # ------------------------------------------------------------ failure

    def fail(self, error: BaseException) -> None:
        """Take a component that runs for failed: its consumers wait, and whoever supervises it is told."""
        is_beside_reload = self.turns.is_held and self.state is State.RUNNING
        if self.turns.is_taken and not is_beside_reload:  # the operation under way decides what becomes of it
            if self.turns.is_rising:
                self.error = self.error or error
                self.hooks.interrupt(self.error)
            return
        if not self.lifecycle.can(State.FAILED):
            return
        self.error = error
        self._disconnect()
        self.lifecycle.fail(error)
        if is_beside_reload:
            self.hooks.interrupt(error)
        self._on_failure(self.name)

    def _task_failed(self, error: BaseException) -> None:
        self.log.error("a task of the component failed", error=describe(error), exc_info=error)
        self.fail(error)

    @contextmanager
    def _judged(self, phase: str, *, stays: bool = False) -> Iterator[None]:
        """Whatever leaves the block leaves the component failed, or, if it `stays`, to the caller's judgement. A
        cancellation goes on as such.
        """
        try:
            yield
        except Exception as error:
            self._mark_failed(error, silently=stays)
            raise PhaseFailed(self.name, phase, error) from error
        except BaseException:
            self._mark_failed(NotNow(self.name, f"its {phase} was interrupted"))
            raise

    def _mark_failed(self, error: BaseException, *, silently: bool = False) -> None:
        self.error = error
        self._disconnect()
        if not silently:
            self.lifecycle.fail(error)

    def _span(self, phase: str) -> AbstractContextManager[object]:
        return self._around.timeline.span(self.name, phase)

    # ------------------------------------------------------------ down

    async def stop(self, timeout_s: float, *, for_good: bool) -> BaseException | None:
        """Run the `stop` hook if `start` was entered, then end what was spawned and subscribed since.

        A failure is logged, kept and returned, never raised. A component that had failed stays failed.
        for_good: others that stop as well may still call it, and it never starts again; otherwise their calls wait
        until it runs.
        """
        async with self.turns.next(for_good_s=timeout_s if for_good else None):
            return await self._stop(timeout_s, hold_calls=not for_good)

    async def _stop(self, timeout_s: float, *, hold_calls: bool) -> BaseException | None:
        if not self._half_way:
            return None
        if self.state is State.RUNNING:
            self.lifecycle.to(State.STOPPING)
        if hold_calls:
            self._disconnect()
        try:
            error = await self._tidy(timeout_s)
        except BaseException:  # the caller was cancelled
            if self.state is State.STOPPING:
                self.lifecycle.fail(NotNow(self.name, "its stop was interrupted"))
            raise
        if self.state is State.STOPPING:
            if error is None:
                self.lifecycle.to(State.STOPPED)
            else:
                self.lifecycle.fail(error)
        return error

    async def _tidy(self, timeout_s: float) -> BaseException | None:
        """Undo a `start`, whole or half: its hook once, then whatever it left behind."""
        if not self._half_way:
            return None
        self._half_way = self._served = False
        try:
            error = await self._leave("stop", timeout_s)
        finally:
            await self.tenant.belongings.end_serving()
        self._half_way = isinstance(error, HookStuck)  # it was not asked, so it must be another time
        return error

    async def _clean(self, timeout_s: float) -> None:
        """`_tidy` before a start. A failing `stop` is tolerated. Raises: HookStuck, when it could not even be asked."""
        error = await self._tidy(timeout_s)
        if isinstance(error, HookStuck):
            raise error

    async def shutdown(self, timeout_s: float) -> None:
        """Run the `shutdown` hook if `boot` was entered, then end everything that belongs to the component.

        One that serves again since its `stop`, because it was just being recovered, is stopped first.
        """
        async with self.turns.next(for_good_s=timeout_s):
            await self._stop(timeout_s, hold_calls=True)
            await self._give_back(timeout_s)

    async def _give_back(self, timeout_s: float) -> None:
        """Undo `boot`, and end everything that belongs to the present instance."""
        self._disconnect()
        self._half_way = False
        try:
            if self.tenant.boot_entered:
                self.tenant.boot_entered = False
                await self._leave("shutdown", timeout_s)
        finally:
            await self.tenant.close()

    async def _leave(self, phase: str, timeout_s: float) -> BaseException | None:
        """On the way down a failing component must not keep the others from leaving."""
        component = self.component
        hook = component.stop if phase == "stop" else lambda: component.shutdown(timeout_s)
        try:
            await self.hooks.run(phase, hook, timeout_s)
        except Exception as error:
            self.error = self.error or error  # what went wrong first is what an operator wants to know
            self.log.exception(f"{phase} failed", error=describe(error))
            return error
        return None
