"""The time after a reload in which it must prove itself: a component that was well before it and fails now, or counts
as unhealthy, tells against it.

Boundary: watches and tells, once; who is told takes the reload back. What is taken back is not on probation again, so
there is no loop. Invariant: after `end` nothing of it is left on the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from magmobo.contracts.bus import Subscription
from magmobo.contracts.clock import Clock
from magmobo.contracts.events import ComponentFailed, Envelope, HealthStatusChanged
from magmobo.contracts.health import HealthStatus
from magmobo.kernel.assembly import Assembly
from magmobo.kernel.bus.bus import EventBus
from magmobo.kernel.errors import located
from magmobo.kernel.lifecycle import State
from magmobo.kernel.services import KERNEL

_DOWN = (State.FAILED, State.RECOVERING, State.QUARANTINED)


def well(assembly: Assembly) -> Set[str]:
    """Names of the components that run, and are not known to be unhealthy."""
    return {
        slot.name
        for slot in assembly.board.slots.values()
        if slot.state is State.RUNNING and assembly.monitor.status(slot.name) is not HealthStatus.UNHEALTHY
    }


class Probation:
    """Of one reload, from `begin` on. `on_failure` is told why, at most once, in a turn of its own."""

    def __init__(self, bus: EventBus, clock: Clock, on_failure: Callable[[str], None]) -> None:
        self._bus, self._clock, self._on_failure = bus, clock, on_failure
        self._watched: Set[str] = frozenset()
        self._subscriptions: list[Subscription] = []
        self._window: asyncio.Task[None] | None = None
        self.is_paused = False
        """What fails now has another cause, the next change for instance."""

    def begin(self, assembly: Assembly, watched: Set[str], window_s: float) -> None:
        """Watch these components for so long, and have them asked for their health more often."""
        self._watched = watched
        self._subscriptions = [
            self._bus.subscribe(KERNEL, ComponentFailed, self._failed),
            self._bus.subscribe(KERNEL, HealthStatusChanged, self._health_changed),
        ]
        self._window = asyncio.create_task(self._end_after(window_s), name="kernel:probation")
        assembly.monitor.hurry(window_s)
        for name in sorted(watched & assembly.board.slots.keys()):  # what came of them while others came up
            slot = assembly.board.slots[name]
            if slot.state in _DOWN:
                self._tell(f'component "{name}" failed' + (f": {located(slot.error)}" if slot.error else ""))
            elif assembly.monitor.status(name) is HealthStatus.UNHEALTHY:
                self._tell(f'component "{name}" became unhealthy')

    def end(self) -> None:
        """Watch no more; calling it again does nothing."""
        for subscription in self._subscriptions:
            subscription.cancel()
        self._subscriptions = []
        if self._window is not None:
            self._window.cancel()
            self._window = None

    async def _end_after(self, window_s: float) -> None:
        await self._clock.sleep(window_s)
        self._window = None
        self.end()

    def _failed(self, envelope: Envelope[ComponentFailed]) -> None:
        if envelope.data.name in self._watched:
            self._tell(f'component "{envelope.data.name}" failed: {envelope.data.error}')

    def _health_changed(self, envelope: Envelope[HealthStatusChanged]) -> None:
        if envelope.data.name in self._watched and envelope.data.new_status == HealthStatus.UNHEALTHY:
            self._tell(f'component "{envelope.data.name}" became unhealthy')

    def _tell(self, reason: str) -> None:
        if self._subscriptions and not self.is_paused:
            self.end()
            self._on_failure(reason)
