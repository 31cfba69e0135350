"""Asks running components how they are, judges the answers against thresholds, and has the unhealthy recovered.

A component that does not answer in time, or raises, is unhealthy. One whose provider is in trouble is not to blame: it
is muted, and the provider is named. Nothing is restarted here: the supervisor's budget decides. Invariant: of one
component at most one question is open, and an answer of an earlier incarnation decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import structs

from magmobo.contracts.bus import Bus
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import (
    HealthCheckComplete,
    HealthDegraded,
    HealthEscalated,
    HealthFailed,
    HealthRecovered,
    HealthStatusChanged,
)
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.kernel.config.core import HealthConfig
from magmobo.kernel.deadline import Overrun, run_bounded, waiting_at
from magmobo.kernel.errors import describe
from magmobo.kernel.lifecycle import State
from magmobo.kernel.slot import Slot
from magmobo.kernel.supervision.errors import UnhealthyComponent

if TYPE_CHECKING:
    from random import Random

JITTER = 0.1
_HURRY_S = 1.0
_SEVERITY = list(HealthStatus)


class Supervises(Protocol):
    """What the monitor asks of the supervisor."""

    def failed(self, name: str, error: BaseException) -> None:
        """Take a running component for failed."""
        ...


class _Record:
    """What is known about one incarnation of a component. It inherits the status that the former one was left with, so
    that a return to health is told, and an open question.
    """

    def __init__(self, incarnation: int, former: _Record | None) -> None:
        self.incarnation = incarnation
        self.status: HealthStatus = former.status if former is not None else HealthStatus.HEALTHY
        self.asking: asyncio.Task[HealthReport] | None = former.asking if former is not None else None
        self.latest: HealthReport | None = None
        self.bad = self.good = 0
        self.was_well = False
        self.action = ""

    def judge(self, report: HealthReport, config: HealthConfig) -> HealthStatus:
        """Count one answer; what the component counts as from now on.

        Worse is believed after `failures` answers in a row when it is `unhealthy`, at once when it is `degraded`;
        better after `successes` in a row, but at once when it is the first answer since the start.
        """
        is_first, self.latest = self.latest is None, report
        if report.status is HealthStatus.UNHEALTHY:
            self.bad, self.good = self.bad + 1, 0
            return HealthStatus.UNHEALTHY if self.bad >= config.failures else self.status
        self.bad, self.was_well = 0, True
        if _SEVERITY.index(report.status) >= _SEVERITY.index(self.status):
            self.good = 0
            return report.status
        self.good += 1
        if self.good < config.successes and not is_first:
            return self.status
        self.good = 0
        return report.status


class HealthMonitor:
    """One round every `health.interval_s`.

    Args:
        slots: a live view.
        needs: the names of the providers that a component cannot do without.
        supervisor: told about a component that is to be recovered.
    """

    def __init__(
        self,
        slots: Mapping[str, Slot],
        needs: Callable[[str], Sequence[str]],
        config: HealthConfig,
        bus: Bus,
        clock: Clock,
        supervisor: Supervises,
        random: Random | None = None,
    ) -> None:
        self._slots, self._needs, self._config, self._bus, self._clock = slots, needs, config, bus, clock
        self._supervisor, self._random = supervisor, random
        self._records: dict[str, _Record] = {}
        self._hurry_until_s = 0.0
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Ask until cancelled. The pause varies a little, so that nodes do not ask a shared database in step."""
        from random import Random  # the first round is behind the start

        random = self._random or Random()  # noqa: S311 (it spreads load)
        while True:
            await self.poll_once()
            await self._pause(random)

    def tune(self, config: HealthConfig) -> None:
        """Ask and judge by these settings from now on."""
        self._config = config
        self._woken.set()

    def hurry(self, duration_s: float) -> None:
        """Ask more often for so long: something has changed, and whether it does good should be known soon."""
        self._hurry_until_s = self._clock.monotonic_s() + duration_s
        self._woken.set()

    async def _pause(self, random: Random) -> None:
        """Until the next round is due, by the settings that count then."""
        began_s = self._clock.monotonic_s()
        share = 1 + random.uniform(-JITTER, JITTER)
        while (left_s := began_s + self._interval_s() * share - self._clock.monotonic_s()) > 0:
            self._woken.clear()
            sleep = asyncio.create_task(self._clock.sleep(left_s), name="kernel:health-pause")
            woken = asyncio.create_task(self._woken.wait(), name="kernel:health-woken")
            try:
                await asyncio.wait({sleep, woken}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleep.cancel()
                woken.cancel()

    def _interval_s(self) -> float:
        is_hurrying = self._clock.monotonic_s() < self._hurry_until_s
        return min(self._config.interval_s, _HURRY_S) if is_hurrying else self._config.interval_s

    async def poll_once(self) -> None:
        """One round: ask all together, judge all, then act, so that causes are known before anything is done."""
        for gone in self._records.keys() - self._slots.keys():
            del self._records[gone]
        running = [slot for slot in tuple(self._slots.values()) if slot.state is State.RUNNING]
        asked = [(slot, self._record_of(slot)) for slot in running]
        answers = await asyncio.gather(*(self._ask(slot, record) for slot, record in asked))
        for (slot, record), answer in zip(asked, answers, strict=True):
            if _is_current(slot, record):
                self._judge(slot, record, answer)
        for slot, record in asked:
            if _is_current(slot, record):
                self._act(slot, record)
        self._bus.emit(
            HealthCheckComplete(
                system=self._system(), components={name: self.status(name) or "unknown" for name in self._slots}
            )
        )

    # ------------------------------------------------------------ what it knows

    def status(self, name: str) -> HealthStatus | None:
        """What the component counts as; None while it does not run, or was not asked yet."""
        record = self._current(name)
        return record.status if record is not None and record.latest is not None else None

    def latest(self, name: str) -> HealthReport | None:
        """The last answer as it was given, thresholds aside; None as above."""
        record = self._current(name)
        return record.latest if record is not None else None

    def caused_by(self, name: str) -> str:
        """The component whose trouble explains that of `name`; empty when it is well, or has only itself to blame."""
        is_well = self.status(name) in (HealthStatus.HEALTHY, None) and not self._is_in_trouble(name)
        return "" if is_well else self._root_of(name, {name})

    def _current(self, name: str) -> _Record | None:
        slot, record = self._slots.get(name), self._records.get(name)
        return record if slot is not None and record is not None and _is_current(slot, record) else None

    def _record_of(self, slot: Slot) -> _Record:
        record = self._records.get(slot.name)
        if record is None or record.incarnation != slot.incarnation:
            record = self._records[slot.name] = _Record(slot.incarnation, record)
        return record

    def _system(self) -> HealthStatus:
        worst = HealthStatus.HEALTHY
        for name, slot in self._slots.items():
            is_down = slot.state is not State.RUNNING
            status = HealthStatus.UNHEALTHY if is_down else self.status(name) or HealthStatus.HEALTHY
            if slot.state is not State.DISABLED:
                worst = max(worst, status, key=_SEVERITY.index)
        return worst

    # ------------------------------------------------------------ causes

    def _is_in_trouble(self, name: str) -> bool:
        """Its last answer counts already: a provider must be known as the cause before its own threshold is reached."""
        slot, record = self._slots.get(name), self._current(name)
        if slot is None or slot.state is not State.RUNNING:
            return True
        return record is not None and (record.bad > 0 or record.status is HealthStatus.UNHEALTHY)

    def _root_of(self, name: str, seen: set[str]) -> str:
        """The first provider in trouble whose own providers are well, near or far."""
        for provider in self._needs(name):
            if provider in seen:
                continue
            seen.add(provider)
            if root := self._root_of(provider, seen):
                return root
            if self._is_in_trouble(provider):
                return provider
        return ""

    # ------------------------------------------------------------ asking

    async def _ask(self, slot: Slot, record: _Record) -> HealthReport:
        timeout_s = self._config.timeout_s
        if record.asking is not None and not record.asking.done():
            return self._unanswered(slot, f"an earlier question still waits at {waiting_at(record.asking)}")

        def began(task: asyncio.Task[HealthReport]) -> None:
            record.asking = task

        try:
            answer = await run_bounded(
                slot.component.health(), timeout_s=timeout_s, name=f"{slot.name}.health", grace_s=timeout_s, began=began
            )
            return _understood(answer)
        except Overrun as error:
            return self._unanswered(slot, f"no answer within {timeout_s:g} s, waiting at {error.where}")
        except Exception as error:
            return self._unanswered(slot, describe(error))

    def _unanswered(self, slot: Slot, why: str) -> HealthReport:
        self._bus.emit(HealthFailed(name=slot.name, error=why))
        return _sick(why)

    # ------------------------------------------------------------ judging, acting

    def _judge(self, slot: Slot, record: _Record, report: HealthReport) -> None:
        before = record.status
        record.status = now = record.judge(report, self._config)
        if report.status is now:
            slot.health = report
        elif slot.health is None or slot.health.status is not now:
            slot.health = HealthReport(now, report.checks)  # while a threshold is not reached
        if now is before:
            return
        tell = slot.log.info if now is HealthStatus.HEALTHY else slot.log.warning
        tell("health changed", status=str(now), detail=worst_detail(report))
        self._bus.emit(HealthStatusChanged(name=slot.name, old_status=before, new_status=now))
        if now is HealthStatus.DEGRADED:
            self._bus.emit(HealthDegraded(name=slot.name, metrics=_complaints(report), action="report"))
        elif now is HealthStatus.HEALTHY:
            self._bus.emit(HealthRecovered(name=slot.name, metrics={}, action="none"))

    def _act(self, slot: Slot, record: _Record) -> None:
        report = record.latest
        if record.status is not HealthStatus.UNHEALTHY or report is None:
            record.action = ""
            return
        root = self._root_of(slot.name, {slot.name})
        if root:
            record.bad = 0  # once its provider is well again it gets all its answers again
        action = "muted" if root else self._action(record, report)
        if action and action != record.action:
            record.action = action
            metrics = _complaints(report) | ({"caused_by": root} if root else {})
            slot.log.warning("health escalated", action=action, caused_by=root, detail=worst_detail(report))
            self._bus.emit(HealthEscalated(name=slot.name, metrics=metrics, action=action))
        if action == "recover":
            why = worst_detail(report)
            self._supervisor.failed(slot.name, UnhealthyComponent(slot.name, why, since_start=not record.was_well))

    def _action(self, record: _Record, report: HealthReport) -> str:
        """What follows from being unhealthy without a provider to blame; empty while it has answers left."""
        inside = [one for one in report.checks if one.status is HealthStatus.UNHEALTHY and not one.outside]
        if self._config.on_unhealthy == "report" or (report.status is HealthStatus.UNHEALTHY and not inside):
            return "report"
        return "recover" if record.bad >= self._config.failures else ""


def _is_current(slot: Slot, record: _Record) -> bool:
    return slot.state is State.RUNNING and slot.incarnation == record.incarnation


def _understood(answer: Any) -> HealthReport:
    """Raises: TypeError, ValueError for what is not a report."""
    if not isinstance(answer, HealthReport):
        raise TypeError(f"health() returned {type(answer).__name__} instead of a HealthReport")
    return HealthReport(HealthStatus(answer.status), tuple(map(_told, answer.checks)))


def _told(check: HealthCheck) -> HealthCheck:
    """The check as it may be shown: a component's words may hold the connection string that it could not use."""
    if not check.detail:
        return check
    from magmobo.kernel.redact import redact_text  # the first round is behind the start

    return structs.replace(check, detail=redact_text(check.detail))


def _sick(detail: str) -> HealthReport:
    return HealthReport.of(HealthCheck("health", HealthStatus.UNHEALTHY, detail))


def _complaints(report: HealthReport) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if check.status is not HealthStatus.HEALTHY}


def worst_detail(report: HealthReport) -> str:
    """What the checks that decided the status say, for people."""
    if report.status is HealthStatus.HEALTHY:
        return ""
    return "; ".join(
        f"{check.name}: {check.detail}" if check.detail else check.name
        for check in report.checks
        if check.status is report.status
    )
