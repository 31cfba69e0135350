"""Asks running components how they are, each under a deadline, and remembers the answers.

A component that does not answer in time, or raises, is unhealthy. Nothing is restarted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from magmobo.contracts.clock import Clock
from magmobo.contracts.health import HealthCheck, HealthReport, HealthStatus
from magmobo.kernel.deadline import Overrun, run_bounded
from magmobo.kernel.errors import describe
from magmobo.kernel.lifecycle import State
from magmobo.kernel.slot import Slot


class HealthPoller:
    """One round every `interval_s`; a component has `timeout_s` to answer."""

    def __init__(self, slots: Iterable[Slot], clock: Clock, *, interval_s: float, timeout_s: float) -> None:
        self._slots, self._clock = list(slots), clock
        self._interval_s, self._timeout_s = interval_s, timeout_s

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.poll_once()
            await self._clock.sleep(self._interval_s)

    async def poll_once(self) -> None:
        """Ask every running component, all at the same time."""
        await asyncio.gather(*(self._ask(slot) for slot in self._slots if slot.state is State.RUNNING))

    async def _ask(self, slot: Slot) -> None:
        try:
            report = await run_bounded(
                slot.component.health(), timeout_s=self._timeout_s, name=f"{slot.name}.health", grace_s=self._timeout_s
            )
        except Overrun as error:
            report = _sick(f"no answer within {self._timeout_s:g} s, waiting at {error.where}")
        except Exception as error:
            report = _sick(describe(error))
        before = slot.health.status if slot.health else HealthStatus.HEALTHY
        if report.status is not before:
            tell = slot.log.info if report.status is HealthStatus.HEALTHY else slot.log.warning
            tell("health changed", status=str(report.status), detail=worst_detail(report))
        slot.health = report


def _sick(detail: str) -> HealthReport:
    return HealthReport.of(HealthCheck("health", HealthStatus.UNHEALTHY, detail))


def worst_detail(report: HealthReport) -> str:
    """What the checks that decided the status say, for people."""
    if report.status is HealthStatus.HEALTHY:
        return ""
    return "; ".join(
        f"{check.name}: {check.detail}" if check.detail else check.name
        for check in report.checks
        if check.status is report.status
    )
