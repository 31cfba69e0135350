"""Every event of the node, one frozen Struct each; the topic stands on the class.

Boundary: facts only, no behaviour. Adding a topic or a field is fine, renaming one breaks users. Inside the process an
event travels in an `Envelope`; outside it becomes CloudEvents 1.0 JSON of type `dev.magmobo.<topic>.v1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, Literal, TypeVar

from msgspec import Raw, Struct


class Event(Struct, frozen=True, gc=False):
    """Base of every event; a subclass sets `topic`, lower-case words joined by dots.

    `private` names fields that hold users' data: subscribers get them, people who look at the node do not.
    """

    topic: ClassVar[str] = ""
    private: ClassVar[tuple[str, ...]] = ()


E = TypeVar("E", bound=Event, covariant=True)


class Envelope(Struct, Generic[E], frozen=True, gc=False):
    """One event on its way. `seq` counts per topic from 1; `time_s` is seconds since 1970 UTC."""

    topic: str
    data: E
    time_s: float
    seq: int
    origin: str = ""
    trace_id: str = ""
    causation_id: str = ""

    @property
    def id(self) -> str:
        """Unique while the node lives: origin (instance id), topic and sequence number."""
        return f"{self.origin}/{self.topic}/{self.seq}"


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


class DatabaseChange(Event, frozen=True, gc=False):
    """One committed row change, or a truncate.

    `position` is opaque to users; here it is 16 hex digits of the commit LSN, a dot, 8 hex digits of the sequence in
    the
    transaction, so that text order is commit order. `record` and `old_record` are JSON objects as REST would show
    them; `old_record` holds what the table's replica identity gives. `commit_time` is RFC 3339 in UTC. A `replayed`
    change was committed before this reader started: it feeds history only.
    """

    topic = "database.change"
    private = ("record", "old_record")
    source: str
    schema: str
    table: str
    op: Literal["insert", "update", "delete", "truncate"]
    position: str
    commit_time: str
    record: Raw | None = None
    old_record: Raw | None = None
    replayed: bool = False


class DatabaseChangesLost(Event, frozen=True, gc=False):
    """Changes up to `to` can no longer be told apart from silence: every table channel must say `gap`."""

    topic = "database.changes_lost"
    epoch: str
    from_position: str
    to_position: str
    reason: str


class DatabaseSchemaChanged(Event, frozen=True, gc=False):
    """Tables, columns, keys, roles or rights changed, by us or by others. `reason` is `notify`, `fingerprint` or
    `reconnect`.
    """

    topic = "database.schema_changed"
    reason: str


class DatabaseConnectionFailed(Event, frozen=True, gc=False):
    """The database stopped answering."""

    topic = "database.connection.failed"
    error: str


class DatabaseConnectionRecovered(Event, frozen=True, gc=False):
    """The database answers again after `outage_s`."""

    topic = "database.connection.recovered"
    outage_s: float


class DatabaseMigrationApplied(Event, frozen=True, gc=False):
    """A migration ran; `component` is its namespace. `direction` is `up` or `down`."""

    topic = "database.migration.applied"
    component: str
    version: str
    duration_s: float
    direction: str = "up"


class DatabaseQueryExecuted(Event, frozen=True, gc=False):
    """A statement of a request ran. Emitted only while somebody listens; `sql` is its text without values."""

    topic = "database.query.executed"
    sql_hash: str
    duration_s: float
    rows: int
    role: str = ""
    sql: str = ""


class DatabaseSlowQueryDetected(Event, frozen=True, gc=False):
    """A statement of a request took longer than `magds.slow_query_s`; `sql` is its text without values."""

    topic = "database.slow_query.detected"
    sql_hash: str
    duration_s: float
    rows: int
    role: str = ""
    sql: str = ""


class RealtimeConnectionOpened(Event, frozen=True, gc=False):
    """A realtime client connected."""

    topic = "realtime.connection.opened"
    connection_id: str
    app: str


class RealtimeConnectionClosed(Event, frozen=True, gc=False):
    """A realtime client left or was closed."""

    topic = "realtime.connection.closed"
    connection_id: str
    app: str
    reason: str
    duration_s: float


class RealtimeSubscriptionCreated(Event, frozen=True, gc=False):
    """A client was admitted to a channel."""

    topic = "realtime.subscription.created"
    connection_id: str
    channel: str


class RealtimeSubscriptionRemoved(Event, frozen=True, gc=False):
    """A client left a channel."""

    topic = "realtime.subscription.removed"
    connection_id: str
    channel: str


class RealtimeGap(Event, frozen=True, gc=False):
    """Clients of a channel were told that they missed what lies between `from_position` and `to_position`."""

    topic = "realtime.gap"
    channel: str
    from_position: str
    to_position: str
    reason: str


class RealtimeMessageSent(Event, frozen=True, gc=False):
    """A message went out to a channel that is not a table's. Emitted only while somebody listens."""

    topic = "realtime.message.sent"
    channel: str
    recipients: int
    event: str = ""


class ApiResponseSent(Event, frozen=True, gc=False):
    """A REST request was answered. Emitted only while somebody listens; `actor` is the role."""

    topic = "api.response.sent"
    method: str
    path: str
    status: int
    duration_s: float
    actor: str


class ExtensionInstalled(Event, frozen=True, gc=False):
    """An extension is there; it does not run yet."""

    topic = "extension.installed"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionEnabled(Event, frozen=True, gc=False):
    """An extension serves."""

    topic = "extension.enabled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionDisabled(Event, frozen=True, gc=False):
    """An extension was stopped; `reason` says by whom or why."""

    topic = "extension.disabled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionUpgraded(Event, frozen=True, gc=False):
    """Another version of an extension serves; a way back is one too, with its `reason`."""

    topic = "extension.upgraded"
    extension_id: str
    version: str
    previous: str
    reason: str = ""


class ExtensionUninstalled(Event, frozen=True, gc=False):
    """An extension is gone; `reason` says whether its data went too."""

    topic = "extension.uninstalled"
    extension_id: str
    version: str
    reason: str = ""


class ExtensionError(Event, frozen=True, gc=False):
    """Something of an extension failed: its worker ended, its start, a hook. `reason` begins with a stable code."""

    topic = "extension.error"
    extension_id: str
    version: str
    reason: str


class ExtensionHealthStatusChanged(Event, frozen=True, gc=False):
    """What an extension says of itself became something else."""

    topic = "extension.health_status.changed"
    extension_id: str
    old_status: str
    new_status: str
    reason: str = ""


class ExtensionBackpressureWarning(Event, frozen=True, gc=False):
    """Half of the events that may wait for an extension wait for it."""

    topic = "extension.backpressure.warning"
    extension_id: str
    waiting: int
    limit: int


class ExtensionBackpressureCritical(Event, frozen=True, gc=False):
    """More events came for an extension than may wait: it is told of a gap instead of the oldest."""

    topic = "extension.backpressure.critical"
    extension_id: str
    waiting: int
    limit: int


class ExtensionEscapeAttempt(Event, frozen=True, gc=False):
    """A worker did what no honest extension does; it was ended and the extension disabled. `what` is the system call's
    number or the fault of a frame.
    """

    topic = "extension.escape_attempt"
    extension_id: str
    version: str
    what: str


class ExtensionPublished(Event, frozen=True, gc=False):
    """An event that an extension published. `name` is what it called it; `payload` is JSON text."""

    topic = "extension.published"
    private = ("payload",)
    extension_id: str
    name: str
    payload: str
