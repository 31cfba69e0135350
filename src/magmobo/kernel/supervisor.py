"""Brings failed components back, one by one, inside their restart budgets; and does what operators ask about them.

Invariants: at most one recovery of a component at a time, and none while an operator's request about it is under way;
what becomes of one component delays no other; nothing is recovered while the node is not active. A budget counts on the
monotonic clock. Whoever asked for a component to run is answered with what went wrong, and the component is then looked
after like any other that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.errors import MagError
from magmobo.contracts.events import ComponentQuarantined, ComponentRecoveryFailed
from magmobo.kernel.budget import Budget
from magmobo.kernel.config.core import KernelConfig, RecoveryConfig
from magmobo.kernel.deadline import GRACE_S, end
from magmobo.kernel.errors import IllegalTransition, UnknownComponent, describe, located
from magmobo.kernel.lifecycle import State
from magmobo.kernel.slot import Deadlines, PhaseFailed, Slot
from magmobo.kernel.supervision.errors import ComponentFailure, NotNow, UnhealthyComponent

if TYPE_CHECKING:
    from random import Random

    from magmobo.contracts.operations import RestartNote

SUPERVISOR, OPERATOR, RELOAD = "supervisor", "operator", "reload"
_NEVER_RAN = (State.REGISTERED, State.CONFIGURED, State.BOOTED, State.DISABLED)
_PATIENCE_S = 3 * GRACE_S  # a cancelled operation lets its hook react, and may have a stop to try after that


class _Case:
    """What is known about one component beyond its slot."""

    def __init__(self, slot: Slot, budget: Budget) -> None:
        self.slot, self.budget = slot, budget
        self.recovery: asyncio.Task[None] | None = None
        self.requests = 0
        self.wanted = True
        self.down_since_s: float | None = None
        self.reason = ""


class Supervisor:
    """One for all components of a node.

    Args:
        slots: a live view; components may join and leave.
        on_exit: called with the name of a component of `recovery.exit_on` that was quarantined.
        is_active: whether the node is up, so that components ought to run.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        recovery: RecoveryConfig,
        kernel: KernelConfig,
        bus: Bus,
        clock: Clock,
        random: Random | None,
        on_exit: Callable[[str], None],
        is_active: Callable[[], bool],
    ) -> None:
        self._slots, self._config, self._bus, self._clock, self._random = slots, recovery, bus, clock, random
        self.deadlines = Deadlines(kernel.start_timeout_s, kernel.stop_timeout_s)
        self._on_exit, self._is_active = on_exit, is_active
        self._cases: dict[str, _Case] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._closed = False

    # ------------------------------------------------------------ failures

    def failed(self, name: str, error: BaseException | None = None) -> None:
        """A component failed, or, when it still runs, is to be taken for failed because of `error`."""
        if self._closed or not self._is_active() or name not in self._slots:
            return
        case = self._case(name)
        if error is not None:
            case.slot.fail(error)
            if isinstance(error, UnhealthyComponent) and error.since_start:
                case.budget.missed(self._clock.monotonic_s())
        self._look_after(case)

    def take_charge(self) -> None:
        """The node has become active: recover what failed before that."""
        for name in tuple(self._slots):
            self.failed(name)

    def _look_after(self, case: _Case) -> None:
        is_busy = case.requests > 0 or (case.recovery is not None and not case.recovery.done())
        if is_busy or self._closed or not case.wanted or case.slot.state is not State.FAILED:
            return
        case.recovery = asyncio.create_task(self._recover(case), name=f"supervisor:{case.slot.name}")

    async def _recover(self, case: _Case) -> None:
        """Until it runs, or is quarantined. A component that fails again right after it came back stays in the loop."""
        while case.slot.state is State.FAILED and self._is_active():
            self._note_failure(case)
            if case.budget.left(self._clock.monotonic_s()) == 0:
                await self._give_up(case)
                return
            pause_s = case.budget.pause_s(self._clock.monotonic_s())
            case.slot.log.warning("component will be recovered", pause_s=round(pause_s, 3), reason=case.reason)
            await self._clock.sleep(pause_s)
            if case.slot.state is State.FAILED and self._is_active() and not await self._attempt(case):
                return

    async def _attempt(self, case: _Case) -> bool:
        """One recovery; whether there may be another one."""
        slot, now_s = case.slot, self._clock.monotonic_s()
        case.budget.spend(now_s)
        try:
            await slot.recover(self.deadlines, last=case.budget.left(now_s) == 0)
        except PhaseFailed as failure:
            case.budget.missed(self._clock.monotonic_s())
            count = case.budget.spent(self._clock.monotonic_s())
            slot.log.exception("recovery failed", attempts=count, error=describe(failure.cause))
            self._bus.emit(ComponentRecoveryFailed(name=slot.name, restart_count=count))
            if slot.state is State.QUARANTINED:
                self._quarantined(case)
            return True
        except MagError as error:
            slot.log.info("not recovered", reason=describe(error))
            return False
        self._note_return(case, SUPERVISOR)
        return True

    async def _give_up(self, case: _Case) -> None:
        try:
            await case.slot.quarantine(self.deadlines)
        except MagError as error:
            case.slot.log.info("not quarantined", reason=describe(error))
        else:
            self._quarantined(case)

    def _quarantined(self, case: _Case) -> None:
        slot, count = case.slot, case.budget.spent(self._clock.monotonic_s())
        slot.log.error("component is quarantined", restarts=count, reason=case.reason)
        self._bus.emit(ComponentQuarantined(name=slot.name, restart_count=count))
        if slot.name in self._config.exit_on:
            self._on_exit(slot.name)

    # ------------------------------------------------------------ operators

    async def restart(self, name: str, *, by: str = OPERATOR) -> None:
        """Stop and start a component, or start one that is down; its budget begins anew.

        It goes on to its end when the caller is cancelled.
        Raises: UnknownComponent, NotNow, IllegalTransition, or why it does not run; it is then being recovered.
        """
        await self._request(name, self._restart, by)

    async def start(self, name: str, *, by: str = OPERATOR) -> None:
        """Start a component that is stopped, failed or quarantined. Otherwise as `restart`."""
        await self._request(name, self._start, by)

    async def stop(self, name: str, *, by: str = OPERATOR) -> None:
        """Stop a component, and do not recover it until it is started again. One that is down already stays so.

        Raises: UnknownComponent, NotNow, IllegalTransition, or why it did not stop; it is then `failed`.
        """
        await self._request(name, self._stop, by)

    async def _request(self, name: str, act: Callable[[_Case, str], Coroutine[Any, Any, None]], by: str) -> None:
        if name not in self._slots:
            raise UnknownComponent(name)
        if self._closed or not self._is_active():
            raise NotNow(name, "the node is not ready")
        task = asyncio.create_task(self._carry_out(self._case(name), act, by), name=f"supervisor:{name}")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        task.add_done_callback(_seen)
        await asyncio.wait({task})
        if task.cancelled():
            raise NotNow(name, "the node is going down")
        task.result()

    async def _carry_out(self, case: _Case, act: Callable[[_Case, str], Coroutine[Any, Any, None]], by: str) -> None:
        case.requests += 1
        try:
            if case.recovery is not None:
                await end(case.recovery, grace_s=_PATIENCE_S)
            case.budget.reset()
            await act(case, by)
        except PhaseFailed as failure:
            raise _coded(failure.component, failure.phase, failure.cause) from failure
        finally:
            case.requests -= 1
            self._look_after(case)

    async def _restart(self, case: _Case, by: str) -> None:
        case.wanted = True
        self._note_failure(case)
        await case.slot.restart(self.deadlines)
        self._note_return(case, by)

    async def _start(self, case: _Case, by: str) -> None:
        case.wanted = True
        await case.slot.start(self.deadlines.start_s, stop_timeout_s=self.deadlines.stop_s)
        self._note_return(case, by)

    async def _stop(self, case: _Case, by: str) -> None:
        slot = case.slot
        if slot.state in _NEVER_RAN:
            raise IllegalTransition(slot.name, slot.state, State.STOPPING)
        case.wanted = False
        error = await slot.stop(self.deadlines.stop_s, for_good=False)
        case.down_since_s, case.reason = self._clock.monotonic_s(), f"stopped by {by}"
        if error is not None:
            raise _coded(slot.name, "stop", error)

    # ------------------------------------------------------------ what it knows

    def notes(self, name: str) -> list[RestartNote]:
        """The last restarts, oldest first. Raises: UnknownComponent."""
        return list(self._case(name).slot.notes)

    def budget_left(self, name: str) -> int:
        """Restarts it may still try now by itself. Raises: UnknownComponent."""
        return self._case(name).budget.left(self._clock.monotonic_s())

    def tune(self, recovery: RecoveryConfig, kernel: KernelConfig) -> None:
        """Other settings count from now on; what is under way keeps its deadlines."""
        self._config, self.deadlines = recovery, Deadlines(kernel.start_timeout_s, kernel.stop_timeout_s)
        for case in self._cases.values():
            case.budget.tune(recovery)

    def replaced(self, name: str, *, since_s: float) -> None:
        """A reload has made the component anew; it was away since `since_s` (monotonic). Its budget begins anew."""
        case = self._case(name)
        case.budget.reset()
        case.down_since_s, case.reason = since_s, "its settings changed"
        self._note_return(case, RELOAD)

    async def close(self) -> None:
        """End every recovery and request under way; nothing is begun any more."""
        self._closed = True
        recoveries = {case.recovery for case in self._cases.values() if case.recovery is not None}
        await asyncio.gather(*(end(task, grace_s=_PATIENCE_S) for task in {*recoveries, *self._requests}))

    def _case(self, name: str) -> _Case:
        slot = self._slots.get(name)
        if slot is None:
            raise UnknownComponent(name)
        case = self._cases.get(name)
        if case is None or case.slot is not slot:  # a component that left and came back owes nothing
            for gone in self._cases.keys() - self._slots.keys():
                del self._cases[gone]
            case = self._cases[name] = _Case(slot, Budget(self._config, self._random))
        return case

    def _note_failure(self, case: _Case) -> None:
        if case.down_since_s is None:
            error = case.slot.error
            case.down_since_s = self._clock.monotonic_s()
            case.reason = located(error) if error is not None else "asked for"

    def _note_return(self, case: _Case, by: str) -> None:
        from magmobo.contracts.operations import RestartNote  # not before it is needed

        now_s = self._clock.monotonic_s()
        at = datetime.fromtimestamp(self._clock.time_s(), UTC).isoformat(timespec="milliseconds")
        away_s = now_s - (case.down_since_s if case.down_since_s is not None else now_s)
        case.slot.notes.append(RestartNote(at, by, case.reason, away_s))
        case.slot.log.info("component runs again", by=by, away_s=round(away_s, 3), reason=case.reason)
        case.down_since_s, case.reason = None, ""


def _coded(component: str, phase: str, cause: BaseException) -> MagError:
    return cause if isinstance(cause, MagError) else ComponentFailure(component, phase, cause)


def _seen(task: asyncio.Task[None]) -> None:
    """Its outcome may be nobody's concern, when who asked has gone."""
    if not task.cancelled():
        task.exception()
