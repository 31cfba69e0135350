"""The states of a component and which may follow which.

Rules, as in the project's contract: registered -> configured -> booted -> starting -> running -> stopping -> stopped ->
starting; any active state -> failed -> recovering -> running | failed | quarantined; failed | quarantined -> starting
by hand; registered | stopped <-> disabled. Anything else is refused and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from magmobo.contracts.bus import Bus
from magmobo.contracts.events import ComponentFailed, ComponentStarted, ComponentStateChanged, ComponentStopped
from magmobo.kernel.errors import IllegalTransition, located


class State(StrEnum):
    """Where a component is in its life."""

    REGISTERED = "registered"
    CONFIGURED = "configured"
    BOOTED = "booted"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    RECOVERING = "recovering"
    QUARANTINED = "quarantined"
    DISABLED = "disabled"


TRANSITIONS: dict[State, frozenset[State]] = {
    State.REGISTERED: frozenset({State.CONFIGURED, State.FAILED, State.DISABLED}),
    State.CONFIGURED: frozenset({State.BOOTED, State.FAILED}),
    State.BOOTED: frozenset({State.STARTING, State.FAILED}),
    State.STARTING: frozenset({State.RUNNING, State.FAILED}),
    State.RUNNING: frozenset({State.STOPPING, State.FAILED}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset({State.STARTING, State.DISABLED}),
    State.FAILED: frozenset({State.RECOVERING, State.STARTING}),
    State.RECOVERING: frozenset({State.RUNNING, State.FAILED, State.QUARANTINED}),
    State.QUARANTINED: frozenset({State.STARTING}),
    State.DISABLED: frozenset({State.REGISTERED, State.STOPPED}),
}


class Lifecycle:
    """The state of one component. Every change is an event; `since_s` is wall time of the last one."""

    def __init__(self, name: str, bus: Bus, time_s: Callable[[], float]) -> None:
        self.name, self.state = name, State.REGISTERED
        self._bus, self._time_s = bus, time_s
        self.since_s = time_s()

    def can(self, new_state: State) -> bool:
        """Whether `new_state` may follow now."""
        return new_state in TRANSITIONS[self.state]

    def to(self, new_state: State) -> None:
        """Change state and tell everybody. Raises: IllegalTransition, and then nothing changed."""
        if not self.can(new_state):
            raise IllegalTransition(self.name, self.state, new_state)
        old_state, self.state = self.state, new_state
        self.since_s = self._time_s()
        self._bus.emit(ComponentStateChanged(name=self.name, old_state=old_state, new_state=new_state))
        if new_state is State.RUNNING:
            self._bus.emit(ComponentStarted(name=self.name))
        elif new_state is State.STOPPED:
            self._bus.emit(ComponentStopped(name=self.name))

    def fail(self, error: BaseException) -> None:
        """Go to `failed` from wherever that is allowed, and say why."""
        if self.can(State.FAILED):
            self.to(State.FAILED)
            self._bus.emit(ComponentFailed(name=self.name, error=located(error)))
