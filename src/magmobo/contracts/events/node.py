"""Events of the node itself: its boot, its components and their health, its settings, its rights, its bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from magmobo.contracts.events.event import Event


class SystemBoot(Event, frozen=True, gc=False):
    """The node begins to boot."""

    topic = "system.boot"
    instance_id: str
    environment: str


class SystemBootStage(Event, frozen=True, gc=False):
    """One of the six boot stages ended."""

    topic = "system.boot_stage"
    stage: str
    started_at: float
    duration_s: float


class SystemBootFailed(Event, frozen=True, gc=False):
    """The boot stopped at `stage`; what had been started was rolled back."""

    topic = "system.boot_failed"
    stage: str
    component: str
    error: str
    trace_id: str = ""


class SystemReady(Event, frozen=True, gc=False):
    """Every component runs and the doors are open."""

    topic = "system.ready"
    instance_id: str
    environment: str
    boot_s: float


class SystemShutdown(Event, frozen=True, gc=False):
    """The node begins to stop and gives itself `timeout_s`."""

    topic = "system.shutdown"
    timeout_s: float


class ComponentRegistered(Event, frozen=True, gc=False):
    """A component is known to the registry."""

    topic = "component.registered"
    name: str


class ComponentUnregistered(Event, frozen=True, gc=False):
    """A component was taken off the running node."""

    topic = "component.unregistered"
    name: str


class ComponentStateChanged(Event, frozen=True, gc=False):
    """A component went from one state of the table to another."""

    topic = "component.state_changed"
    name: str
    old_state: str
    new_state: str


class ComponentStarted(Event, frozen=True, gc=False):
    """A component serves."""

    topic = "component.started"
    name: str


class ComponentStopped(Event, frozen=True, gc=False):
    """A component has drained and serves no more."""

    topic = "component.stopped"
    name: str


class ComponentFailed(Event, frozen=True, gc=False):
    """A component failed; `error` starts with its stable code."""

    topic = "component.failed"
    name: str
    error: str


class ComponentRecoveryFailed(Event, frozen=True, gc=False):
    """A component did not come back; `restart_count` attempts were made inside the window."""

    topic = "component.recovery_failed"
    name: str
    restart_count: int


class ComponentQuarantined(Event, frozen=True, gc=False):
    """A component used up its restarts and stays down; `until` is empty: an operator must start it."""

    topic = "component.quarantined"
    name: str
    restart_count: int
    until: str = ""


class HealthStatusChanged(Event, frozen=True, gc=False):
    """What a component says of itself, after the thresholds, became something else."""

    topic = "health.status_changed"
    name: str
    old_status: str
    new_status: str


class HealthDegraded(Event, frozen=True, gc=False):
    """A component still serves, but less well. `metrics` are its checks that are not healthy: name -> detail."""

    topic = "health.degraded"
    name: str
    metrics: Mapping[str, str]
    action: str


class HealthRecovered(Event, frozen=True, gc=False):
    """A component is well again."""

    topic = "health.recovered"
    name: str
    metrics: Mapping[str, str]
    action: str


class HealthEscalated(Event, frozen=True, gc=False):
    """A component was unhealthy for too long; `action` (`recover`, `muted`, `report`, `quarantine`, `exit`) follows."""

    topic = "health.escalated"
    name: str
    metrics: Mapping[str, str]
    action: str


class HealthFailed(Event, frozen=True, gc=False):
    """A component could not be asked: it raised, or did not answer in time."""

    topic = "health.failed"
    name: str
    error: str


class HealthCheckComplete(Event, frozen=True, gc=False):
    """One round of questions ended: the node's status and each component's."""

    topic = "health.check_complete"
    system: str
    components: Mapping[str, str]


class ConfigReloaded(Event, frozen=True, gc=False):
    """Other settings count since now. `changed_keys` are whole (`magds.dsn`); `trigger` is what asked for it: `file`,
    `signal`, `command`, `patch`, `expiry`, `secret`, `rollback` or `probation`.
    """

    topic = "config.reloaded"
    version: int
    changed_keys: Sequence[str]
    trigger: str = ""


class ConfigReloadFailed(Event, frozen=True, gc=False):
    """A reload was refused; the running settings go on to count. `changed_keys` are those it would have changed, as far
    as it came to that.
    """

    topic = "config.reload_failed"
    error: str
    changed_keys: Sequence[str] = ()
    trigger: str = ""


class SecurityCapabilityDenied(Event, frozen=True, gc=False):
    """An actor asked for what its role does not hold. `context` is the command."""

    topic = "security.capability_denied"
    capability: str
    actor: str
    context: str


class SecurityBreakglass(Event, frozen=True, gc=False):
    """An actor took what its role does not hold, and said why."""

    topic = "security.breakglass"
    actor: str
    capability: str
    justification: str


class EventBusBackpressure(Event, frozen=True, gc=False):
    """A bounded queue of the bus was full; `shed` events have been dropped on this topic so far."""

    topic = "eventbus.backpressure"
    depth: int
    shed: int
    shed_topic: str
